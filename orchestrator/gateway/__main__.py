"""How does a gateway process start, serve and end? Steered by its supervisor over the channel, deaf to signals of the terminal.

python -m orchestrator.gateway --channel FD
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, assert_never

import msgspec
import uvloop

from orchestrator.client.link import Answered
from orchestrator.client.texts import TextEncoder
from orchestrator.dashboard.assets import BrokenPackage
from orchestrator.gateway.answers import Answers, Key
from orchestrator.gateway.apis.call import Served
from orchestrator.gateway.app import App, UnknownTask
from orchestrator.gateway.caches import BoundedCache
from orchestrator.gateway.caller import Guard
from orchestrator.gateway.live import Live
from orchestrator.gateway.notes import Handler, Notes
from orchestrator.gateway.server import Server
from orchestrator.gateway.spec import GatewaySpec
from orchestrator.gateway.tokenize import Tokenizing
from orchestrator.gateway.uplink import Uplink
from orchestrator.listening import BACKLOG
from orchestrator.settle import settle
from orchestrator.status import CacheStatus
from workers.channel import Channel, ChannelError, SupervisorGone
from workers.spec import (
    Beat,
    Configure,
    Drain,
    Drained,
    Fatal,
    Hold,
    Lost,
    Ready,
    Recall,
    Recalled,
    Release,
    Start,
    State,
    Stats,
    Stop,
)

BEAT_SECONDS = 0.5
FLUSH_SECONDS = 1.0
"""How long answers that are written may take to leave the sockets at the end."""
HANDOVER_SECONDS = 1.0
"""How long a connection that has nothing to ask may keep a gateway that is being replaced: a client that sends on it just when it is
closed has to send again."""
HANDOVER_STEP_SECONDS = 0.02

log = logging.getLogger("gateway")


class Unworkable(Exception):
    """This gateway cannot start, and a second try would not help."""


class Vanished(Exception):
    """What the cache held is gone. The next start of the orchestrator makes it anew, so this is not for good."""


class Process:
    """One gateway from Ready to Stop. Everything runs on one event loop."""

    def __init__(self, spec: GatewaySpec, channel: Channel, encoder: TextEncoder | None, started: float) -> None:
        self._spec = spec
        self._channel = channel
        self._started = started
        self._live = Live(lambda step: self._send(Recall(step)))
        # By the pid too: what an earlier gateway of this name asked is not ours.
        client = f"{spec.name}.{os.getpid()}"
        self._uplink = Uplink(spec.router, client)
        caches = spec.caches
        self._tokenizing: Tokenizing | None = None
        if encoder is not None:
            self._tokenizing = Tokenizing(encoder, BoundedCache(caches.token_bytes) if caches.token_bytes else None)
        kept: BoundedCache[Key, Answered] | None = BoundedCache(caches.answer_bytes) if caches.answer_bytes else None
        self._answers = Answers(self._uplink.infer, kept, join=caches.join)
        served = Served(spec.model, spec.limits, 0 if encoder is None else encoder.vocabulary)
        guard = Guard(spec.keys) if spec.keys else None
        self._app = App(
            served, self._tokenizing, self._uplink, self._live, self._answers, Notes(spec.access, client), guard
        )
        self._server = Server(self._app.handle)
        self._accepting: list[asyncio.Server] = []
        self._stopped = asyncio.Event()
        self._drain: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Until Stop. SupervisorGone ends the process on the spot, see `_heard`."""
        loop = asyncio.get_running_loop()
        self._uplink.open()
        for fd in self._spec.listen_fds:
            self._accepting.append(await self._accept_at(fd))
        # What exists now lives as long as the process: the collector need not look at it again, and on the hot path little
        # that it makes forms cycles.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        loop.add_reader(self._channel.fileno(), self._heard)
        beats = asyncio.create_task(self._beat())
        reports = asyncio.create_task(self._report())
        self._channel.send(Ready(seconds=time.monotonic() - self._started, details={"pid": os.getpid()}))
        try:
            await self._stopped.wait()
        finally:
            beats.cancel()
            reports.cancel()
            loop.remove_reader(self._channel.fileno())
            self._accept_no_more()
            self._live.close()
            await self._server.flush(FLUSH_SECONDS)
            self._uplink.close()
            if self._tokenizing is not None:
                self._tokenizing.close()
            self._app.close()

    def _heard(self) -> None:
        try:
            messages = self._channel.receive()
        except SupervisorGone:
            vanish()
        except ChannelError as error:
            log.error("gateway=%s channel: %s", self._spec.name, error)
            return
        for message in messages:
            match message:
                case State():
                    self._live.publish(bytes(message.status))
                case Recalled():
                    self._live.past.heard(message.step_seconds, bytes(message.history))
                case Drain():
                    self._begin_drain(message.handover)
                case Stop():
                    self._stopped.set()
                case Start() | Lost() | Configure() | Hold() | Release():
                    log.error("gateway=%s ignores a %s message", self._spec.name, type(message).__name__)
                case _:
                    assert_never(message)

    async def _accept_at(self, fd: int) -> asyncio.Server:
        listener = socket.socket(fileno=fd)
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        if listener.family == socket.AF_UNIX:
            return await loop.create_unix_server(self._server, sock=listener, backlog=BACKLOG)
        return await loop.create_server(self._server, sock=listener, backlog=BACKLOG)

    def _accept_no_more(self) -> None:
        """Others who hold the sockets notice nothing: they are closed here, not shut down."""
        while self._accepting:
            self._accepting.pop().close()

    def _begin_drain(self, handover: bool) -> None:
        if handover:
            self._accept_no_more()
            self._live.close()
            self._app.leaving = True
        else:
            self._app.draining = True
        if self._drain is None:
            log.info("draining in_flight=%d", self._app.stats.in_flight)
            self._drain = asyncio.create_task(self._say_drained())

    async def _say_drained(self) -> None:
        if self._app.leaving:
            await self._nobody_connected()
        await self._app.idle.wait()
        self._send(Drained())
        log.info("drained")

    async def _nobody_connected(self) -> None:
        """Until the last connection has ended, or nothing new is to be taken at all. From HANDOVER_SECONDS on idle ones are ended."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + HANDOVER_SECONDS
        while self._server.open_connections and not self._app.draining:
            await asyncio.sleep(HANDOVER_STEP_SECONDS)
            if loop.time() >= patience:
                self._server.close_idle()

    async def _beat(self) -> None:
        while True:
            self._send(Beat())
            await asyncio.sleep(BEAT_SECONDS)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self._spec.report_seconds)
            link = self._uplink.link
            status = self._app.stats.report(
                time.monotonic(),
                name=self._spec.name,
                state="draining" if self._app.draining or self._app.leaving else "ready",
                pid=os.getpid(),
                connections=self._server.open_connections,
                resubmitted=link.resubmitted,
                late_replies=link.late_replies,
                cpu_seconds=time.process_time(),
                rss_bytes=resident_bytes(),
                token_cache=report_of(None if self._tokenizing is None else self._tokenizing.cache),
                answer_cache=report_of(self._answers.cache),
                joined=self._answers.joined,
            )
            self._send(Stats(msgspec.Raw(msgspec.json.encode(status))))

    def _send(self, message: Beat | Stats | Drained | Recall) -> None:
        try:
            self._channel.send(message)
        except SupervisorGone:
            vanish()


def report_of(cache: BoundedCache[Any, Any] | None) -> CacheStatus:
    return CacheStatus() if cache is None else cache.report()


def vanish() -> NoReturn:
    """The supervisor is gone: nobody would ever end this process, so it ends now, threads and open requests included."""
    os._exit(1)


def resident_bytes() -> int | None:
    """Resident memory of this process. Source: proc(5), /proc/PID/statm, second field, in pages."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def settle_in(spec: GatewaySpec) -> None:
    """Before any thread is born."""
    for refused in settle(spec.cpus):
        log.warning("gateway=%s %s", spec.name, refused)
    # The tokenizer's own threads would leave these CPUs no idler and make the order of requests a matter of luck.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"


def prepare(start: Start) -> tuple[GatewaySpec, TextEncoder | None]:
    """The encoder is None where the model reads images.

    Unworkable says what is wrong with the specification or the tokenizer, Vanished that the tokenizer is gone.
    """
    try:
        spec = msgspec.json.decode(start.spec, type=GatewaySpec)
    except msgspec.DecodeError as error:
        raise Unworkable(f"specification of the gateway: {error}") from None
    settle_in(spec)
    if spec.model.image is not None:
        return spec, None
    if not Path(spec.tokenizer).is_file():
        raise Vanished(f"{spec.tokenizer}: no tokenizer there any more; the next `orchestrator up` makes it anew")
    try:
        return spec, TextEncoder(spec.tokenizer, spec.model.max_seqlen)
    except Exception as error:  # noqa: BLE001 - tokenizers raises nothing narrower than Exception for a file it cannot read
        raise Unworkable(f"{spec.tokenizer}: not a tokenizer.json that can be read: {error}") from None


async def run(spec: GatewaySpec, channel: Channel, encoder: TextEncoder | None, started: float) -> None:
    await Process(spec, channel, encoder, started).serve()


def main(argv: Sequence[str] | None = None) -> int:
    started = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m orchestrator.gateway", description="One HTTP gateway.")
    parser.add_argument("--channel", type=int, required=True, help="descriptor of the supervisor's socketpair")
    parser.add_argument("--name", default="", help="shown by ps")
    args = parser.parse_args(argv)
    # Ctrl-C reaches the whole foreground group; the supervisor decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[Handler()])
    channel = Channel(args.channel)
    try:
        spec, encoder = prepare(channel.start())
        uvloop.run(run(spec, channel, encoder, started))
    except SupervisorGone:
        return 1
    except (Unworkable, UnknownTask, BrokenPackage, ChannelError) as error:
        log.error("gateway cannot start: %s", error)
        channel.send(Fatal(str(error), permanent=True))
        return 1
    except (Vanished, OSError) as error:
        log.error("gateway cannot start: %s", error)
        channel.send(Fatal(str(error)))
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    # A text that is still being tokenized for nobody shall not hold up the end.
    os._exit(status)
