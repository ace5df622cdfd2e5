"""How is this gateway doing? Counts, a latency histogram and quantiles of the last seconds. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

from orchestrator.status import LATENCY_BOUNDS_SECONDS, CacheStatus, GatewayStatus, Quantiles

WINDOW_SECONDS = 10.0
MOST_SAMPLES = 8192
"""Of the window; at more than this in 10 seconds the quantiles are those of the newest."""


class Stats:
    """Fed by the application, read once a second. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.in_flight = 0
        """Requests that are being worked on; live streams do not count."""
        self.tokenize_seconds = 0.0
        self._responses: dict[tuple[str, int], int] = {}
        self._buckets = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
        self._sum_seconds = 0.0
        self._samples: deque[tuple[float, float]] = deque(maxlen=MOST_SAMPLES)
        self._answered: deque[tuple[float, int]] = deque()
        self._total = 0

    def responded(self, route: str, status: int) -> None:
        """`route` is a pattern of the route table, never what a client wrote: labels stay few."""
        key = (route, status)
        self._responses[key] = self._responses.get(key, 0) + 1
        self._total += 1

    def inferred(self, now: float, seconds: float) -> None:
        """An inference was answered with 200."""
        self._buckets[bisect_left(LATENCY_BOUNDS_SECONDS, seconds)] += 1
        self._sum_seconds += seconds
        self._samples.append((now, seconds))

    def report(
        self,
        now: float,
        *,
        name: str,
        state: str,
        pid: int,
        connections: int,
        resubmitted: int,
        late_replies: int,
        cpu_seconds: float,
        rss_bytes: int | None,
        token_cache: CacheStatus = CacheStatus(),  # noqa: B008 - frozen
        answer_cache: CacheStatus = CacheStatus(),  # noqa: B008 - frozen
        joined: int = 0,
    ) -> GatewayStatus:
        self._answered.append((now, self._total))
        while len(self._answered) > 1 and self._answered[0][0] < now - WINDOW_SECONDS:
            self._answered.popleft()
        first, before = self._answered[0]
        rate = (self._total - before) / (now - first) if now > first else 0.0
        cumulative, running = [], 0
        for count in self._buckets:
            running += count
            cumulative.append(running)
        return GatewayStatus(
            name=name,
            state=state,
            pid=pid,
            in_flight=self.in_flight,
            connections=connections,
            responses={f"{route} {status}": count for (route, status), count in sorted(self._responses.items())},
            requests_per_second=round(rate, 3),
            latency_ms=self._quantiles(now),
            resubmitted=resubmitted,
            late_replies=late_replies,
            tokenize_seconds=self.tokenize_seconds,
            cpu_seconds=cpu_seconds,
            rss_bytes=rss_bytes,
            latency_buckets=cumulative,
            latency_sum_seconds=self._sum_seconds,
            token_cache=token_cache,
            answer_cache=answer_cache,
            joined=joined,
        )

    def _quantiles(self, now: float) -> Quantiles:
        while self._samples and self._samples[0][0] < now - WINDOW_SECONDS:
            self._samples.popleft()
        ordered = sorted(seconds for _, seconds in self._samples)
        if not ordered:
            return Quantiles()
        last = len(ordered) - 1
        return Quantiles(*(round(ordered[min(last, int(q * len(ordered)))] * 1000, 3) for q in (0.50, 0.95, 0.99)))
