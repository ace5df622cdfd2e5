"""Who asks while the parts die, and what became of each request?

Clients over HTTP with connections that they keep, and one over ZeroMQ. Each answer is compared with the known embedding of its text:
the rows that sentence-transformers gave, from tests/data/models. A client whose connection breaks does what a user's does: it connects
again and asks again, and both the break and the answer are written down.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orchestrator.client.blocking import Client, Refused, RouterSilent

DATA = Path(__file__).parents[1] / "data" / "models"
PATIENCE_SECONDS = 60.0
"""A request without an answer for this long is lost."""
LARGEST_DIFFERENCE = 1e-4
"""Of any of the 384 numbers, in fp32. Two texts of the reference differ by 0.02 or more somewhere."""
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Break:
    """A connection that ended under a request."""

    opened_at: float
    sent_at: float
    at: float
    what: str


@dataclass(slots=True)
class Asked:
    """One request. `answered_at` is None while nothing that ends it has come."""

    began_at: float
    texts: list[int]
    way: str
    """http or zmq"""
    breaks: list[Break] = field(default_factory=list)
    answered_at: float | None = None
    code: int | str | None = None
    """200, another status of HTTP, or the reason of a refusal."""
    wrong: bool = False
    instance: str | None = None
    said: str = ""
    """The body of an answer that is none."""


def known_texts() -> tuple[list[str], Rows]:
    """Texts of the reference that the model takes whole, and their rows, float32 [texts, 384]."""
    document = json.loads((DATA / "minilm.json").read_text(encoding="utf-8"))
    rows = np.load(DATA / "minilm.npz")["rows"]
    whole = [
        number
        for number, tokens in enumerate(document["tokens_before_truncation"])
        if tokens <= document["max_seqlen"] and document["texts"][number].strip()
    ]
    return [document["texts"][number] for number in whole], rows[whole]


class Clients:
    """`count` connections that together send `rate` requests per second, as far as the answers keep up."""

    def __init__(self, port: int, front: str, *, count: int, rate: float, seed: int) -> None:
        self.asked: list[Asked] = []
        self._port = port
        self._front = front
        self._count = count
        self._rate = rate
        self._seed = seed
        self._texts, self._rows = known_texts()
        self._numbers = itertools.count()
        self._began = 0.0
        self._enough = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._began = time.monotonic()
        workers = [(self._over_http, number) for number in range(self._count)] + [(self._over_zmq, self._count)]
        for work, number in workers:
            thread = threading.Thread(target=work, args=(random.Random(f"{self._seed}/{number}"),), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> int:
        """Sends nothing new, waits for what is under way; how many clients still wait when the patience is over."""
        self._enough.set()
        deadline = time.monotonic() + PATIENCE_SECONDS + 10
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return sum(thread.is_alive() for thread in self._threads)

    def _next(self, rng: random.Random, way: str) -> Asked | None:
        """Waits until the next request is due; None when it is time to stop."""
        due = self._began + next(self._numbers) / self._rate
        if self._enough.wait(max(0.0, due - time.monotonic())):
            return None
        count = rng.choice((1, 1, 1, 1, 5))
        asked = Asked(time.monotonic(), [rng.randrange(len(self._texts)) for _ in range(count)], way)
        self.asked.append(asked)
        return asked

    def _over_http(self, rng: random.Random) -> None:
        connection, opened_at = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS), 0.0
        while (asked := self._next(rng, "http")) is not None:
            body = json.dumps({"inputs": [self._texts[number] for number in asked.texts]}).encode()
            while asked.code is None and time.monotonic() < asked.began_at + PATIENCE_SECONDS:
                if connection.sock is None:
                    opened_at = time.monotonic()
                sent_at = time.monotonic()
                try:
                    connection.request("POST", "/embed", body, {"content-type": "application/json"})
                    answer = connection.getresponse()
                    said = answer.read()
                except (OSError, http.client.HTTPException) as error:
                    asked.breaks.append(Break(opened_at, sent_at, time.monotonic(), type(error).__name__))
                    connection.close()
                    continue
                asked.answered_at = time.monotonic()
                asked.instance = answer.getheader("x-instance")
                asked.wrong = answer.status == 200 and self._differs(asked, json.loads(said))
                asked.said = said[:300].decode("utf-8", "replace") if answer.status != 200 else ""
                asked.code = answer.status
        connection.close()

    def _over_zmq(self, rng: random.Random) -> None:
        with Client(self._front, timeout_seconds=PATIENCE_SECONDS) as client:
            while (asked := self._next(rng, "zmq")) is not None:
                try:
                    rows = client.embed([self._texts[number] for number in asked.texts])
                except (Refused, RouterSilent) as error:
                    asked.code = f"{type(error).__name__}: {error}"
                else:
                    asked.wrong = self._differs(asked, rows)
                    asked.code = 200
                asked.answered_at = time.monotonic()

    def _differs(self, asked: Asked, answer: object) -> bool:
        try:
            rows = np.asarray(answer, np.float32)
        except (TypeError, ValueError):
            return True
        expected = self._rows[asked.texts]
        return rows.shape != expected.shape or not bool((np.abs(rows - expected) < LARGEST_DIFFERENCE).all())
