"""What may a request bring along: how large a body, of which type, with which deadline and which id?"""

from __future__ import annotations

import asyncio
import re

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from orchestrator.gateway.errors import Refusal

LONGEST_BODY_SECONDS = 60.0
"""A client that sends slower than this has gone to sleep."""
LONGEST_TIMEOUT_MS = 86_400_000
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}").fullmatch
_UTF8 = ("utf-8", "utf8", "us-ascii")


def request_id(request: web.BaseRequest, otherwise: str) -> str:
    """`x-request-id` as sent if it is sane (1 to 128 of letters, digits and . _ : / + = @ -), else `otherwise`."""
    sent = request.headers.get("x-request-id")
    return sent if sent is not None and _REQUEST_ID(sent) else otherwise


def timeout_seconds(request: web.BaseRequest, default_ms: int) -> float:
    """From `x-request-timeout-ms`, milliseconds from arrival."""
    sent = request.headers.get("x-request-timeout-ms")
    if sent is None:
        return default_ms / 1000
    if not (sent.isascii() and sent.isdigit() and len(sent) <= 10 and int(sent) >= 1):
        raise Refusal("malformed", "x-request-timeout-ms: expected a whole number of milliseconds, at least 1")
    return min(int(sent), LONGEST_TIMEOUT_MS) / 1000


def require_json(request: web.BaseRequest, *others: str) -> None:
    """A body without a content type is taken for JSON; one of another type, `others` apart, is refused."""
    sent = request.headers.get("Content-Type")
    if sent is None or sent == "application/json":
        return
    essence, _, parameters = sent.partition(";")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters, re.IGNORECASE)
    read = ("application/json", *others)
    if essence.strip().lower() not in read:
        raise Refusal(
            "unsupported_media_type",
            f"content-type {essence.strip()[:80]!r}: this route reads {' or '.join(read)}; send -H 'content-type: {read[0]}'",
        )
    if charset is not None and charset[1].lower() not in _UTF8:
        raise Refusal("unsupported_media_type", f"charset {charset[1][:40]!r}: JSON is read as utf-8")


def is_image(request: web.BaseRequest) -> bool:
    """Whether the body is an image and not JSON, by its content type."""
    return request.headers.get("Content-Type", "").lstrip().lower().startswith("image/")


async def read_body(request: web.BaseRequest, limit: int) -> bytes:
    """The whole body, decompressed. Never holds more than `limit` bytes and one chunk, whatever the headers claim."""
    announced = request.content_length
    if announced is not None and announced > limit:
        raise _too_large(limit)
    content = request.content
    if content.is_eof():  # the usual case: headers and body came in one packet
        whole = content.read_nowait()
        if len(whole) > limit:
            raise _too_large(limit)
        return whole
    expect = request.headers.get("Expect")
    if expect is not None and expect.lower() == "100-continue" and request.version == HttpVersion11:
        if request.transport is None:
            raise ConnectionResetError("the client has gone")
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = bytearray()
    try:
        async with asyncio.timeout(LONGEST_BODY_SECONDS):
            while chunk := await content.readany():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise Refusal(
            "body_timeout", f"the body did not arrive within {LONGEST_BODY_SECONDS:.0f} s", close=True
        ) from None
    except (HttpProcessingError, web.RequestPayloadError) as error:
        raise Refusal("malformed", f"the body cannot be read: {error}", close=True) from None
    return bytes(body)


def _too_large(limit: int) -> Refusal:
    return Refusal(
        "body_too_large", f"the body is over the limit of {limit} bytes; send fewer or shorter texts", close=True
    )
