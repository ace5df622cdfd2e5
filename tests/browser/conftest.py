"""What do the browser tests stand on? Headless Chromium whose faults fail the test, and an orchestrator that is simulated.

`page` serves any test that opens a dashboard, also of a real system: `page.goto(url + "/dashboard")`, and on teardown
the test fails for each console error, uncaught exception and violation of the content security policy that it did not
expect by `console.expect("part of the message")`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from aiohttp import web
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from orchestrator.dashboard import assets
from orchestrator.history import Step
from orchestrator.plan.model import Bucket
from orchestrator.status import (
    CpuStatus,
    GatewayStatus,
    InstanceStatus,
    MachineStatus,
    ModelStatus,
    Quantiles,
    RouterStatus,
    Status,
    Verified,
)
from orchestrator.supervisor.past import Past

CHROMIUM_ARGS = [
    "--no-sandbox",  # Chromium refuses its sandbox to root, which is who runs tests in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DEADLINE_SECONDS = 20.0
BEHIND_A_PROXY = "/behind/a/proxy"
"""Where the simulation serves everything a second time, as under a proxy that adds a prefix."""
BEGIN = 1_750_000_020.0
"""Seconds since the epoch of the first simulated document."""


@dataclass
class Console:
    """What the browser complained of, and what of that the test expects."""

    faults: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def expect(self, part: str) -> None:
        self.expected.append(part)

    def unexpected(self) -> list[str]:
        return [fault for fault in self.faults if not any(part in fault for part in self.expected)]

    def hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")


@pytest.fixture(
    scope="module"
)  # while playwright's synchronous API is open it keeps a loop running, which others could not start
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        reason = "no chromium on PATH: apt-get install chromium"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, headless=True, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture
def console() -> Console:
    return Console()


@pytest.fixture
def open_page(browser: Browser, console: Console) -> Iterator[Callable[..., Page]]:
    """Opens pages with any of playwright's context options (`viewport`, `color_scheme`, `reduced_motion`, …)."""
    contexts = []

    def open_(**options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1600, "height": 1000}, "timezone_id": "UTC", **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(DEADLINE_SECONDS * 1000)
        page.on("console", console.hear)
        page.on("pageerror", lambda error: console.faults.append(f"exception: {error}"))
        return page

    yield open_
    for context in contexts:
        context.close()
    assert console.unexpected() == []


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """One page of 1600 × 1000, light."""
    return open_page(color_scheme="light")


class Simulation:
    """The gateway's side of the dashboard, on a loop of its own: assets, the last document, and the stream of them."""

    def __init__(self) -> None:
        self.latest: bytes | None = None
        self.refusal: tuple[int, bytes] | None = None
        self.viewers: list[asyncio.Queue[bytes | None]] = []
        self.arrived = threading.Condition()
        self.connections = 0
        self.remember()
        self.url = ""
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def start(self) -> None:
        self.thread.start()
        self.call(self._serve())

    def stop(self) -> None:
        self.call(self._close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE_SECONDS)
        self.loop.close()

    def call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE_SECONDS)

    def push(self, status: Status) -> None:
        """Makes it the current document and sends it to every open page."""
        self.push_text(msgspec.json.encode(status))

    def push_text(self, text: bytes) -> None:
        self.call(self._push(text))

    def remember(self, *statuses: Status) -> None:
        """What the supervisor has seen of it before anybody opened the page."""
        past = Past()
        for status in statuses:
            past.record(status)
        now, uptime, pid = (
            (statuses[-1].time_unix, statuses[-1].uptime_seconds, statuses[-1].pid)
            if statuses
            else (BEGIN, 600.0, 3999)
        )
        steps: tuple[Step, ...] = (2, 60)
        self.history = {
            str(step): msgspec.json.encode(
                past.document(step, 1e9, version="0.1.0", pid=pid, time_unix=now, uptime_seconds=uptime)
            )
            for step in steps
        }

    def break_stream(self, status: int = 503, body: bytes = b'{"error": "no state yet"}') -> None:
        """Ends every stream, and refuses what comes after with this answer until the next `mend`."""
        self.refusal = (status, body)
        self.call(self._end())

    def mend(self) -> None:
        self.refusal = None

    def wait_for_viewer(self, count: int = 1) -> None:
        """Until the page has opened its stream for the `count`-th time."""
        with self.arrived:
            if not self.arrived.wait_for(lambda: self.connections >= count, DEADLINE_SECONDS):
                raise TimeoutError(f"{self.connections} of {count} streams were opened")

    def show(self, page: Page, *statuses: Status) -> None:
        """Opens the dashboard on the first document and sends the others."""
        self.push(statuses[0])
        page.goto(f"{self.url}/dashboard")
        self.wait_for_viewer()
        for status in statuses[1:]:
            self.push(status)
        expect(page.locator("body")).to_have_attribute("data-feed", "live", timeout=15_000)

    async def _serve(self) -> None:
        app = web.Application()
        files = assets.load()

        async def asset(request: web.Request) -> web.Response:
            name = request.match_info.get("name", assets.PAGE)
            if name not in files:
                raise web.HTTPNotFound
            found = files[name]
            return web.Response(
                body=found.body, headers={**assets.HEADERS, "Content-Type": found.content_type, "ETag": found.etag}
            )

        for prefix in ("", BEHIND_A_PROXY):
            app.router.add_get(f"{prefix}/dashboard", asset)
            app.router.add_get(f"{prefix}/dashboard/{{name}}", asset)
            app.router.add_get(f"{prefix}/api/state", self._state)
            app.router.add_get(f"{prefix}/api/stream", self._stream)
            app.router.add_get(f"{prefix}/api/history", self._history)
        self.runner = web.AppRunner(app, shutdown_timeout=1.0)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        host, port = self.runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def _close(self) -> None:
        await self._end()
        await self.runner.cleanup()

    async def _push(self, text: bytes) -> None:
        self.latest = text
        for viewer in self.viewers:
            viewer.put_nowait(text)

    async def _end(self) -> None:
        for viewer in self.viewers:
            viewer.put_nowait(None)

    async def _state(self, request: web.Request) -> web.Response:
        status, body = self.refusal or ((200, self.latest) if self.latest else (503, b'{"error": "no state yet"}'))
        return web.Response(status=status, body=body, content_type="application/json")

    async def _history(self, request: web.Request) -> web.Response:
        body = self.history.get(request.query["step"])
        if body is None:
            return web.Response(status=503, body=b'{"error": "nobody remembers"}', content_type="application/json")
        return web.Response(body=body, content_type="application/json")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if self.refusal:
            return web.Response(status=self.refusal[0], body=self.refusal[1])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        await response.write(b": open\n\n")
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        if self.latest:
            queue.put_nowait(self.latest)
        self.viewers.append(queue)
        with self.arrived:
            self.connections += 1
            self.arrived.notify_all()
        try:
            while (text := await queue.get()) is not None:
                await response.write(b"data: " + text + b"\n\n")
        except ConnectionResetError:
            pass  # the page was closed, which is how every test ends
        finally:
            self.viewers.remove(queue)
        return response


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    simulation = Simulation()
    simulation.start()
    yield simulation
    simulation.stop()


def _instance(name: str, cpus: list[int], node: int, bucket: Bucket | None, **given: Any) -> InstanceStatus:
    fields: dict[str, Any] = {
        "name": name,
        "cpus": cpus,
        "node": node,
        "membind": [node],
        "threads": len(cpus),
        "bucket": bucket,
        "max_seqlen": bucket.max if bucket else 512,
        "reasons": [f"{len(cpus)} cores of node {node}"],
        "state": "ready",
        "pid": 4000 + cpus[0],
        "incarnation": 1,
        "restarts": 0,
        "verified": Verified(cpus=cpus, membind=[node], policy="bind", threads=len(cpus) + 3, matches_plan=True),
        "ready_seconds": 2.4,
        "last_error": None,
        "rss_bytes": 312 << 20,
        **given,
    }
    return InstanceStatus(**fields)


def _wave(second: int, phase: int) -> float:
    """A sawtooth between 0 and 1 with a period of 40 s: deterministic, and a line whose every second differs."""
    return ((second * 3 + phase * 17) % 40) / 40


class Scenarios:
    """Machines and their documents, one per simulated second."""

    begin = BEGIN

    def status(self, second: int, instances: list[InstanceStatus], machine: MachineStatus, **given: Any) -> Status:
        fields: dict[str, Any] = {
            "version": "0.1.0",
            "state": "ready",
            "time_unix": BEGIN + second,
            "uptime_seconds": 600.0 + second,
            "window_seconds": 10.0,
            "pid": 3999,
            "endpoint": "http://127.0.0.1:8080",
            "policy": "by-seqlen",
            "model": ModelStatus(
                id="sentence-transformers/all-MiniLM-L6-v2",
                task="feature-extraction",
                architecture="bert",
                precision="fp32",
                engine="onnxruntime",
                max_seqlen=256,
                dimensions=384,
                digest="0f3c",
                artefact="cache/0f3c",
            ),
            "router": RouterStatus(
                state="ready",
                pid=3998,
                submitted=90_000 + second * 400,
                queued=sum(one.queue_depth for one in instances),
                in_flight=6,
                settled=89_000 + second * 400,
                cpu_seconds=41.0,
                rss_bytes=44 << 20,
            ),
            "gateways": [
                GatewayStatus(
                    name="gateway-0",
                    state="ready",
                    pid=3997,
                    in_flight=14,
                    connections=16,
                    responses={"/embed 200": 80_000 + second * 380, "/embed 400": 3},
                    requests_per_second=380.0 + 20 * _wave(second, 1),
                    latency_ms=Quantiles(p50=4.2 + _wave(second, 2), p95=31.0, p99=58.0 + 4 * _wave(second, 3)),
                    cpu_seconds=63.0,
                    rss_bytes=96 << 20,
                )
            ],
            "instances": instances,
            "housekeeping_cpus": [cpu.cpu for cpu in machine.cpus if cpu.used_by == "housekeeping"],
            "unused_cpus": [cpu.cpu for cpu in machine.cpus if cpu.online and cpu.used_by is None],
            "machine": machine,
            "warnings": [],
            **given,
        }
        return Status(**fields)

    def load(self, second: int, which: int) -> dict[str, Any]:
        """Figures that move from one second to the next: short input is fast and plenty, long input slow and rare."""
        rate = 620.0 / 2.2**which * (0.8 + 0.4 * _wave(second, which))
        p50 = 2.1 * 2.0**which * (0.9 + 0.2 * _wave(second, which + 5))
        return {
            "served": 50_000 + second * 600,
            "sequences_per_second": rate,
            "tokens_per_second": rate * 18 * (1 + which),
            "latency_ms": Quantiles(p50=p50, p95=p50 * 1.9, p99=p50 * (2.6 + _wave(second, which + 2))),
            "queue_depth": int(9 * _wave(second, which)) + which,
            "oldest_wait_ms": 3.0 + which,
            "in_flight": 2,
            "batch_mean": 3.4,
            "padding_ratio": 0.062,
            "busy_ratio": 0.83,
            "batches": 15_000 + second * 90,
        }

    def two(self, second: int = 0, *, short: dict[str, Any] | None = None, **given: Any) -> Status:
        """Two cores, one node, an instance on each: this repository's smallest real machine."""
        names = ["short-0", "long-0"]
        buckets = [Bucket(min=1, max=64), Bucket(min=65, max=256)]
        instances = [
            _instance(
                name,
                [i],
                0,
                buckets[i],
                **(self.load(second, i * 2) | (short if short is not None and i == 0 else {})),
            )
            for i, name in enumerate(names)
        ]
        cpus = [
            CpuStatus(cpu=i, package=0, node=0, core=i, smt_rank=0, llc=0, online=True, allowed=True, used_by=names[i])
            for i in range(2)
        ]
        machine = MachineStatus(model_name="2-core Xeon", packages=1, nodes=1, cores=2, cpus=cpus)
        return self.status(second, instances, machine, **({"housekeeping_cpus": [0]} | given))

    def large(self, second: int = 0, **given: Any) -> Status:
        """Two packages, four nodes, 96 cores, 192 CPUs numbered as servers do (second siblings from 96), eight instances."""
        owner: dict[int, str] = {}
        instances = []
        lengths = [16, 32, 64, 128, 192, 256, 384, 512]
        for i, longest in enumerate(lengths):
            node = i // 2
            first = node * 24 + (1 if i % 2 == 0 else 9)
            cpus = list(range(first, first + (8 if i % 2 == 0 else 14)))
            name = f"len{longest}-0"
            owner.update(dict.fromkeys(cpus, name))
            bucket = Bucket(min=1 if i == 0 else lengths[i - 1] + 1, max=longest)
            instances.append(_instance(name, cpus, node, bucket, **self.load(second, i)))
        cells = []
        for cpu in range(192):
            core = cpu % 96
            online = cpu != 191
            housekeeping = core % 24 == 0
            cells.append(
                CpuStatus(
                    cpu=cpu,
                    package=core // 48,
                    node=core // 24,
                    core=core if online else None,
                    smt_rank=cpu // 96 if online else None,
                    llc=core // 24,
                    online=online,
                    allowed=online and cpu != 95,
                    used_by="housekeeping" if housekeeping else owner.get(core) if cpu < 96 else None,
                    sibling_of=owner.get(core) if cpu >= 96 and online else None,
                )
            )
        machine = MachineStatus(model_name="Xeon, 2 × 48 cores", packages=2, nodes=4, cores=96, cpus=cells)
        return self.status(second, instances, machine, **given)


@pytest.fixture
def scenarios() -> Scenarios:
    return Scenarios()
