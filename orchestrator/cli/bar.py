"""How does a terminal show that something long goes on? One line on standard error that is written over and over."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from orchestrator.models.progress import Step

WIDTH = 24
REDRAWN_SECONDS = 0.1
"""Steps that come faster are left out, but for the first and the last of each kind."""
ETA_SECONDS = 3.0
"""Before that, nothing is known of how long the rest will take."""
_CLEAR = "\r\x1b[K"


class Bar:
    """A context: leaving it clears the line. Where the stream is no terminal, no step is shown and words are plain lines."""

    def __init__(self, stream: TextIO, *, wanted: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._shows = wanted and stream.isatty() and os.environ.get("TERM") != "dumb"
        self._step: Step | None = None
        self._since = self._drawn = clock()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._clear()
        self._step = None

    def show(self, step: Step) -> None:
        """What goes on now."""
        if not self._shows:
            return
        now = self._clock()
        fresh = self._step is None or self._step.what != step.what
        if fresh:
            self._since = now
        self._step = step
        if fresh or step.done == step.total or now - self._drawn >= REDRAWN_SECONDS:
            self._draw(now)

    def say(self, line: str) -> None:
        """Words that stay, above the bar."""
        self._clear()
        print(line, file=self._stream, flush=True)
        if self._shows and self._step is not None:
            self._draw(self._clock())

    def _draw(self, now: float) -> None:
        self._drawn = now
        assert self._step is not None
        columns = shutil.get_terminal_size().columns
        self._stream.write(_CLEAR + drawn(self._step, now - self._since)[: max(columns - 1, 0)])
        self._stream.flush()

    def _clear(self) -> None:
        if self._shows and self._step is not None:
            self._stream.write(_CLEAR)
            self._stream.flush()


def drawn(step: Step, seconds: float) -> str:
    """`int8: rounding weights [######------] 12/24 8 s, about 8 s left`; without a total nothing would move, and there is neither bar
    nor time."""
    if not step.total:
        return f"{step.what} …"
    full = WIDTH * min(max(step.done, 0), step.total) // step.total
    left = ""
    if 0 < step.done < step.total and seconds >= ETA_SECONDS:
        left = f", about {seconds * (step.total - step.done) / step.done:.0f} s left"
    return f"{step.what} [{'#' * full}{'-' * (WIDTH - full)}] {step.done}/{step.total} {seconds:.0f} s{left}"
