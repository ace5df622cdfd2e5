"""Was anything lost, wrong or left behind? From what clients and watch wrote down. Pure.

What counts. A request is accepted once it has been sent over a connection that the system took. Of the accepted ones none may stay
without its right answer, whatever dies: a worker's death, or the router's, must not be seen by any client at all. One thing no
server can give: when a *gateway* process dies, the kernel resets the connections it had accepted, and the requests in flight on them
have no way back. Their clients ask again (an inference may be repeated freely) and must then be answered. These breaks are counted apart,
and each must fall together with a gateway's death; any other break is a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from clients import Asked, Break
from schedule import EVERY_WORKER
from watch import Death, Operation, Sample, kind_of

MIB = 1 << 20
BACK_SECONDS = 5.0
"""From the death of a worker to full capacity, its model being cached."""
FOUND_OUT_SECONDS = 5.0
"""A stopped process is found out after so long without a sign of life (`core.Timing.beat`)."""
NOTICED_SECONDS = 0.5
"""A client may notice a reset so long after the gateway's successor is ready, on a machine whose cores are all busy."""
WARM_SHARE = 0.25
"""Of the time in which a process is judged: until then caches and allocators fill."""
GROWTH_BYTES = 4 * MIB
"""What a process may grow after that: fragments of the allocator, the bounded stories of the cores and rows of statistics. A leak of
one kilobyte per request, or of a hundred per death, is more than that within a run of ten minutes."""
GROWTH_DESCRIPTORS = 0


@dataclass(frozen=True)
class Growth:
    """Of quiet moments, after the warm-up and at the end."""

    part: str
    seconds: float
    rss: tuple[float, float]
    """Medians, bytes."""
    descriptors: tuple[int, int]
    """The fewest: a connection that is just closing adds one for a moment, a leak adds it for good."""

    @property
    def flat(self) -> bool:
        return self.rss[1] - self.rss[0] <= GROWTH_BYTES and not self.keeps_descriptors

    @property
    def keeps_descriptors(self) -> bool:
        return self.descriptors[1] - self.descriptors[0] > GROWTH_DESCRIPTORS


@dataclass
class Verdict:
    answered: int = 0
    sequences: int = 0
    wrong: int = 0
    lost: list[str] = field(default_factory=list)
    """One line per request that was not answered, or whose connection broke without a gateway's death."""
    broken_with_gateway: int = 0
    dealt: dict[str, int] = field(default_factory=dict)
    """"worker SIGKILL" → how many."""
    back: dict[str, list[float]] = field(default_factory=dict)
    """"worker SIGKILL" → seconds until it was ready, and a worker had answered again."""
    late: list[str] = field(default_factory=list)
    operations: dict[str, list[float]] = field(default_factory=dict)
    """"restart" → seconds that each took."""
    failed: list[str] = field(default_factory=list)
    """Operations that did not end with 0."""
    growth: list[Growth] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    """Processes, zombies, files."""
    latencies: list[float] = field(default_factory=list)

    @property
    def complaints(self) -> list[str]:
        """What is not as promised; empty if all is well."""
        found = [f"lost: {line}" for line in self.lost[:20]]
        if len(self.lost) > 20:
            found.append(f"lost: {len(self.lost) - 20} more")
        if self.wrong:
            found.append(f"{self.wrong} wrong answers")
        if not self.answered:
            found.append("no request was answered: nothing was tested")
        found += [f"late: {line}" for line in self.late]
        found += [f"failed: {line}" for line in self.failed]
        found += [
            f"grew: {one.part} from {one.rss[0] / MIB:.1f} to {one.rss[1] / MIB:.1f} MiB, "
            f"{one.descriptors[0]:g} to {one.descriptors[1]:g} descriptors in {one.seconds:.0f} s"
            for one in self.growth
            if not one.flat
        ]
        return found + [f"left behind: {line}" for line in self.left_behind]


def judge(
    asked: list[Asked],
    deaths: list[Death],
    samples: list[Sample],
    operations: Sequence[Operation] = (),
    back_within: float = BACK_SECONDS,
) -> Verdict:
    verdict = Verdict()
    for operation in operations:
        verdict.operations.setdefault(operation.blow.how, []).append(operation.seconds)
        if operation.code != 0:
            blow = operation.blow
            verdict.failed.append(f"{blow.how} of {blow.part}: exit {operation.code}: {operation.said[-500:]}")
    gateways = [death for death in deaths if kind_of(death.part) == "gateway" and not death.shrugged_off]
    for one in asked:
        unexplained = [each for each in one.breaks if not _explained(each, gateways)]
        verdict.broken_with_gateway += len(one.breaks) - len(unexplained)
        verdict.wrong += one.wrong
        if one.code == 200 and one.answered_at is not None:
            verdict.answered += 1
            verdict.sequences += len(one.texts)
            verdict.latencies.append(one.answered_at - one.began_at)
        else:
            verdict.lost.append(f"over {one.way} at {one.began_at:.2f}: {one.code or 'never answered'} {one.said}")
        verdict.lost += [
            f"over {one.way}: {each.what} at {each.at:.2f}, sent at {each.sent_at:.2f}, no gateway died"
            for each in unexplained
        ]
    _returns(verdict, asked, deaths, back_within)
    verdict.growth = growths(samples)
    return verdict


def _explained(broken: Break, gateways: list[Death]) -> bool:
    """Whether the gateway that held this connection may have died under it: one that was killed before the connection broke and after it
    was opened, not longer ago than until its successor was ready."""
    return any(
        broken.opened_at <= (death.back_at or death.at + FOUND_OUT_SECONDS)
        and death.at <= broken.at <= (death.back_at or death.at + FOUND_OUT_SECONDS) + NOTICED_SECONDS
        for death in gateways
    )


def _returns(verdict: Verdict, asked: list[Asked], deaths: list[Death], back_within: float) -> None:
    answers: dict[str, list[float]] = {}
    for one in asked:
        for instance in (one.instance or "").split(","):
            if one.code == 200 and one.answered_at is not None:
                answers.setdefault(instance.strip(), []).append(one.answered_at)
    for times in answers.values():
        times.sort()
    for death in deaths:
        what = f"{EVERY_WORKER if death.blow.part == EVERY_WORKER else kind_of(death.part)} {death.blow.how}"
        verdict.dealt[what] = verdict.dealt.get(what, 0) + 1
        if death.shrugged_off:
            continue
        if death.back_at is None:
            verdict.late.append(f"{death.part} did not come back after {death.blow.how} at {death.at:.2f}")
            continue
        back_at = death.back_at
        if kind_of(death.part) == "worker":
            back_at = next((time for time in answers.get(death.part, []) if time >= death.back_at), back_at)
        seconds = back_at - death.at
        verdict.back.setdefault(what, []).append(seconds)
        allowed = back_within + (FOUND_OUT_SECONDS if death.blow.how == "SIGSTOP" else 0.0)
        if seconds > allowed:
            verdict.late.append(
                f"{death.part} was back {seconds:.1f} s after {death.blow.how}, allowed are {allowed:g}"
            )


def growths(samples: list[Sample]) -> list[Growth]:
    """Of the last process of each part but the workers, whose memory begins anew with each life."""
    found = []
    for part in sorted({sample.part for sample in samples if kind_of(sample.part) != "worker"}):
        own = [sample for sample in samples if sample.part == part]
        life = [sample for sample in own if sample.pid == own[-1].pid]
        warm_from = life[0].at + WARM_SHARE * (life[-1].at - life[0].at)
        quiet = [sample for sample in life if sample.quiet and sample.at >= warm_from]
        if len(quiet) < 4:
            continue
        share = max(2, len(quiet) // 4)
        first, last = quiet[:share], quiet[-share:]
        found.append(
            Growth(
                part,
                last[-1].at - first[0].at,
                (median(sample.rss for sample in first), median(sample.rss for sample in last)),
                (min(sample.descriptors for sample in first), min(sample.descriptors for sample in last)),
            )
        )
    return found
