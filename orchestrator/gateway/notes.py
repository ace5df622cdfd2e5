"""Which requests does a gateway write down, and what does it say of them?

Theory of operation. A request that is answered as it should be costs one comparison (`above`), unless the access log is to have all.
Failures (424 and 500 upwards) have an allowance per kind of error: a flood of them is told once and then counted, and the count
is told with the next line. Whatever has a request id carries the router's name for it too: by that the router's lines are found
(`orchestrator logs --request`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, Literal

from workers.said import Level, say

Access = Literal["off", "errors", "all"]

FAILED: Final = 424
"""The first status that says that something of ours failed; below it are the client's own mistakes."""
_OURS: Final = frozenset({424})
LINES_PER_SECOND: Final = 5.0
LINES_AT_ONCE: Final = 20.0
_NEVER: Final = 1000
_LEVELS: Final[dict[int, Level]] = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning"}


class Notes:
    """What one gateway says of its requests. `now` is monotonic seconds."""

    def __init__(
        self,
        access: Access,
        client: str,
        *,
        now: Callable[[], float] = time.monotonic,
        say: Callable[..., None] = say,
    ) -> None:
        """`client` is the name under which the router knows this gateway."""
        self.above = {"off": _NEVER, "errors": FAILED, "all": 0}[access]
        """Requests with this status or a higher one may be worth a line: call `answered` for them."""
        self._client = client
        self._all = access == "all"
        self._now = now
        self._say = say
        self._left: dict[str, tuple[float, float]] = {}
        """Kind of error → lines that may be written, and when that was so."""
        self._unsaid: dict[str, int] = {}

    def answered(
        self,
        *,
        request_id: str,
        asked: int,
        method: str,
        route: str,
        status: int,
        seconds: float,
        peer: str | None,
        error: str | None = None,
        why: str = "",
    ) -> None:
        """One request has its answer. `asked` is its number at the router, 0 where it never came so far."""
        failed = status >= 500 or status in _OURS
        if not failed and not self._all:
            return
        more = ""
        if failed and not self._all:
            kind = error or str(status)
            if not self._allowed(kind):
                self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
                return
            unsaid = self._unsaid.pop(kind, 0)
            more = f" (and {unsaid} more like it)" if unsaid else ""
        took_ms = round(seconds * 1e3, 3)
        words = [f"request={request_id} {method} {route} {status} took={took_ms:.1f}ms"]
        if error is not None:
            words.append(f"error={error}")
        if why:
            words.append(f"why={why!r}")
        self._say(
            " ".join(words) + more,
            level="error" if status == 500 else "warning" if failed else "info",
            event="request",
            request_id=request_id,
            requests=self._names(asked),
            method=method,
            route=route,
            status=status,
            error=error,
            took_ms=took_ms,
            peer=peer,
        )

    def retried(self, request_id: str, asked: int, attempts: int, instance: str) -> None:
        """A request has been answered, but not by the first instance that it was given to."""
        if self.above == _NEVER or not self._allowed("retried"):
            return
        self._say(
            f"request={request_id} answered by {instance} at attempt {attempts}",
            level="warning",
            event="retried",
            request_id=request_id,
            requests=self._names(asked),
        )

    def _names(self, asked: int) -> list[str]:
        return [f"{self._client}:{asked:x}"] if asked else []

    def _allowed(self, kind: str) -> bool:
        now = self._now()
        left, at = self._left.get(kind, (LINES_AT_ONCE, now))
        left = min(LINES_AT_ONCE, left + (now - at) * LINES_PER_SECOND)
        allowed = left >= 1.0
        self._left[kind] = (left - 1.0 if allowed else left, now)
        return allowed


class Handler(logging.Handler):
    """Brings what this process and its libraries log to standard error, a traceback as one line."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record), level=_LEVELS.get(record.levelno, "error"))
