"""When does which request come? Poisson, bursts, a recorded trace, or clients that wait for their answer. Pure.

Bursts are a Markov-modulated Poisson process of two states (Fischer and Meier-Hellstern, Performance Evaluation 1993): calm, and
`BURST` times the mean rate for a tenth of the time, a tenth of a second each on average; the calm rate makes up for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta

from orchestrator.router.events import Seconds
from orchestrator.simulate.mixes import Mix, class_of

BURST: Final = 4.0
BURST_SHARE: Final = 0.1
BURST_SECONDS: Final = 0.1


class TraceError(Exception):
    """A trace that cannot be read: says which line, what is wrong with it, and what is expected."""


class Arrival(msgspec.Struct, frozen=True, gc=False):
    due: Seconds
    kind: str
    """Class of length, for the report."""
    length: int
    """Tokens."""


class Traffic(Protocol):
    def arrivals(self, seed: int) -> Iterator[Arrival]:
        """Those that come by themselves, in order of time."""
        ...

    def next_of_client(self, rng: Random, now: Seconds) -> Arrival | None:
        """What a client sends that has just got its answer; None if it sends nothing more."""
        ...


class OpenLoop(msgspec.Struct, frozen=True):
    """Requests come whether earlier ones are answered or not; the only honest way to measure latency under load."""

    rate: float
    """Per second, on average."""
    mix: Mix
    seconds: Seconds
    bursty: bool = False

    def arrivals(self, seed: int) -> Iterator[Arrival]:
        # Two streams, so that times stay the same when lengths change.
        times, lengths = Random(f"{seed} times"), Random(f"{seed} lengths")
        for due in self._times(times):
            kind, length = self.mix.draw(lengths, due / self.seconds)
            yield Arrival(due, kind, length)

    def next_of_client(self, rng: Random, now: Seconds) -> Arrival | None:  # noqa: ARG002 - nobody waits
        return None

    def _times(self, rng: Random) -> Iterator[Seconds]:
        if not self.bursty:
            now = rng.expovariate(self.rate)
            while now < self.seconds:
                yield now
                now += rng.expovariate(self.rate)
            return
        calm = (1.0 - BURST * BURST_SHARE) / (1.0 - BURST_SHARE)
        calm_seconds = BURST_SECONDS * (1.0 - BURST_SHARE) / BURST_SHARE
        now, burst = 0.0, False
        while now < self.seconds:
            ends = now + rng.expovariate(1.0 / (BURST_SECONDS if burst else calm_seconds))
            rate = self.rate * (BURST if burst else calm)
            # Poisson has no memory: what is left of a gap at a change of state may be drawn anew.
            now += rng.expovariate(rate)
            while now < ends:
                if now < self.seconds:
                    yield now
                now += rng.expovariate(rate)
            now, burst = ends, not burst


class ClosedLoop(msgspec.Struct, frozen=True):
    """So many clients, each of which sends its next request when it has the answer to the last: what `bench` does."""

    in_flight: int
    mix: Mix
    seconds: Seconds

    def arrivals(self, seed: int) -> Iterator[Arrival]:
        rng = Random(f"{seed} first")
        for _ in range(self.in_flight):
            yield Arrival(0.0, *self.mix.draw(rng, 0.0))

    def next_of_client(self, rng: Random, now: Seconds) -> Arrival | None:
        if now >= self.seconds:
            return None
        return Arrival(now, *self.mix.draw(rng, now / self.seconds))


class Trace(msgspec.Struct, frozen=True):
    """What was recorded."""

    recorded: list[Arrival]

    def arrivals(self, seed: int) -> Iterator[Arrival]:  # noqa: ARG002 - nothing is drawn
        return iter(self.recorded)

    def next_of_client(self, rng: Random, now: Seconds) -> Arrival | None:  # noqa: ARG002 - nobody waits
        return None


class _Line(msgspec.Struct, frozen=True):
    time: Annotated[float, Meta(ge=0.0)]
    length: Annotated[int, Meta(ge=1, le=1 << 20)]


def decode_trace(raw: bytes, name: str) -> Trace:
    """One JSON object a line: `{"time": seconds, "length": tokens}`, times ascending. TraceError names the line."""
    decoder = msgspec.json.Decoder(_Line)
    recorded: list[Arrival] = []
    for number, line in enumerate(raw.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TraceError(f'{name}:{number}: {error}; expected {{"time": SECONDS, "length": TOKENS}}') from None
        if recorded and found.time < recorded[-1].due:
            raise TraceError(f"{name}:{number}: time {found.time} after {recorded[-1].due}; sort the lines by time")
        recorded.append(Arrival(found.time, class_of(found.length), found.length))
    if not recorded:
        raise TraceError(f'{name}: no request in it; expected a line {{"time": SECONDS, "length": TOKENS}} for each')
    return Trace(recorded)
