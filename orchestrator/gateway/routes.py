"""Which route answers a path and a method?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from orchestrator.gateway.apis import huggingface, jina, openai, tei
from orchestrator.gateway.apis.call import Parse
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.pages import Pages

Page = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    pattern: str
    parse: Parse | None = None
    """Set on inference routes."""
    page: Page | None = None
    """Set on all others."""
    streams: bool = False
    """Never ends by itself: not counted as in flight."""
    public: bool = False
    """Answered without a key too: how the service is, nothing of what is asked or answered."""


class Routes:
    def __init__(self, pages: Pages, stream: Page, tokenize: Page) -> None:
        self._table: dict[str, dict[str, Route]] = {
            "/": {"POST": Route("/", parse=huggingface.predict), "GET": _page("/", pages.front_page)},
            "/predict": {"POST": Route("/predict", parse=huggingface.predict)},
            "/rerank": {"POST": Route("/rerank", parse=tei.rerank)},
            "/v1/rerank": {"POST": Route("/v1/rerank", parse=jina.rerank)},
            "/embed": {"POST": Route("/embed", parse=tei.embed)},
            "/v1/embeddings": {"POST": Route("/v1/embeddings", parse=openai.embeddings)},
            "/tokenize": {"POST": _page("/tokenize", tokenize, public=False)},
            "/info": {"GET": _page("/info", pages.info, public=False)},
            "/v1/models": {"GET": _page("/v1/models", pages.models, public=False)},
            "/v1/models/": {"GET": _page("/v1/models/{model}", pages.model, public=False)},
            "/health": {"GET": _page("/health", pages.health)},
            "/v2/health/live": {"GET": _page("/v2/health/live", pages.v2_live)},
            "/v2/health/ready": {"GET": _page("/v2/health/ready", pages.v2_ready)},
            "/metrics": {"GET": _page("/metrics", pages.metrics_page)},
            "/api/state": {"GET": _page("/api/state", pages.state)},
            "/api/history": {"GET": _page("/api/history", pages.history)},
            "/api/stream": {"GET": _page("/api/stream", stream, streams=True)},
            "/dashboard": {"GET": _page("/dashboard", pages.dashboard)},
            "/dashboard/": {"GET": _page("/dashboard/{file}", pages.dashboard_file)},
        }

    def find(self, path: str, method: str) -> Route:
        """Refusal: there is none, or it takes other methods."""
        methods = self._table.get(path)
        if methods is None or path.endswith("/"):
            if path.startswith("/dashboard/"):
                methods = self._table["/dashboard/"]
            elif path.startswith("/v1/models/") and path != "/v1/models/":
                methods = self._table["/v1/models/"]
            elif path != "/":
                methods = None
        if methods is None:
            raise Refusal("not_found", f"{path[:200]}: no such route; GET /info says what is served")
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            allow = tuple(sorted({*methods, "HEAD"} if "GET" in methods else methods))
            raise Refusal("method_not_allowed", f"{path[:200]} takes {', '.join(allow)}", allow=allow)
        return route


def _page(pattern: str, answer: Page, *, streams: bool = False, public: bool = True) -> Route:
    return Route(pattern, page=answer, streams=streams, public=public)
