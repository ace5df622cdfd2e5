"""How long do this model's forms take on this machine, at the lengths in question? What was measured before is not measured again.

Theory of operation. Of each form (engine and precision) that may serve and is not beaten everywhere: one instance alone with 1, 2, 4 …
cores up to a node's, at lengths that span the mix, single and in small batches; and single sequences on all cores at once, which shows what
instances take from each other (memory bandwidth, caches, clock). One core is measured in full, since most is scaled from it; of more cores
a few shapes correct the law (`simulate.costs`).

The seconds of a shape are those of a run that comes after another shape, as in traffic: the median of the first runs of all visits, or
of the later ones where these are longer.

One file per form in the cache folder keeps the points: its name holds the digest of the model and of all that the times depend on, and its
content says it again. Another model, CPU, engine version, set of cores or way to measure is another file, so nothing stale is ever used.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Final

import msgspec

from orchestrator.bench.cells import LostCell, MatrixRow, Placement, Shape, Subject
from orchestrator.bench.matrix import measure_matrix
from orchestrator.bench.placements import largest, placements
from orchestrator.models.choose import TIE
from orchestrator.models.optimize import Tuned
from orchestrator.models.progress import Show, Step
from orchestrator.models.variants import Variant
from orchestrator.simulate.costs import VERSION, CostError, CostFile, Crowd, Point, decode_costs
from orchestrator.tune.space import sizes_within
from topology.model import Machine

FORMAT: Final = 1
"""Part of the name of what is kept: count it up when something is measured differently."""
GRID: Final = (8, 16, 32, 64, 128, 256, 384, 512, 768, 1024, 2048, 4096, 8192)
BATCHES: Final = (2, 8)
MOST_TOKENS: Final = 1024
"""Larger batches than the router makes are not worth the time."""
ROUNDS: Final = 5
LEAST_SECONDS: Final = 0.1
USUAL_SECONDS: Final = 0.4
"""Per shape."""
START_SECONDS: Final = 1.5
"""Of the processes of one placement, and once through all shapes."""
BEATEN: Final = 1.15
"""A form that takes so many times as long as another one at every length is not measured."""


@dataclass(frozen=True)
class Cells:
    """What is to be measured of one form on one placement."""

    variant: Variant
    placement: Placement
    shapes: tuple[Shape, ...]

    @property
    def alone(self) -> bool:
        return self.placement.instances == 1


@dataclass
class Measured:
    """Of each form by its name what is known, and what was said on the way."""

    files: dict[str, CostFile]
    new: int = 0
    known: int = 0
    """Points that were kept from before."""
    lost: list[LostCell] = field(default_factory=list)
    noisy: int = 0
    private_mib: dict[str, float] = field(default_factory=dict)
    """Memory of one instance that no other shares, where it was measured now."""


def contenders(variants: Sequence[Variant]) -> list[Variant]:
    """Without those that another one beats at every length that the study timed."""

    def beaten(one: Variant, other: Variant) -> bool:
        times = [(each.milliseconds, other.milliseconds(each.tokens)) for each in one.timings]
        return bool(times) and all(theirs is not None and mine > theirs * BEATEN * TIE for mine, theirs in times)

    return [one for one in variants if not any(beaten(one, other) for other in variants if other is not one)]


def lengths_for(lengths: Sequence[int], longest: int) -> list[int]:
    """Of the grid what lies around these lengths, and the longest that is served: up to there a router may ask."""
    low, high = min(lengths), max(lengths)
    below = [at for at in GRID if at <= low][-1:]
    return sorted({*below, *(at for at in GRID if low < at < min(high, longest)), min(high, longest), longest})


def cells_for(machine: Machine, variants: Sequence[Variant], lengths: Sequence[int]) -> list[Cells]:
    """All of them. DoesNotFit where the machine has no core to measure on."""
    most = max(placements(machine, [1], ["fill"])[0].instances, 1)
    node_cores = max(1, min(largest(machine), most))
    short, middle, long = lengths[0], lengths[len(lengths) // 2], lengths[-1]
    alone = [Shape(1, length) for length in lengths] + [
        Shape(batch, length) for batch in BATCHES for length in lengths if batch * length <= MOST_TOKENS
    ]
    several = {Shape(1, short), Shape(1, middle), Shape(1, long)}
    if BATCHES[-1] * short <= MOST_TOKENS:
        several.add(Shape(BATCHES[-1], short))
    crowd = {Shape(1, short), Shape(1, middle), Shape(1, long)}
    found = []
    for variant in variants:
        for cores in sizes_within(node_cores):
            (place,) = placements(machine, [cores], [1])
            found.append(Cells(variant, place, tuple(alone if cores == 1 else sorted(several))))
        if most > 1:
            (full,) = placements(machine, [1], ["fill"])
            found.append(Cells(variant, full, tuple(sorted(crowd))))
    return found


def least_seconds(cells: Sequence[Cells]) -> float:
    """Under which nothing useful can be measured."""
    return sum(START_SECONDS + LEAST_SECONDS * len(each.shapes) for each in cells)


def usual_seconds(cells: Sequence[Cells]) -> float:
    return sum(START_SECONDS + USUAL_SECONDS * len(each.shapes) for each in cells)


class Keep:
    """The files in the cache folder."""

    def __init__(self, cache: Path, tuned: Tuned, machine: Machine) -> None:
        self._folder = cache / "tune"
        self._tuned = tuned
        self._machine = machine
        self._allowed = [cpu.cpu for cpu in machine.cpus if cpu.allowed]

    def path(self, variant: Variant) -> Path:
        what = [
            FORMAT, VERSION, variant.graph, variant.engine, variant.precision, self.version(variant), self._machine.model_name,
            list(self._machine.isa), self._allowed, self._machine.quota_cpus,
        ]  # fmt: skip
        return self._folder / f"{hashlib.sha256(msgspec.json.encode(what)).hexdigest()[:24]}.json"

    def version(self, variant: Variant) -> str:
        return self._tuned.study.tools[variant.engine]

    def read(self, variant: Variant, say: Callable[[str], None]) -> CostFile | None:
        path = self.path(variant)
        try:
            found = decode_costs(path.read_bytes(), str(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            say(f"{path}: {error.strerror}: measuring anew")
            return None
        except (CostError, UnicodeDecodeError) as error:
            say(f"what was measured before cannot be used and is measured anew: {error}")
            return None
        mine = self.described(variant, [Point(1, 1, 1, 1.0)], [])
        same = (found.model, found.engine, found.engine_version, found.precision, found.cpu)
        if same != (mine.model, mine.engine, mine.engine_version, mine.precision, mine.cpu):
            say(f"{path}: of another model, engine or CPU: measuring anew")
            return None
        return found

    def described(self, variant: Variant, points: list[Point], crowded: list[Crowd]) -> CostFile:
        return CostFile(
            version=VERSION,
            model=self._tuned.study.model,
            engine=variant.engine,
            engine_version=self.version(variant),
            precision=variant.precision,
            cpu=self._machine.model_name,
            source="orchestrator tune",
            crowded=crowded,
            points=points,
        )

    def write(self, variant: Variant, file: CostFile, say: Callable[[str], None]) -> None:
        path = self.path(variant)
        made = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                made.write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=1))
                made.replace(path)
            finally:
                made.unlink(missing_ok=True)
        except OSError as error:
            say(f"{path}: {error.strerror}: what was measured is not kept, and measured again next time")


def missing(cells: Sequence[Cells], known: CostFile | None) -> list[Cells]:
    """Of one form, without what is known."""
    if known is None:
        return list(cells)
    points = {(point.threads, point.batch, point.length) for point in known.points}
    crowds = {crowd.length for crowd in known.crowded}
    found = []
    for each in cells:
        left = tuple(
            shape
            for shape in each.shapes
            if (
                (each.placement.cores, shape.batch, shape.length) not in points
                if each.alone
                else shape.length not in crowds
            )
        )
        if left:
            found.append(Cells(each.variant, each.placement, left))
    return found


def measure(
    cells: Sequence[Cells],
    subjects: Sequence[tuple[Variant, Subject]],
    keep: Keep,
    seconds: float | None,
    say: Callable[[str], None],
    show: Show,
) -> Measured:
    """What is not known yet, within about so many seconds (None: as long as is usual), and what is known.

    A form that cannot be loaded, or of which too little could be measured, is left out and said.
    """
    found = Measured({})
    known = {variant.name: keep.read(variant, say) for variant, _ in subjects}
    wanted = [each for variant, _ in subjects for each in missing(_of(cells, variant), known[variant.name])]
    shapes = sum(len(each.shapes) for each in wanted)
    per_shape = USUAL_SECONDS
    if seconds is not None and shapes:
        per_shape = min(USUAL_SECONDS, max(LEAST_SECONDS, (seconds - START_SECONDS * len(wanted)) / shapes))
    if shapes:
        total = ceil(sum(START_SECONDS + per_shape * len(each.shapes) for each in wanted))
        say(
            f"measuring {shapes} shapes of {' and '.join(dict.fromkeys(each.variant.name for each in wanted))}: about {total} s"
        )
    else:
        say("everything needed was measured before on this machine")
    done = 0
    for variant, subject in subjects:
        rows: list[MatrixRow] = []
        unloadable = False
        for each in wanted:
            if each.variant is not variant:
                continue
            before = done

            def moved(step: Step, of: str = variant.name, before: int = before) -> None:
                show(Step(f"measuring {of}", before * ROUNDS + step.done, shapes * ROUNDS))

            matrix = measure_matrix(
                [subject], [each.placement], each.shapes, seconds=per_shape, rounds=ROUNDS, show=moved
            )
            done += len(each.shapes)
            rows += matrix.rows
            for lost in matrix.lost:
                say(str(lost))
            found.lost += matrix.lost
            unloadable |= any(lost.batch is None for lost in matrix.lost)
        noisy = sum(row.noisy for row in rows)
        found.noisy += noisy
        found.new += len(rows)
        if unloadable:
            say(f"{variant.name} is left out: it does not load here now")
            continue
        before_file = known[variant.name]
        found.known += len(before_file.points) if before_file is not None else 0
        file = _together(variant, before_file, rows, keep, say)
        if file is None:
            continue
        found.files[variant.name] = file
        if rows:
            found.private_mib[variant.name] = max(row.private_mib for row in rows)
        if rows and noisy * 2 > len(rows):
            say(
                f"{variant.name}: {noisy} of {len(rows)} shapes were disturbed by something else on these CPUs: used now, not kept; "
                "`top` shows what it is"
            )
        elif rows:
            keep.write(variant, file, say)
    return found


def _of(cells: Sequence[Cells], variant: Variant) -> list[Cells]:
    return [each for each in cells if each.variant is variant]


def seconds_of(row: MatrixRow) -> float:
    """Of one call that comes after one of another shape; where something else had the CPUs, of the fastest call: it only ever adds."""
    return (row.min_ms if row.noisy else max(row.first_ms, row.p50_ms)) / 1e3


def _together(
    variant: Variant, known: CostFile | None, rows: Sequence[MatrixRow], keep: Keep, say: Callable[[str], None]
) -> CostFile | None:
    """Known and new as one file; None, and said, where one core was not measured at two lengths at least."""
    points = {(p.threads, p.batch, p.length): p for p in (known.points if known is not None else [])}
    crowds = {crowd.length: crowd for crowd in (known.crowded if known is not None else [])}
    for row in rows:
        if row.instances == 1:
            points[row.cores, row.batch, row.length] = Point(
                row.cores, row.batch, row.length, round(seconds_of(row), 7)
            )
    for row in rows:
        alone = points.get((1, row.batch, row.length))
        if row.instances > 1 and alone is not None:
            # Faster side by side than alone is noise.
            crowds[row.length] = Crowd(row.length, round(min(100.0, max(1.0, seconds_of(row) / alone.seconds)), 4))
    lengths = {length for threads, _, length in points if threads == 1}
    if len(lengths) < 2:
        say(f"{variant.name} is left out: it was measured at {len(lengths)} lengths on one core, and two are the least")
        return None
    return keep.described(variant, [points[at] for at in sorted(points)], [crowds[length] for length in sorted(crowds)])
