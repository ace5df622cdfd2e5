"""What does a request that is not answered get told, and with which HTTP status? Pure.

HTTP numbers live in this table and nowhere else. The kinds in the second half are those of `workers.wire.REASONS`, so that the
words in a body, in the router's counters and on the dashboard are the same.
"""

from __future__ import annotations

import math
from typing import Final, TypedDict

import orjson

STATUS: Final[dict[str, int]] = {
    "malformed": 400,
    "unauthorized": 401,
    "not_found": 404,
    "method_not_allowed": 405,
    "body_timeout": 408,
    "body_too_large": 413,
    "batch_too_large": 413,
    "too_long": 413,
    "unsupported_media_type": 415,
    "unprocessable": 422,
    # A request that the model cannot compute, or that has killed two workers: TEI answers a failed backend with 424, and
    # no client library retries it, which a 5xx would invite.
    "model_error": 424,
    "worker_lost": 424,
    "queue_full": 429,
    "internal": 500,
    "draining": 503,
    "no_instance": 503,
    "deadline": 504,
}

REASON: Final[dict[int, str]] = {
    200: "OK", 302: "Found", 304: "Not Modified", 308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized",
    404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout", 413: "Content Too Large",
    415: "Unsupported Media Type", 422: "Unprocessable Content", 424: "Failed Dependency", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip

RETRIED: Final = frozenset({"queue_full", "draining", "no_instance"})
"""Another try later can succeed: these carry `Retry-After`, at least one second."""


class Refusal(Exception):
    """Ends a request early. `kind` is a key of STATUS; the message says what, where and what to do."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        retry_after_seconds: float = 0.0,
        allow: tuple[str, ...] = (),
        close: bool = False,
        asked: int = 0,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.allow = allow
        self.close = close
        """The connection cannot carry another request: its body was not read."""
        self.asked = asked
        """The number under which the router was asked; 0: it was not."""
        self.status = STATUS[kind]
        self.retry_after: int | None = max(1, math.ceil(retry_after_seconds)) if kind in RETRIED else None


class ErrorBody(TypedDict):
    """Of all routes but /v1/*."""

    error: str
    error_type: str


class OpenAIError(TypedDict):
    message: str
    type: str
    param: None
    code: str


class OpenAIErrorBody(TypedDict):
    """The error object of the OpenAI API, on /v1/*."""

    error: OpenAIError


def kinds(status: int) -> list[str]:
    """What a status may stand for."""
    return [kind for kind, one in STATUS.items() if one == status]


def body(kind: str, message: str) -> bytes:
    """An ErrorBody."""
    found: ErrorBody = {"error": _printable(message), "error_type": kind}
    return orjson.dumps(found)


def openai_body(kind: str, message: str) -> bytes:
    """An OpenAIErrorBody."""
    status = STATUS[kind]
    family = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    found: OpenAIErrorBody = {"error": {"message": _printable(message), "type": family, "param": None, "code": kind}}
    return orjson.dumps(found)


def _printable(message: str) -> str:
    """Lone surrogates cannot be written as UTF-8; a message may quote what a client sent."""
    return message.encode("utf-8", "backslashreplace").decode()
