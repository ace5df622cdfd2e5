"""What would run after a change? Worked out in a process of its own, so that the supervisor's loop keeps beating meanwhile.

python -m orchestrator.draft < question > answer; progress goes to standard error, one line each

Building a model can take minutes of every core's time: this process is as nice as can be, and dies with the supervisor. The question and
the answer are one JSON document each; nothing is claimed and nothing is started here.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.assemble import AppError, Options, Prelude, assembled, settled_layout
from orchestrator.config.load import parse_layout
from orchestrator.config.schema import Layout, Places
from orchestrator.plan.model import InstanceName, Plan, PlanError
from orchestrator.plan.solve import PlanRequest, plan
from orchestrator.supervisor.control import LONGEST_ANSWER
from topology.model import Machine
from workers.channel import SupervisorGone, die_with_parent
from workers.spec import Artefact

NICENESS = 19


class Question(msgspec.Struct, frozen=True):
    options: Options
    supervisor_pid: int
    taken: dict[int, str] = {}
    """CPUs that other orchestrators hold, and whose they are."""
    layout: str | None = None
    """The layout in force (`as_text`); None: as its file and the command line say now."""
    without: list[str] = []
    """Instances that have failed for good: the plan does without them."""
    others_stay: bool = False
    """Where instances are left out: the others keep their cores."""


class Answer(msgspec.Struct, frozen=True):
    """Either what would run, or why nothing can."""

    layout: str | None = None
    """The layout as text."""
    machine: Machine | None = None
    prepared: msgspec.Raw = msgspec.Raw(b"null")
    plan: Plan | None = None
    artefacts: dict[InstanceName, Artefact] = {}
    libraries: dict[str, str] = {}
    error: str = ""
    unworkable: bool = False


@dataclass(frozen=True)
class Draft:
    """What would run, after which layout."""

    layout: Layout
    prelude: Prelude


async def ask(question: Question, say: Callable[[str], None]) -> Draft:
    """Works it out beside whatever else the event loop does. AppError as of a start; cancelled, it leaves nothing running."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchestrator.draft",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        limit=LONGEST_ANSWER, process_group=0,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(_encode(question))
        process.stdin.close()
        body, last = await asyncio.gather(process.stdout.read(), _tell(process.stderr, say))
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        answer = msgspec.json.decode(body, type=Answer, dec_hook=_made)
    except msgspec.DecodeError:
        raise AppError(f"the new plan could not be worked out: the process for it ended with {code}: {last}") from None
    if answer.layout is None or answer.machine is None or answer.plan is None:
        raise AppError(answer.error, answer.unworkable)
    from orchestrator.models import Prepared

    return Draft(
        parse_layout(answer.layout.encode(), str(question.options.layout or "")),
        Prelude(
            machine=answer.machine,
            prepared=msgspec.json.decode(answer.prepared, type=Prepared),
            plan=answer.plan,
            artefacts=answer.artefacts,
            libraries=answer.libraries,
        ),
    )


async def _tell(lines: asyncio.StreamReader, say: Callable[[str], None]) -> str:
    """Passes the lines on; returns the last one."""
    last = "it said nothing"
    async for raw in lines:
        if line := raw.decode("utf-8", "replace").rstrip():
            last = line
            say(line)
    return last


def answer_to(question: Question, say: Callable[[str], None]) -> Answer:
    try:
        layout = (
            settled_layout(question.options)
            if question.layout is None
            else parse_layout(question.layout.encode(), str(question.options.layout or ""))
        )
        before = assembled(question.options, layout, say, lambda machine, request: _plan(machine, request, question))
    except AppError as error:
        return Answer(error=str(error), unworkable=error.unworkable)
    return Answer(
        layout=as_text(layout),
        machine=before.machine,
        prepared=msgspec.Raw(msgspec.json.encode(before.prepared)),
        plan=before.plan,
        artefacts=before.artefacts,
        libraries=before.libraries,
    )


def _plan(machine: Machine, request: PlanRequest, question: Question) -> Plan:
    shared = request.layout is not None and "overlap" in request.layout.allow
    taken = {} if shared else question.taken
    asked = msgspec.structs.replace(request, taken=taken)
    try:
        return (
            without(machine, asked, frozenset(question.without), question.others_stay)
            if question.without
            else plan(machine, asked)
        )
    except PlanError as error:
        raise AppError(str(error), unworkable=not taken) from None


def without(machine: Machine, request: PlanRequest, names: frozenset[str], others_stay: bool) -> Plan:
    """The plan that does without these instances. PlanError if nothing is left.

    Where the planner chose the instances it chooses again, fewer: their cores go to the others. Where a layout names each, or
    `others_stay`, they are left out, and their cores stay idle.
    """
    full = plan(machine, request)
    left = [instance for instance in full.instances if instance.name not in names]
    if not left:
        raise PlanError(f"no instance is left without {', '.join(sorted(names))}")
    gone = len(full.instances) - len(left)
    if others_stay or (request.layout is not None and request.layout.instances):
        idle = {cpu for instance in full.instances if instance.name in names for cpu in instance.cpus}
        return msgspec.structs.replace(
            full, instances=left, unused_cpus=sorted({*full.unused_cpus, *idle} - set(full.housekeeping.cpus))
        )
    return plan(machine, msgspec.structs.replace(request, instances=len(full.instances) - gone))


def as_text(layout: Layout) -> str:
    """As a layout file could say it."""
    return msgspec.json.encode(_said(msgspec.to_builtins(layout, enc_hook=_plain))).decode()


def _said(value: Any) -> Any:
    """Without what is left to its default by being left out."""
    if isinstance(value, dict):
        return {name: said for name, each in value.items() if (said := _said(each)) not in (None, [], ())}
    return [_said(each) for each in value] if isinstance(value, list | tuple) else value


def _encode(document: Question | Answer) -> bytes:
    return msgspec.json.encode(document, enc_hook=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Places):
        return None  # where something stands in the file is no part of what it says
    raise NotImplementedError(f"{type(value).__name__} has no place in a draft")


def _made(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"{kind.__name__} has no place in a draft")


def main() -> int:
    os.nice(NICENESS)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no part of the answer
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question, dec_hook=_made)
    try:
        die_with_parent(question.supervisor_pid)
    except SupervisorGone:
        return 1
    answer = answer_to(question, lambda line: print(line, file=sys.stderr, flush=True))
    with answers:
        answers.write(_encode(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
