"""How does a request become an answer?

Theory of operation. One table maps path and method to a route (`routes`). An inference route says how its body is read (`reading`): by a
pure `parse` (body → Call). The Call has a pure `render` (rows → body); between them lie the tokenizer and the router. Whatever ends a
request early raises a Refusal, and one place makes the error body of it. The answer is written inside the handler, so that `in_flight`
reaches zero only when nothing is owed any more. There is no middleware: at 1,000 requests a second on one core each layer would cost as
much as the JSON.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from aiohttp import web

from orchestrator.client.link import Answered
from orchestrator.client.texts import pack
from orchestrator.gateway import errors, limits
from orchestrator.gateway.answers import Answers
from orchestrator.gateway.apis import huggingface, tei
from orchestrator.gateway.apis.call import Content, Served
from orchestrator.gateway.caller import Guard, caller_of
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.images import Decoding
from orchestrator.gateway.live import Live
from orchestrator.gateway.notes import Notes
from orchestrator.gateway.pages import Pages, path_of
from orchestrator.gateway.reading import Reading
from orchestrator.gateway.reply import Reply
from orchestrator.gateway.routes import Routes
from orchestrator.gateway.stats import Stats
from orchestrator.gateway.tokenize import Tokenizing
from orchestrator.gateway.uplink import Uplink

log = logging.getLogger("gateway")

PATIENCE_SECONDS = 5.0
"""While no instance is ready but one is being started, a request waits this long before it is told to come back later."""
ON_LOOP_BYTES = 1 << 20
"""Rows up to this are made into an answer on the event loop: 250,000 floats take about 10 ms, for which others may wait."""
OTHER = "other"
"""The label of requests for paths that are not in the table."""


class UnknownTask(Exception):
    """The model's task is one this gateway has no answers for."""


class App:
    """The HTTP application of one gateway. Needs the running loop; `Server(app.handle)` makes connections for it."""

    def __init__(
        self,
        served: Served,
        tokenizing: Tokenizing | None,
        uplink: Uplink,
        live: Live,
        answers: Answers | None = None,
        notes: Notes | None = None,
        guard: Guard | None = None,
    ) -> None:
        if served.model.task not in huggingface.KINDS:
            raise UnknownTask(
                f"task {served.model.task!r} has no HTTP routes; known are {', '.join(huggingface.KINDS)}"
            )
        self.served = served
        self.stats = Stats()
        self.draining = False
        self.leaving = False
        """Others take over: each connection ends with its next answer, and nothing is refused."""
        self.idle = asyncio.Event()
        """Set while nothing is in flight."""
        self.idle.set()
        self._tokenizing = tokenizing
        """None: the model reads images."""
        self._decoding = Decoding()
        self._uplink = uplink
        self._answers = answers or Answers(uplink.infer, None, join=False)
        self._live = live
        self._notes = notes or Notes("errors", "gateway")
        self._guard = guard
        self._aside = ThreadPoolExecutor(1, "render-large")
        self._prefix = secrets.token_hex(6)
        self._numbers = count(1)
        pages = Pages(served, uplink, live, lambda: self.draining)
        self._routes = Routes(pages, live.stream, self._tokenize, served, keyed=guard is not None)

    def close(self) -> None:
        """Ends the threads that make large answers and decode images; what they have not begun is dropped."""
        self._decoding.close()
        self._aside.shutdown(wait=False, cancel_futures=True)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Every request comes through here. CancelledError if its client hangs up."""
        started = time.perf_counter()
        path = path_of(request)
        request_id = limits.request_id(request, "")
        if not request_id:
            request_id = f"{self._prefix}-{next(self._numbers):x}"
        pattern = OTHER
        counted = True
        refused: Refusal | None = None
        self.stats.in_flight += 1
        self.idle.clear()
        try:
            try:
                route = self._routes.find(path, request.method)
                pattern = route.pattern
                if self._guard is not None and not route.public:
                    self._guard.admit(request)
                if route.reading is not None:
                    reply: web.StreamResponse = await self._infer(request, route.reading, request_id, started)
                else:
                    assert route.page is not None
                    if route.streams:
                        counted = False
                        self._leave()
                    reply = await route.page(request)
            except Refusal as refusal:
                refused = refusal
                reply = self._refuse(refusal, path, request_id, started)
            except ConnectionError:
                raise
            except Exception:
                log.exception("request=%s route=%s failed; this is a bug", request_id, pattern)
                refused = Refusal(
                    "internal", f"an error inside the gateway; request {request_id} is in its log", close=True
                )
                reply = self._refuse(refused, path, request_id, started)
            if self.leaving and isinstance(reply, Reply):
                reply.close_after()
            await reply.prepare(request)
            self.stats.responded(pattern, reply.status)
            if reply.status >= self._notes.above:
                self._write_down(request, reply, refused, request_id, path if pattern is OTHER else pattern, started)
            return reply
        finally:
            if counted:
                self._leave()

    def _write_down(
        self,
        request: web.BaseRequest,
        reply: web.StreamResponse,
        refused: Refusal | None,
        request_id: str,
        route: str,
        started: float,
    ) -> None:
        answer = refused if refused is not None else reply if isinstance(reply, Reply) else None
        self._notes.answered(
            request_id=request_id,
            asked=0 if answer is None else answer.asked,
            method=request.method,
            route=route[:200],
            status=reply.status,
            seconds=time.perf_counter() - started,
            peer=request.remote,
            error=None if refused is None else refused.kind,
            why="" if refused is None else refused.message,
        )

    def _leave(self) -> None:
        self.stats.in_flight -= 1
        if self.stats.in_flight == 0:
            self.idle.set()

    async def _infer(self, request: web.BaseRequest, reading: Reading, request_id: str, started: float) -> Reply:
        self._admit()
        served = self.served
        parse = reading(request, served)
        timeout = limits.timeout_seconds(request, served.limits.default_timeout_ms)
        caller = caller_of(request)
        body = await limits.read_body(request, served.limits.body_bytes)
        call = parse(body, served)
        if call.timeout_seconds is not None:
            timeout = min(timeout, call.timeout_seconds)
        if call.priority is not None:
            caller = caller._replace(priority=call.priority)
        # What is being changed comes back: a request waits for that as long as its own deadline lets it.
        impatient = self._live.document is not None and self._live.ready == 0 and not self._live.changing
        if impatient:
            if self._live.coming == 0:
                raise Refusal("no_instance", "no instance is ready", retry_after_seconds=PATIENCE_SECONDS)
            timeout, impatient = min(timeout, PATIENCE_SECONDS), timeout > PATIENCE_SECONDS
        before = time.perf_counter()
        if call.tokens is not None:
            tokens = call.tokens
        elif call.decode is not None:
            tokens = await self._decoding.apply(call.decode)
        elif self._tokenizing is None:
            raise Refusal("unprocessable", f"this model's task is {served.model.task}, it reads images and no texts")
        elif call.texts is not None:
            tokens = await self._tokenizing.encode(call.texts, call.cut)
        elif call.encode is not None:
            tokens = await self._tokenizing.apply(call.encode, call.characters)
        else:
            assert call.sequences is not None
            tokens = pack(call.sequences)
        tokenized = time.perf_counter()
        self.stats.tokenize_seconds += tokenized - before
        left = timeout - (tokenized - started)
        if left <= 0:
            raise Refusal("deadline", f"the deadline of {timeout * 1000:.0f} ms passed before the text was tokenized")
        outcome = await self._answers.infer(tokens, left, caller)
        if not isinstance(outcome, Answered):
            kind, message = outcome.reason, outcome.message
            if kind == "deadline" and impatient:
                kind, message = "no_instance", f"no instance became ready within {PATIENCE_SECONDS:.0f} s"
            if kind not in errors.STATUS or kind == "malformed":  # the router found a fault in what *we* sent
                log.error("request=%s refused by the router: %s %s", request_id, kind, message)
                raise Refusal("internal", f"the router refused the gateway's message: {kind}", asked=outcome.request_id)
            raise Refusal(
                kind,
                message or kind.replace("_", " "),
                retry_after_seconds=outcome.retry_after_seconds,
                asked=outcome.request_id,
            )
        answered = time.perf_counter()
        if call.costly or sum(row.nbytes for row in outcome.rows) > ON_LOOP_BYTES:
            content = await asyncio.get_running_loop().run_in_executor(self._aside, call.render, outcome, tokens)
        else:
            content = call.render(outcome, tokens)
        done = time.perf_counter()
        self.stats.inferred(time.monotonic(), done - started)
        headers = self._headers(outcome, request_id, started, before, tokenized, answered, done)
        if isinstance(content, Content):
            return Reply(200, content.data, content.content_type, headers + content.headers, asked=outcome.request_id)
        return Reply(200, content, headers=headers, asked=outcome.request_id)

    def _headers(
        self,
        answer: Answered,
        request_id: str,
        started: float,
        before: float,
        tokenized: float,
        answered: float,
        done: float,
    ) -> bytes:
        """The header lines of an inference; durations in milliseconds. Of several batches the slowest counts."""
        parts = answer.parts
        first = parts[0]
        instance, bucket = first.instance, self._bucket(first.bucket)
        queue_us, infer_us, batch_size = first.queue_us, first.infer_us, first.batch_size
        if len(parts) > 1:
            instance = ",".join(dict.fromkeys(part.instance for part in parts))
            bucket = ",".join(dict.fromkeys(self._bucket(part.bucket) for part in parts))
            queue_us = max(part.queue_us for part in parts)
            infer_us = max(part.infer_us for part in parts)
            batch_size = max(part.batch_size for part in parts)
            first = max(parts, key=lambda part: part.attempts)
        if first.attempts > 1:
            self._notes.retried(request_id, answer.request_id, first.attempts, first.instance)
        if not (instance.isascii() and instance.isprintable()):  # a header line is no place for surprises
            instance = instance.encode("ascii", "replace").decode().translate(_CONTROL)
        return (
            f"x-compute-time: {(done - started) * 1e3:.3f}\r\n"
            f"Server-Timing: tokenize;dur={(tokenized - before) * 1e3:.3f}, queue;dur={queue_us / 1e3:.3f}, "
            f"inference;dur={infer_us / 1e3:.3f}, post;dur={(done - answered) * 1e3:.3f}\r\n"
            f"x-instance: {instance}\r\nx-bucket: {bucket}\r\nx-batch-size: {batch_size}\r\nx-request-id: {request_id}\r\n"
        ).encode("ascii")

    def _bucket(self, bucket: tuple[int, int]) -> str:
        low, high = bucket
        return f"{low}-{high}" if high else f"1-{self.served.model.max_seqlen}"

    def _admit(self) -> None:
        """Before the body is read: it may be large, and there is nobody to give it to."""
        if self.draining:
            raise Refusal("draining", "this gateway is draining; try again", retry_after_seconds=1.0, close=True)
        most = self.served.limits.in_flight
        if self.stats.in_flight > most:
            raise Refusal("queue_full", f"{most} requests are in flight in this gateway", retry_after_seconds=1.0)

    def _refuse(self, refusal: Refusal, path: str, request_id: str, started: float) -> Reply:
        lines = [f"x-request-id: {request_id}\r\nx-compute-time: {(time.perf_counter() - started) * 1e3:.3f}\r\n"]
        if refusal.retry_after is not None:
            lines.append(f"Retry-After: {refusal.retry_after}\r\n")
        if refusal.status == 401:
            lines.append("WWW-Authenticate: Bearer\r\n")
        if refusal.allow:
            lines.append(f"Allow: {', '.join(refusal.allow)}\r\n")
        make = errors.openai_body if path.startswith("/v1/") else errors.body
        return Reply(
            refusal.status,
            make(refusal.kind, refusal.message),
            headers="".join(lines).encode("ascii"),
            close=refusal.close or self.draining,
        )

    async def _tokenize(self, request: web.BaseRequest) -> Reply:
        self._admit()
        limits.require_json(request)
        body = await limits.read_body(request, self.served.limits.body_bytes)
        texts, special = tei.tokenize(body, self.served)
        assert self._tokenizing is not None  # tei.tokenize refuses a model of images
        return Reply(200, tei.spelled(texts, await self._tokenizing.spell(texts, special=special)))


_CONTROL = dict.fromkeys((*range(32), 127), "?")
