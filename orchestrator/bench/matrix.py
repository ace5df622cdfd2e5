"""How long does a model take, and how much does a machine compute, over cores × instances × length × batch?

    from orchestrator.bench.matrix import measure_matrix, subjects_of
    from orchestrator.bench.placements import placements

    tuned = tune(prepared, cache, Wish(), None, say)                  # orchestrator.models: the forms of the model
    places = placements(machine, cores=(1, 2), instances=(1, "fill")) # DoesNotFit
    subjects = subjects_of(tuned, tuned.study.variants, nodes_of(places))
    found = measure_matrix(subjects, places, [Shape(1, 16), Shape(8, 128)], seconds=0.6, rounds=3, show=bar.show)
    found.rows   # list[MatrixRow]: one per subject × placement × shape
    found.lost   # list[LostCell]: what could not be measured, and why

Theory of operation. Each instance of a placement is a process of its own, bound to its cores and its memory node before it loads
anything, with a worker's environment (`bench.cell_process`); this process only waits. All instances of a placement run one shape at the
same time, from one moment on. The processes of a (subject, placement) are started once and see all shapes, first each once to warm up,
then round by round, each round beginning with another shape: a slow moment of the machine hits one round of several shapes and not one
shape alone, and `MatrixRow.spread` tells; `MatrixRow.waited` tells of whoever took CPU all the time. A visit takes `seconds` / `rounds`, or
two runs of the engine where these take longer.
A process that dies, fails or says nothing for `deadline_seconds` loses its cell: all processes of the placement are started anew for the
cells that are left, and after MOST_LOST such cells the rest of that placement is given up.
Whoever is interrupted (KeyboardInterrupt) gets through `take` the rows of what was measured until then.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import IO

import msgspec

from orchestrator.allocators import worker_environment
from orchestrator.bench.cell_process import CellSpec
from orchestrator.bench.cells import (
    Failed,
    FromCell,
    Loaded,
    LostCell,
    MatrixRow,
    Placement,
    Seen,
    Shape,
    Subject,
    Visit,
    lost,
    row_of,
)
from orchestrator.models.loadable import loadable
from orchestrator.models.optimize import Tuned
from orchestrator.models.progress import Show, Step, unseen
from orchestrator.models.variants import Variant
from orchestrator.supervisor import spawn
from workers.spec import WorkerSpec

MOST_LOST = 3
DEADLINE_SECONDS = 120.0
"""Of loading, and of one visit: bert-large in fp32 takes 13 s for 8 × 512 tokens on one core."""
_TOGETHER_SECONDS = 0.005
"""From asking to the common start: a line through a pipe and a wake-up take a tenth of it."""
_decoder = msgspec.json.Decoder(FromCell)

Take = Callable[[MatrixRow | LostCell], None]


@dataclass
class Matrix:
    """What a sweep has found so far."""

    rows: list[MatrixRow] = field(default_factory=list)
    lost: list[LostCell] = field(default_factory=list)

    def take(self, found: MatrixRow | LostCell) -> None:
        if isinstance(found, LostCell):
            self.lost.append(found)
        else:
            self.rows.append(found)


def nodes_of(placements: Sequence[Placement]) -> list[int]:
    """The memory nodes that artefacts are needed on; 0 stands for memory that is not bound."""
    return sorted({place.membind[0] if place.membind else 0 for each in placements for place in each.places})


def subjects_of(
    tuned: Tuned, variants: Sequence[Variant], nodes: Sequence[int], say: Callable[[str], None] = lambda _: None
) -> list[Subject]:
    """What workers would load of these variants; makes what is missing in the cache. `say` takes warnings."""
    subjects = []
    for variant in variants:
        found = loadable(tuned, variant, nodes)
        if found.warning is not None:
            say(found.warning)
        subjects.append(Subject(tuned.study.model, found.artefacts))
    return subjects


def measure_matrix(
    subjects: Sequence[Subject],
    placements: Sequence[Placement],
    shapes: Sequence[Shape],
    *,
    seconds: float = 0.6,
    rounds: int = 3,
    deadline_seconds: float = DEADLINE_SECONDS,
    show: Show = unseen,
    take: Take | None = None,
) -> Matrix:
    """Every subject on every placement with every shape; `seconds` per cell, over `rounds`.

    `take` is given each row and each lost cell as soon as it is known, also when the sweep is interrupted.
    """
    found = Matrix()
    total = len(subjects) * len(placements) * len(shapes) * rounds
    done = 0

    def taken(one: MatrixRow | LostCell) -> None:
        found.take(one)
        if take is not None:
            take(one)

    for subject in subjects:
        for placement in placements:
            before = done
            group = _Sweep(subject, placement, shapes, seconds / rounds, rounds, deadline_seconds)
            try:
                with closing(group.run()) as visits:  # closed, its processes are gone, whatever interrupts
                    for visited in visits:
                        show(Step("measuring", before + visited, total))
            finally:
                group.report(taken)
            done = before + len(shapes) * rounds
    return found


class _Sweep:
    """All shapes of one subject on one placement."""

    def __init__(
        self, subject: Subject, placement: Placement, shapes: Sequence[Shape], seconds: float, rounds: int, deadline: float
    ) -> None:  # fmt: skip
        self._subject = subject
        self._placement = placement
        self._shapes = tuple(shapes)
        self._seconds = seconds
        self._rounds = rounds
        self._deadline = deadline
        self._seen: dict[Shape, list[list[Seen]]] = {shape: [] for shape in shapes}
        self._lost: dict[Shape, str] = {}
        self._nothing: str | None = None
        """Why no cell could be measured."""

    def run(self) -> Generator[int]:
        """After each visit: how many there were."""
        while self._left() and self._nothing is None:
            shape: Shape | None = None
            try:
                with _group(self._subject, self._placement, self._shapes, self._deadline) as group:
                    for shape in self._left():
                        group.visit(shape, 0.0)
                    for turn in range(self._rounds):
                        for shape in _turned(self._left(), turn, self._rounds):
                            if len(self._seen[shape]) <= turn:
                                self._seen[shape].append(group.visit(shape, self._seconds))
                                yield sum(map(len, self._seen.values()))
                return
            except _Lost as error:
                if shape is None:
                    self._nothing = str(error)
                    return
                self._lost[shape] = str(error)
                self._seen[shape].clear()
                if len(self._lost) >= MOST_LOST:
                    why = f"given up after {MOST_LOST} lost cells of this form on these cores"
                    self._lost.update({each: why for each in self._left() if not self._seen[each]})
                    return

    def report(self, take: Take) -> None:
        if self._nothing is not None:
            take(lost(self._subject, self._placement, None, self._nothing))
        for shape in self._shapes:
            if shape in self._lost:
                take(lost(self._subject, self._placement, shape, self._lost[shape]))
            elif self._seen[shape]:
                take(row_of(self._subject, self._placement, shape, self._seen[shape]))

    def _left(self) -> list[Shape]:
        return [shape for shape in self._shapes if shape not in self._lost]


def _turned(shapes: Sequence[Shape], turn: int, rounds: int) -> list[Shape]:
    """The same in the same order, beginning at another one in each round."""
    at = turn * len(shapes) // rounds
    return [*shapes[at:], *shapes[:at]]


class _Lost(Exception):
    """A measuring process died, failed or hung: says which and how."""


class _Group:
    """The processes of one placement."""

    def __init__(self, processes: Sequence[_Process], deadline: float) -> None:
        self._processes = processes
        self._deadline = deadline

    def loaded(self) -> None:
        """Waits until all are. _Lost if one cannot."""
        for said in self._answers():
            if not isinstance(said, Loaded):
                raise _Lost(f"it answered {type(said).__name__} before it had loaded")

    def visit(self, shape: Shape, seconds: float) -> list[Seen]:
        """What each instance saw, in the order of the placement. _Lost."""
        at = time.monotonic() + _TOGETHER_SECONDS
        for each in self._processes:
            each.say(Visit(shape, at, seconds))
        found = []
        for said in self._answers():
            if not isinstance(said, Seen):
                raise _Lost(f"it answered a visit with {type(said).__name__}")
            found.append(said)
        return found

    def _answers(self) -> list[FromCell]:
        """One from each, within the deadline."""
        ends = time.monotonic() + self._deadline
        waiting = {each.answers: each for each in self._processes}
        found: dict[int, FromCell] = {}
        with selectors.DefaultSelector() as selector:
            for each in self._processes:
                selector.register(each.answers, selectors.EVENT_READ, each)
            while waiting:
                ready = selector.select(max(0.0, ends - time.monotonic()))
                if not ready and time.monotonic() >= ends:
                    silent = ", ".join(each.name for each in waiting.values())
                    raise _Lost(f"{silent} said nothing for {self._deadline:g} s")
                for key, _ in ready:
                    said = key.data.read()
                    if said is not None:
                        selector.unregister(key.fileobj)
                        del waiting[key.data.answers]
                        found[key.data.number] = said
        return [found[each.number] for each in self._processes]


class _Process:
    """One measuring process, in a group of its own: Ctrl-C in a terminal reaches only whoever waits for it."""

    def __init__(self, number: int, subject: Subject, placement: Placement, longest: int) -> None:
        place = placement.places[number]
        self.number = number
        artefact = subject.artefact(place)
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._rest = bytearray()
        worker = WorkerSpec(
            name=f"cell-{number}", incarnation=1, cpus=list(place.cpus), membind=list(place.membind),
            nodes_on_machine=placement.nodes_on_machine, threads=len(place.cpus), endpoint="", max_seqlen=longest, warmup=[],
            artefact=artefact,
        )  # fmt: skip
        own = worker_environment("system", "system", None, artefact.engine, os.environ)
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.bench.cell_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env=spawn.environment("worker", len(place.cpus), os.environ, own),
            process_group=0,
            bufsize=0,
        )
        self.say(CellSpec(os.getpid(), worker))

    @property
    def name(self) -> str:
        return f"the process of instance {self.number} (pid {self._popen.pid})"

    @property
    def answers(self) -> int:
        assert self._popen.stdout is not None
        return self._popen.stdout.fileno()

    def say(self, message: CellSpec | Visit) -> None:
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(msgspec.json.encode(message) + b"\n")
        except BrokenPipeError:
            raise _Lost(self._last_words()) from None

    def read(self) -> FromCell | None:
        """What it answered, None if the line is not complete yet. _Lost if it has ended, or says that it failed."""
        data = os.read(self.answers, 1 << 16)
        if not data:
            raise _Lost(self._last_words())
        self._rest += data
        line, end, rest = self._rest.partition(b"\n")
        if not end:
            return None
        self._rest = rest
        try:
            said: FromCell = _decoder.decode(line)
        except msgspec.DecodeError as error:
            raise _Lost(f"{self.name} said what is no answer: {error}") from None
        if isinstance(said, Failed):
            raise _Lost(said.error)
        return said

    def _last_words(self) -> str:
        try:
            code = self._popen.wait(5.0)
        except subprocess.TimeoutExpired:
            return f"{self.name} closed its output and lives on"
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._words.seek(0)
        lines = self._words.read().decode("utf-8", "replace").strip().splitlines()
        return f"{self.name} {how}{f': {lines[-1]}' if lines else ''}"

    def close(self) -> None:
        """It holds nothing that is worth waiting for."""
        self._popen.kill()
        self._popen.wait()
        for stream in (self._popen.stdin, self._popen.stdout, self._words):
            if stream is not None:
                stream.close()


@contextmanager
def _group(
    subject: Subject, placement: Placement, shapes: Sequence[Shape], deadline: float
) -> Iterator[_Group]:  # fmt: skip
    """All processes of a placement, loaded. _Lost if one cannot be; none lives when it is left."""
    longest = max(shape.length for shape in shapes)
    started: list[_Process] = []
    try:
        for number in range(placement.instances):
            try:
                started.append(_Process(number, subject, placement, longest))
            except OSError as error:
                raise _Lost(f"no process can be started: {error.strerror}") from None
        group = _Group(started, deadline)
        group.loaded()
        yield group
    finally:
        for each in started:
            each.close()
