"""Which route answers a path and a method?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from orchestrator.gateway import metrics, openapi, reading
from orchestrator.gateway.apis import health, huggingface, jina, openai, openinference, outputs, tei, tensors
from orchestrator.gateway.apis.call import Served
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.images import FORMATS
from orchestrator.gateway.openapi import BYTES, INFERENCE, JSON, READING, Operation, Says
from orchestrator.gateway.pages import Pages
from orchestrator.gateway.reading import Reading
from orchestrator.gateway.recollection import STEPS
from orchestrator.gateway.reply import Reply
from orchestrator.history import History
from orchestrator.status import Status

Page = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    pattern: str
    says: Says
    """For /openapi.json."""
    reading: Reading | None = None
    """Set on inference routes."""
    page: Page | None = None
    """Set on all others."""
    streams: bool = False
    """Never ends by itself: not counted as in flight."""
    public: bool = False
    """Answered without a key too: how the service is, nothing of what is asked or answered."""


class Routes:
    def __init__(self, pages: Pages, stream: Page, tokenize: Page, served: Served, *, keyed: bool) -> None:
        """`keyed`: whether routes that are not public want a key."""
        self._served = served
        self._keyed = keyed
        self._document: bytes | None = None
        """Made when it is first asked for: that takes some milliseconds."""
        self.all = [
            *_inferences(served),
            Route("POST", "/tokenize", Says("The tokens of texts, with their places", list[list[tei.SpelledToken]],
                  tei.TokenizeRequest, READING), page=tokenize),
            *_pages(pages),
            _status("/api/stream", Says("The status, and each that follows, as server-sent events", BYTES,
                    refuses=(429,), media=("text/event-stream",)), stream, streams=True),
            _status("/openapi.json", Says("This document", dict[str, Any]), self._openapi),
        ]  # fmt: skip
        self._table: dict[str, dict[str, Route]] = {}
        for route in self.all:
            self._table.setdefault(route.pattern, {})[route.method] = route

    async def _openapi(self, _: web.BaseRequest) -> Reply:
        if self._document is None:
            operations = [
                Operation(route.method, route.pattern, route.says, route.reading is not None, route.public)
                for route in self.all
            ]
            self._document = openapi.document(operations, self._served, keyed=self._keyed)
        return Reply(200, self._document)

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


def _inferences(served: Served) -> list[Route]:
    kind = huggingface.KINDS[served.model.task]
    takes = (JSON,) if served.model.image is None else (JSON, *(f"image/{name}" for name in map(str.lower, FORMATS)))

    def route(pattern: str, how: Reading, summary: str, body: Any, answer: Any, **more: Any) -> Route:
        return Route("POST", pattern, Says(summary, answer, body, more.pop("refuses", INFERENCE), **more), how)

    tensors_too = {"takes": (JSON, tensors.BINARY), "media": (JSON, tensors.BINARY), "refuses": (*INFERENCE, 404)}
    return [
        *(
            route(pattern, reading.json_or_image, f"Hugging Face Inference: {served.model.task}", kind.body, kind.answer,
                  takes=takes)
            for pattern in ("/predict", "/")
        ),
        route("/embed", reading.json(tei.embed), "text-embeddings-inference: a vector per text",
              tei.EmbedRequest, list[list[float]]),
        route("/rerank", reading.json(tei.rerank), "text-embeddings-inference: texts, the most relevant first",
              tei.RerankRequest, list[tei.Rank]),
        route("/v1/embeddings", reading.json(openai.embeddings), "OpenAI: a vector per text",
              openai.EmbeddingsRequest, openai.EmbeddingsResponse),
        route("/v1/rerank", reading.json(jina.rerank), "Jina, Cohere: documents, the most relevant first",
              jina.RelevanceRequest, jina.RelevanceResponse),
        *(
            route(f"/v2/models/{{model}}{version}/infer", reading.json_and_tensors, "Open Inference Protocol: tensors",
                  tensors.InferRequest, outputs.InferResponse, **tensors_too)
            for version in ("", _VERSION)
        ),
    ]  # fmt: skip


def _pages(pages: Pages) -> list[Route]:
    html, text, anything = ("text/html; charset=utf-8",), (metrics.CONTENT_TYPE,), ("*/*",)
    fresh = ((304, "The client has it already."),)
    found = [
        Route("GET", "/info", Says("text-embeddings-inference: what is served", tei.Info), page=pages.info),
        Route("GET", "/v1/models", Says("OpenAI: the models, which is one", openai.Models), page=pages.models),
        Route("GET", "/v1/models/{model}", Says("OpenAI: one model", openai.Model, refuses=(404,)), page=pages.model),
        Route("GET", "/v2", Says("Open Inference Protocol: the server", openinference.ServerMetadata), page=pages.v2_server),
        _status("/v2/health/live", Says("Open Inference Protocol: whether the process answers", health.Live), pages.v2_live),
        _status("/v2/health/ready", Says("Open Inference Protocol: whether requests are served", health.Ready,
                refuses=(503,)), pages.v2_ready),
        _status("/health", Says("Whether requests are served", health.Health, refuses=(503,)), pages.health),
        _status("/metrics", Says("Prometheus", BYTES, refuses=(503,), media=text), pages.metrics_page),
        _status("/api/state", Says("The status of everything", Status, refuses=(503,)), pages.state),
        _status("/api/history", Says("How it was: the last ten minutes every 2 s, or six hours every minute", History,
                refuses=(400, 503), query=(("step", STEPS),)), pages.history),
        _status("/dashboard", Says("The dashboard", BYTES, media=html, other=fresh), pages.dashboard),
        _status("/dashboard/{file}", Says("Its files", BYTES, refuses=(404,), media=anything, other=fresh),
                pages.dashboard_file),
        _status("/", Says("To the dashboard", None, other=((302, "GET /dashboard."),)), pages.front_page),
    ]  # fmt: skip
    for version in ("", _VERSION):
        at = f"/v2/models/{{model}}{version}"
        tells = Says("Open Inference Protocol: its tensors", openinference.ModelMetadata, refuses=(404,))
        ready = Says("Open Inference Protocol: whether it is served", openinference.ModelReady, refuses=(404, 503))
        found += [Route("GET", at, tells, page=pages.v2_model), _status(f"{at}/ready", ready, pages.v2_model_ready)]
    return found


def _status(pattern: str, says: Says, answer: Page, *, streams: bool = False) -> Route:
    """How the service is: no key is needed."""
    return Route("GET", pattern, says, page=answer, streams=streams, public=True)


_VERSION = "/versions/{version}"
