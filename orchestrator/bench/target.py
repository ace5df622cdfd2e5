"""Which server gets the load, and what does it take? Asked before anything is measured, as a client would."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.bench.load import post_request

ASK_SECONDS = 15.0
_TRIAL = "The ferry leaves at nine."
ROUTES = {
    "sentence-embedding": "/embed",
    "feature-extraction": "/predict",
    "text-classification": "/predict",
    "token-classification": "/predict",
    "question-answering": None,
    "zero-shot-classification": None,
    "reranking": None,
    "fill-mask": None,
    "image-classification": None,
}
"""Task → the route that takes one text of any length; None: there is none."""
_MODEL_TYPES = {"embedding": "/embed", "classifier": "/predict"}
"""As text-embeddings-inference names them in /info."""


class TargetError(Exception):
    """No load can be put on this server: says which, why and what to do."""


class WrongUsage(TargetError):
    """A URL or a file that nobody could use."""


@dataclass(frozen=True)
class Target:
    """A server that has answered one text with 200."""

    url: str
    host: str
    port: int
    prefix: str
    """Of the path, where a proxy has one."""
    route: str
    headers: tuple[str, ...]
    model: str
    task: str
    longest: int | None
    """Tokens; None where it does not say."""

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def request(self, text: str) -> bytes:
        return post_request(self.host, self.port, self.prefix + self.route, {"inputs": text}, self.headers)


def read_key(path: Path) -> str:
    """The first key of a file such as `keys_file` names. WrongUsage."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise WrongUsage(f"{path}: {error.strerror}; name a file with a key on its first line") from None
    except UnicodeDecodeError:
        raise WrongUsage(f"{path}: not a text; name a file with a key on its first line") from None
    keys = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if not keys or not keys[0].isascii() or not keys[0].isprintable():
        raise WrongUsage(
            f"{path}: holds no key of printable ASCII characters; name a file with a key on its first line"
        )
    return keys[0]


def probe(url: str, key: str | None = None) -> Target:
    """What the server says of itself, and whether it answers a text. TargetError."""
    host, port, prefix = _parts(url)
    headers = () if key is None else (f"Authorization: Bearer {key}",)
    status, body = _ask(url, host, port, "GET", f"{prefix}/info", headers)
    if status != 200:
        raise TargetError(_refused(url, "/info", status, body))
    try:
        info = json.loads(body)
        model, task = str(info["model_id"]), str(info.get("task", ""))
        kinds = list(info.get("model_type") or {})
        longest = info.get("max_input_length")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise TargetError(
            f"{url}: what it answers to /info is not what an orchestrator or text-embeddings-inference says; is it one?"
        ) from None
    route = ROUTES[task] if task in ROUTES else _MODEL_TYPES.get(kinds[0] if kinds else "")
    if route is None:
        able = ", ".join(name for name, path in ROUTES.items() if path)
        raise TargetError(f"{url}: serves {task or kinds or 'nothing known'}; load of texts alone is for {able}")
    found = Target(url, host, port, prefix, route, headers, model, task, longest if isinstance(longest, int) else None)
    status, body = _ask(url, host, port, "POST", prefix + route, headers, json.dumps({"inputs": _TRIAL}).encode())
    if status != 200:
        raise TargetError(_refused(url, route, status, body))
    return found


def _parts(url: str) -> tuple[str, int, str]:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or 80
    except ValueError as error:
        raise WrongUsage(f"{url}: {error}; write it as http://HOST:PORT") from None
    if parts.scheme != "http":
        raise WrongUsage(f"{url}: {parts.scheme} is not measured, only http; write it as http://HOST:PORT")
    if not parts.hostname or parts.query or parts.fragment or parts.username:
        raise WrongUsage(f"{url}: write it as http://HOST:PORT, a key goes into --key-file")
    return parts.hostname, port, parts.path.rstrip("/")


def _ask(
    url: str, host: str, port: int, method: str, path: str, headers: Sequence[str], body: bytes | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=ASK_SECONDS)
    given = dict(line.split(": ", 1) for line in headers)
    if body is not None:
        given["Content-Type"] = "application/json"
    try:
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        return answer.status, answer.read(1 << 20)
    except TimeoutError:
        raise TargetError(f"{url}: no answer to {path} within {ASK_SECONDS:g} s") from None
    except http.client.RemoteDisconnected:
        raise TargetError(f"{url}: it hung up on {path} without an answer; is the port right?") from None
    except http.client.HTTPException as error:
        raise TargetError(
            f"{url}: its answer to {path} is no HTTP ({type(error).__name__}); is the port right?"
        ) from None
    except OSError as error:
        raise TargetError(
            f"{url}: nobody answers: {error.strerror or error}; start one with `orchestrator up`, or leave --url out"
        ) from None
    finally:
        connection.close()


def _refused(url: str, path: str, status: int, body: bytes) -> str:
    said = " ".join(body[:200].decode("utf-8", "replace").split())
    what = f"{url}: {path} answers {status}" + (f" ({said})" if said else "")
    if status == 401:
        return f"{what}; it wants a key, or another: --key-file FILE"
    if status in (429, 503):
        return f"{what}; it is busy or not ready: a measurement wants it idle and ready, `orchestrator status` says what it does"
    return f"{what}; is this an orchestrator?"
