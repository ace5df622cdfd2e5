"""Which route answers a path and a method?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from orchestrator.gateway import reading
from orchestrator.gateway.apis import jina, openai, openinference, tei
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.pages import Pages
from orchestrator.gateway.reading import Reading

Page = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    pattern: str
    reading: Reading | None = None
    """Set on inference routes."""
    page: Page | None = None
    """Set on all others."""
    streams: bool = False
    """Never ends by itself: not counted as in flight."""
    public: bool = False
    """Answered without a key too: how the service is, nothing of what is asked or answered."""


class Routes:
    def __init__(self, pages: Pages, stream: Page, tokenize: Page) -> None:
        routes = {
            "POST": [
                Route("/", reading.json_or_image),
                Route("/predict", reading.json_or_image),
                Route("/rerank", reading.json(tei.rerank)),
                Route("/v1/rerank", reading.json(jina.rerank)),
                Route("/embed", reading.json(tei.embed)),
                Route("/v1/embeddings", reading.json(openai.embeddings)),
                Route("/v2/models/{model}/infer", reading.json_and_tensors),
                Route("/v2/models/{model}/versions/{version}/infer", reading.json_and_tensors),
                _page("/tokenize", tokenize, public=False),
            ],
            "GET": [
                _page("/", pages.front_page),
                _page("/info", pages.info, public=False),
                _page("/v1/models", pages.models, public=False),
                _page("/v1/models/{model}", pages.model, public=False),
                _page("/health", pages.health),
                _page("/v2/health/live", pages.v2_live),
                _page("/v2/health/ready", pages.v2_ready),
                _page("/v2", pages.v2_server, public=False),
                _page("/v2/models/{model}", pages.v2_model, public=False),
                _page("/v2/models/{model}/ready", pages.v2_model_ready),
                _page("/v2/models/{model}/versions/{version}", pages.v2_model, public=False),
                _page("/v2/models/{model}/versions/{version}/ready", pages.v2_model_ready),
                _page("/metrics", pages.metrics_page),
                _page("/api/state", pages.state),
                _page("/api/history", pages.history),
                _page("/api/stream", stream, streams=True),
                _page("/dashboard", pages.dashboard),
                _page("/dashboard/{file}", pages.dashboard_file),
            ],
        }
        self._table: dict[str, dict[str, Route]] = {}
        for method, those in routes.items():
            for route in those:
                self._table.setdefault(route.pattern, {})[method] = route

    def find(self, path: str, method: str) -> Route:
        """Refusal: there is none, or it takes other methods."""
        methods = self._table.get(path) or self._table.get(_pattern(path))
        if methods is None:
            raise Refusal("not_found", f"{path[:200]}: no such route; GET /info says what is served")
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            allow = tuple(sorted({*methods, "HEAD"} if "GET" in methods else methods))
            raise Refusal("method_not_allowed", f"{path[:200]} takes {', '.join(allow)}", allow=allow)
        return route


def _pattern(path: str) -> str:
    """Of a path that names something; empty where it is none of these."""
    if path.startswith("/dashboard/"):
        return "/dashboard/{file}"
    if path.startswith("/v1/models/") and path != "/v1/models/":
        return "/v1/models/{model}"
    if path.startswith(openinference.MODELS):
        place = openinference.place(path)
        return "" if place is None else place.pattern
    return ""


def _page(pattern: str, answer: Page, *, streams: bool = False, public: bool = True) -> Route:
    return Route(pattern, page=answer, streams=streams, public=public)
