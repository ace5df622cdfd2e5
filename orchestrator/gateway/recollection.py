"""How does a gateway know what was before it? It asks the supervisor, who was there, and keeps the answer for a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import get_args

from orchestrator.gateway.errors import Refusal
from orchestrator.history import Step

KEPT_SECONDS = 1.0
"""However many pages ask, the supervisor is asked once in this time."""
PATIENCE_SECONDS = 3.0
STEPS: tuple[Step, ...] = get_args(Step)


class Recollection:
    """Belongs to the event loop. `ask` sends a Recall; the answer comes to `heard`."""

    def __init__(self, ask: Callable[[Step], None]) -> None:
        self._ask = ask
        self._known: dict[Step, tuple[float, bytes]] = {}
        """Monotonic time at which it came, and the History as JSON."""
        self._coming: dict[Step, asyncio.Future[bytes]] = {}

    def heard(self, step: Step, document: bytes) -> None:
        self._known[step] = (time.monotonic(), document)
        coming = self._coming.pop(step, None)
        if coming is not None and not coming.done():
            coming.set_result(document)

    async def document(self, step: Step) -> bytes:
        """A History as JSON. Refusal if the supervisor does not answer."""
        at, document = self._known.get(step, (-KEPT_SECONDS, b""))
        if time.monotonic() - at < KEPT_SECONDS:
            return document
        self._known.pop(step, None)
        coming = self._coming.get(step)
        if coming is None:
            coming = self._coming[step] = asyncio.get_running_loop().create_future()
            self._ask(step)
        done, _ = await asyncio.wait((coming,), timeout=PATIENCE_SECONDS)
        if done:
            return coming.result()
        if self._coming.get(step) is coming:  # whoever comes next asks again
            del self._coming[step]
        raise Refusal(
            "no_instance",
            f"the supervisor has not answered within {PATIENCE_SECONDS:g} s; GET /api/state has what it last said",
            retry_after_seconds=1.0,
        )


def step_of(text: str) -> Step:
    """The value of `?step=`; Refusal if there is no such step."""
    for step in STEPS:
        if text == str(step):
            return step
    known = " or ".join(map(str, STEPS))
    raise Refusal("malformed", f"step={text[:40]}: expected {known}, the seconds between two points")
