"""Which of a few layouts is really best? Each served by the real program on this machine, under the same load, in turns.

All contestants are started one after another on the same cores, each in a world of its own (claims, sockets), and stay; one is asked while
the others idle. Each round asks all of them, beginning with another one each time, so that a slow minute of the machine hits all. Rates
are compared round by round and the median of the ratios counts; latencies are those of all rounds together.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import psutil

from orchestrator.bench.arrivals import poisson
from orchestrator.bench.load import LoadResult, closed_loop, open_loop, post_request
from orchestrator.bench.rows import LoadRow, latency
from orchestrator.bench.running import DidNotStart, Running, running
from orchestrator.bench.target import ROUTES
from orchestrator.bench.texts import text
from orchestrator.models.preparation import Prepared
from orchestrator.models.progress import Show, Step
from orchestrator.simulate.mixes import Mix
from orchestrator.tune.goal import Figures, Load, Verified, figures

TASKS: Final = frozenset(task for task, route in ROUTES.items() if route is not None)
"""That take one text and nothing else."""
TEXTS: Final = 400
ROUNDS: Final = 5
LEAST_ROUND_SECONDS: Final = 1.0
USUAL_ROUND_SECONDS: Final = 4.0
START_SECONDS: Final = 6.0
"""Of one contestant, to start, warm up and stop."""
_WARM_UP_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Contestant:
    name: str
    layout: str
    """The text of its file."""


def least_seconds(contestants: int) -> float:
    return contestants * (START_SECONDS + _WARM_UP_SECONDS + ROUNDS * LEAST_ROUND_SECONDS)


def usual_seconds(contestants: int) -> float:
    return contestants * (START_SECONDS + _WARM_UP_SECONDS + ROUNDS * USUAL_ROUND_SECONDS)


def round_seconds(contestants: int, budget: float | None) -> float:
    """Of one turn, within a budget of so many seconds for all."""
    if budget is None:
        return USUAL_ROUND_SECONDS
    left = budget - contestants * (START_SECONDS + _WARM_UP_SECONDS)
    return min(USUAL_ROUND_SECONDS, max(LEAST_ROUND_SECONDS, left / (contestants * ROUNDS)))


def verify(
    contestants: Sequence[Contestant],
    route: str,
    texts: Sequence[tuple[str, str]],
    load: Load,
    limits: Mapping[str, float],
    seconds: float,
    cache: Path,
    say: Callable[[str], None],
    show: Show,
) -> dict[str, Verified]:
    """By name, of those that could be served; the first contestant is what ratios refer to.

    `texts`: with their classes; `seconds`: of one turn. DidNotStart if the first one cannot be served.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orchestrator-tune-")))
        there = _started(contestants, folder, stack, cache, say, show)
        tallies: dict[str, list[LoadResult]] = {name: [] for name in there}
        kinds = [kind for _, kind in texts]
        requests = {
            name: [post_request(*one.address, route, {"inputs": words}) for words, _ in texts]
            for name, one in there.items()
        }

        def ask(name: str, seconds: float, number: int) -> LoadResult | None:
            """None, and no longer there, if it died under load. Each is asked at the same moments in the same round."""
            try:
                if load.in_flight is not None:
                    return closed_loop(*there[name].address, requests[name], load.in_flight, seconds, kinds)
                due = poisson(load.rate or 1.0, seconds, number)
                found = open_loop(there[name].address, requests[name], due, seconds, kinds)
                if found.broken:
                    raise ConnectionError(", ".join(f"{count} × {why}" for why, count in found.broken.items()))
                return found
            except OSError as error:
                if name == contestants[0].name:
                    raise DidNotStart(f"{name} stopped answering under load: {error}") from None
                say(f"{name}: left out: it stopped answering under load: {error}")
                del there[name], tallies[name]
                return None

        for name in list(there):
            ask(name, _WARM_UP_SECONDS, ROUNDS)
        turn = 0
        for number in range(ROUNDS):
            order = list(there)
            for name in [*order[number % len(order) :], *order[: number % len(order)]]:
                show(Step("serving in turns", turn, ROUNDS * len(order)))
                turn += 1
                if name in there and (found := ask(name, seconds, number)) is not None:
                    tallies[name].append(found)
    reference = [each.per_second for each in tallies[contestants[0].name]]
    return {
        name: Verified(
            _figures(name, loads, load, limits),
            round(statistics.median(a.per_second / b for a, b in zip(loads, reference, strict=True) if b), 4),
            [round(each.per_second, 2) for each in loads],
        )
        for name, loads in tallies.items()
    }


def _started(
    contestants: Sequence[Contestant],
    folder: Path,
    stack: ExitStack,
    cache: Path,
    say: Callable[[str], None],
    show: Show,
) -> dict[str, Running]:
    """As many as memory bears, the first ones first."""
    there: dict[str, Running] = {}
    largest = 0
    for number, one in enumerate(contestants):
        free = psutil.virtual_memory().available
        if there and free < 1.5 * largest:
            say(
                f"{one.name}: not served: it takes about {largest >> 20} MiB beside the others, and {free >> 20} are free"
            )
            continue
        show(Step(f"starting {number + 1} of {len(contestants)}"))
        path = folder / f"{number}.yaml"
        path.write_text(one.layout)
        try:
            there[one.name] = stack.enter_context(running(["--layout", str(path)], cache))
        except DidNotStart as error:
            if not there:
                raise
            said = str(error).strip().splitlines()
            say(f"{one.name}: cannot be served: {said[-1] if said else 'it said nothing'}")
            continue
        largest = max(largest, free - psutil.virtual_memory().available)
    return there


def _figures(name: str, loads: Sequence[LoadResult], load: Load, limits: Mapping[str, float]) -> Figures:
    by_kind: dict[str, list[float]] = {}
    failed = 0
    for each in loads:
        failed += sum(each.failures.values())
        for kind, took in each.by_kind.items():
            by_kind.setdefault(kind, []).extend(took)
    row = LoadRow(
        name=name,
        seconds=sum(each.seconds for each in loads),
        per_second=round(statistics.median(each.per_second for each in loads), 2),
        goodput_per_second=None,
        goodput_ms=0.0,
        latency=latency(took for each in by_kind.values() for took in each),
        classes={kind: latency(took) for kind, took in sorted(by_kind.items())},
        refused={"failed": failed} if failed else {},
    )
    return figures(row, load, limits)


def texts_of(prepared: Prepared, mix: Mix, seed: int) -> list[tuple[str, str]]:
    """Texts of the lengths that come, as this model's tokenizer counts them, each with its class."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(prepared.tokenizer)
    tokenizer.no_truncation()
    rng = Random(f"{seed} texts")
    found = []
    for number in range(TEXTS):
        kind, length = mix.draw(rng, number / TEXTS)
        found.append((_text(rng, length, tokenizer.encode), kind))
    return found


def _text(rng: Random, length: int, encode: Callable[[str], Any]) -> str:
    """Of `length` tokens or a few less, with those that the tokenizer adds; one word at the least."""
    words = text(rng, max(1, length)).split(" ")
    count = max(1, length)
    while count > 1:
        tokens = len(encode(" ".join(words[:count])).ids)
        if tokens <= length:
            break
        count = max(1, count - max(1, (tokens - length) * count // tokens))
    return " ".join(words[:count])
