"""What does a worker do all day? Batches of token ids in, rows out; a beat to the supervisor beside it.

Theory of operation. One thread owns the engine and the socket to the router: receive a batch, run it, answer, and only then
look for the next, which waits in the socket if the router has prefetched one. A second thread only writes beats to the
channel, with how long the engine has been in its batch: so the supervisor can tell a process that is stopped (no beats) from
an engine that hangs (beats, ever busier). An idle worker repeats HELLO, so that a restarted router learns of it by itself.
"""

from __future__ import annotations

import threading
import time

import numpy as np

from workers import wire
from workers.batching import rectangle
from workers.channel import Channel, SupervisorGone
from workers.engines.base import Engine, EngineError, Rows, run_pixels
from workers.said import batch_name, say
from workers.spec import Beat, Drain, Drained, Ready, Stop, WorkerSpec
from workers.uplink import Uplink, uplink

HELLO_EVERY_SECONDS = 0.2


class Worker:
    def __init__(
        self, spec: WorkerSpec, engine: Engine, channel: Channel, costs: list[wire.Cost] | None = None
    ) -> None:
        self._spec = spec
        self._engine = engine
        self._channel = channel
        self._costs = costs or []
        self._per_token = spec.artefact is not None and spec.artefact.per_token
        self._token_types = spec.artefact is not None and spec.artefact.token_types
        self._pixels = None if spec.artefact is None else spec.artefact.pixels
        self._busy_since: float | None = None
        self._batches = 0
        self._engine_cpu = 0.0
        self._malformed = 0
        self._done = threading.Event()

    def run(self, pid: int, ready: Ready) -> None:
        """Introduces itself to router and supervisor, serves until Stop; SupervisorGone if the supervisor has gone."""
        name, incarnation = self._spec.name, self._spec.incarnation
        hello = wire.encode_json(wire.HELLO, wire.Hello(name, incarnation, self._spec.max_seqlen, pid, self._costs))
        router = uplink(self._spec.endpoint, f"{name}#{incarnation}".encode(), hello)
        beats = threading.Thread(target=self._beat, name="beats", daemon=True)
        try:
            self._channel.send(ready)
            beats.start()
            self._serve(router, hello)
        finally:
            self._done.set()
            router.close()

    def _serve(self, router: Uplink, hello: bytes) -> None:
        while True:
            said, frames = router.wait(self._channel.fileno(), HELLO_EVERY_SECONDS)
            if said:
                for message in self._channel.receive():
                    if isinstance(message, Stop):
                        router.send(wire.encode_bare(wire.BYE))
                        return
                    if isinstance(message, Drain):  # the router gives it nothing more; what it held is answered
                        self._channel.send(Drained())
            for frame in frames:
                self._handle(router, frame, hello)
            if not said and not frames:
                router.send(hello)

    def _handle(self, router: Uplink, frame: bytes, hello: bytes) -> None:
        try:
            kind = wire.kind_of(frame)
            if kind == wire.WHO:
                router.send(hello)
                return
            if kind != wire.BATCH:
                raise wire.WireError(f"kind {kind} is nothing that a router sends to a worker")
            batch = wire.decode_batch(frame)
        except wire.WireError as error:
            self._malformed += 1
            say(f"dropped a malformed frame from the router ({self._malformed} so far): {error}", level="warning")
            return
        self._busy_since = started = time.monotonic()
        try:
            rows = self._compute(batch)
        except EngineError as error:
            say(
                f"batch={batch_name(batch.batch_id)} of {len(batch.lengths)} failed, longest={max(batch.lengths)}: {error}",
                level="warning",
                event="batch_failed",
                batch=batch_name(batch.batch_id),
            )
            router.send(wire.encode_batch_failed(batch.batch_id, str(error)))
            return
        finally:
            self._busy_since = None
            self._batches += 1
        infer_us = int((time.monotonic() - started) * 1e6)
        self._answer(router, batch, rows, infer_us)

    def _compute(self, batch: wire.Batch) -> Rows:
        lengths = batch.lengths
        n, longest = len(lengths), max(lengths)
        if longest > self._spec.max_seqlen:
            raise EngineError(f"a sequence of {longest} tokens; this instance holds {self._spec.max_seqlen}")
        if batch.pixels or self._pixels is not None:
            return self._compute_images(batch)
        flat = np.frombuffer(batch.ids, np.int32)
        types = np.zeros((n, longest), np.int32) if self._token_types else None
        ids, mask = rectangle(flat, lengths)
        if types is not None and batch.splits is not None:
            for row, (split, length) in enumerate(zip(batch.splits, lengths, strict=True)):
                if split:
                    types[row, split:length] = 1
        before = time.process_time()
        try:
            return self._engine.run(ids, mask, types)
        finally:
            self._engine_cpu += time.process_time() - before

    def _compute_images(self, batch: wire.Batch) -> Rows:
        if self._pixels is None or not batch.pixels:
            raise EngineError(
                f"a batch of {'images' if batch.pixels else 'token ids'}; this instance reads {'images' if self._pixels else 'token ids'}"
            )
        expected = 4 * len(batch.lengths) * self._pixels[0] * self._pixels[1] * self._pixels[2]
        if len(batch.ids) != expected:
            raise EngineError(
                f"{len(batch.ids)} bytes for {len(batch.lengths)} images of {self._pixels}, expected {expected}"
            )
        images = np.frombuffer(batch.ids, np.uint8).view(np.float32).reshape(-1, *self._pixels)
        before = time.process_time()
        try:
            return run_pixels(self._engine, images)
        finally:
            self._engine_cpu += time.process_time() - before

    def _answer(self, router: Uplink, batch: wire.Batch, rows: Rows, infer_us: int) -> None:
        width = rows.shape[-1]
        if self._per_token:
            row_bytes = [length * width * 4 for length in batch.lengths]
            body = b"".join(rows[row, :length].tobytes() for row, length in enumerate(batch.lengths))
        else:
            row_bytes = [width * 4] * len(rows)
            body = rows.tobytes()
        meta = wire.encode_batch_result(
            batch.batch_id, row_bytes, width=width, infer_us=infer_us, per_token=self._per_token
        )
        router.send(meta, body)

    def _beat(self) -> None:
        try:
            while True:
                since = self._busy_since
                busy = None if since is None else time.monotonic() - since
                self._channel.send(Beat(busy, self._batches, self._engine_cpu))
                if self._done.wait(self._spec.beat_seconds):
                    return
        except SupervisorGone:
            return  # the main thread sees it too, or the kernel has already been asked to kill us
