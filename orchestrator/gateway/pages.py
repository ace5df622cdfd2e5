"""What does a gateway show besides answers? Health, what is served, figures, the dashboard."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp import web

from orchestrator.dashboard import assets
from orchestrator.gateway import metrics
from orchestrator.gateway.apis import health, openai, openinference, tei
from orchestrator.gateway.apis.call import Served
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.live import Live
from orchestrator.gateway.recollection import STEPS, step_of
from orchestrator.gateway.reply import Reply
from orchestrator.gateway.uplink import Uplink


class Pages:
    """Each method answers one route; a Refusal where it cannot."""

    def __init__(self, served: Served, uplink: Uplink, live: Live, draining: Callable[[], bool]) -> None:
        self._served = served
        self._uplink = uplink
        self._live = live
        self._draining = draining
        self._created = int(time.time())
        self._assets = assets.load()
        self._metrics: tuple[bytes, bytes] | None = None
        """The status that was rendered last, and what came of it."""

    async def info(self, _: web.BaseRequest) -> Reply:
        return Reply(200, tei.info(self._served))

    async def models(self, _: web.BaseRequest) -> Reply:
        return Reply(200, openai.models(self._served.model, self._created))

    async def model(self, request: web.BaseRequest) -> Reply:
        name = request.rel_url.path.removeprefix("/v1/models/")
        return Reply(200, openai.model_named(name, self._served.model, self._created))

    async def health(self, _: web.BaseRequest) -> Reply:
        self._require_serving()
        return Reply(200, health.health(self._live.ready))

    async def v2_live(self, _: web.BaseRequest) -> Reply:
        return Reply(200, health.v2_live())

    async def v2_ready(self, _: web.BaseRequest) -> Reply:
        self._require_serving()
        return Reply(200, health.v2_ready())

    def _require_serving(self) -> None:
        why = health.trouble(
            draining=self._draining(),
            router_answers=self._uplink.answering,
            known=self._live.document is not None,
            ready=self._live.ready,
        )
        if why is not None:
            raise Refusal("draining" if self._draining() else "no_instance", why, retry_after_seconds=1.0)

    async def v2_server(self, _: web.BaseRequest) -> Reply:
        return Reply(200, openinference.server())

    async def v2_model(self, request: web.BaseRequest) -> Reply:
        openinference.require(openinference.place(path_of(request)), self._served.model)
        return Reply(200, openinference.metadata(self._served))

    async def v2_model_ready(self, request: web.BaseRequest) -> Reply:
        openinference.require(openinference.place(path_of(request)), self._served.model)
        self._require_serving()
        return Reply(200, openinference.ready(self._served.model))

    async def metrics_page(self, _: web.BaseRequest) -> Reply:
        document = self._live.json()
        if self._metrics is None or self._metrics[0] is not document:
            self._metrics = (document, metrics.render(self._live.status()))
        return Reply(200, self._metrics[1], metrics.CONTENT_TYPE)

    async def state(self, _: web.BaseRequest) -> Reply:
        return Reply(200, self._live.json(), headers=b"Cache-Control: no-store\r\n")

    async def history(self, request: web.BaseRequest) -> Reply:
        step = step_of(request.query.get("step", str(STEPS[0])))
        return Reply(200, await self._live.past.document(step), headers=b"Cache-Control: no-store\r\n")

    async def front_page(self, _: web.BaseRequest) -> Reply:
        return Reply(302, b"", "text/plain", b"Location: dashboard\r\n")

    async def dashboard(self, request: web.BaseRequest) -> Reply:
        return self._asset(request, assets.PAGE)

    async def dashboard_file(self, request: web.BaseRequest) -> Reply:
        name = path_of(request).removeprefix("/dashboard/")
        if not name:  # the page's own addresses are relative to /dashboard
            return Reply(308, b"", "text/plain", b"Location: ../dashboard\r\n")
        return self._asset(request, name)

    def _asset(self, request: web.BaseRequest, name: str) -> Reply:
        asset = self._assets.get(name)
        if asset is None:
            raise Refusal("not_found", f"/dashboard/{name[:200]}: no such file")
        lines = "".join(f"{key}: {value}\r\n" for key, value in assets.HEADERS.items()) + f"ETag: {asset.etag}\r\n"
        known = request.headers.get("If-None-Match", "")
        fresh = asset.etag in (tag.strip().removeprefix("W/") for tag in known.split(","))
        return Reply(304 if fresh else 200, b"" if fresh else asset.body, asset.content_type, lines.encode("ascii"))


def path_of(request: web.BaseRequest) -> str:
    """The path as sent, without its query."""
    target = request.raw_path
    if not target.startswith("/"):  # absolute form, as proxies send it
        target = request.rel_url.raw_path
    return target.partition("?")[0]
