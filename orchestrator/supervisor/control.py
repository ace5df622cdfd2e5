"""How do `status` and `down` reach the running supervisor? A unix socket; one JSON line asks, one JSON line answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

LONGEST_REQUEST = 64 << 10
REQUEST_SECONDS = 5.0


class Request(msgspec.Struct, frozen=True):
    command: str
    arguments: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True):
    ok: bool
    error: str | None = None
    body: msgspec.Raw = msgspec.Raw(b"null")


class ControlError(Exception):
    """Nobody answers, or the answer is a refusal: says where and what to do."""


Handler = Callable[[Request], Awaitable[Answer]]


async def serve(path: Path, handler: Handler) -> asyncio.Server:
    """Listens on `path` (mode 0600). What is no request gets an error as its answer and disturbs nobody else."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await _answer(reader, handler)
            writer.write(msgspec.json.encode(answer) + b"\n")
            await writer.drain()
        except (ConnectionError, TimeoutError):
            return  # it hung up; nothing of ours depends on it
        finally:
            writer.close()

    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(client, path, limit=LONGEST_REQUEST)
    path.chmod(0o600)
    return server


async def _answer(reader: asyncio.StreamReader, handler: Handler) -> Answer:
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            line = await reader.readline()
    except TimeoutError:
        return Answer(False, f"no request came within {REQUEST_SECONDS:g} s")
    except ValueError:
        return Answer(False, f"the request is longer than {LONGEST_REQUEST} bytes")
    try:
        request = msgspec.json.decode(line, type=Request)
    except msgspec.DecodeError as error:
        return Answer(False, f"not a request: {error}")
    return await handler(request)


def ask(path: Path, command: str, *, timeout: float = 10.0, **arguments: Any) -> bytes:
    """Sends one request and returns the body of the answer as JSON. Blocking. ControlError as said."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
            connection.sendall(msgspec.json.encode(Request(command, arguments)) + b"\n")
            received = bytearray()
            while not received.endswith(b"\n"):
                data = connection.recv(1 << 16)
                if not data:
                    break
                received += data
        except (FileNotFoundError, ConnectionRefusedError):
            raise ControlError(
                f"no orchestrator runs here ({path} does not answer); start one with `orchestrator up`, "
                "or name its folder with --runtime-dir"
            ) from None
        except PermissionError:
            raise ControlError(f"{path} belongs to another user; run this command as that user") from None
        except TimeoutError:
            raise ControlError(
                f"the supervisor at {path} did not answer within {timeout:g} s; it may be stopped or hung"
            ) from None
        except OSError as error:
            raise ControlError(f"{path}: {error.strerror or error}") from None
    try:
        answer = msgspec.json.decode(bytes(received), type=Answer)
    except msgspec.DecodeError as error:
        raise ControlError(f"the answer from {path} cannot be read: {error}; is it of another version?") from None
    if not answer.ok:
        raise ControlError(answer.error or "refused without a reason")
    return bytes(answer.body)
