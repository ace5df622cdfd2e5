"""How do commands reach the running supervisor? A unix socket; one JSON line asks, lines of progress follow, one answers."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

LONGEST_REQUEST = 64 << 10
REQUEST_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""A client that does not read its answer for so long is let go."""
FIRST_LINE_SECONDS = 10.0
"""Whoever is not stopped or hung says within so long that he has begun."""
LONGEST_ANSWER = 64 << 20
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


class Request(msgspec.Struct, frozen=True):
    command: str
    arguments: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True):
    ok: bool
    error: str | None = None
    body: msgspec.Raw = msgspec.Raw(b"null")
    exit_code: int = 1
    """What the command ends with where it is not ok."""


class Progress(msgspec.Struct, frozen=True):
    """A line before the answer."""

    progress: str


class ControlError(Exception):
    """Nobody answers, or the answer is a refusal: says where and what to do."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Caller:
    """Who asks. What he asked for goes on if he hangs up: half a rolling restart is worse than a whole one."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        connection = writer.get_extra_info("socket")
        pid, uid, _ = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        self.who = f"pid {pid} of user {uid}"

    def tell(self, line: str) -> None:
        """One line of progress, if he still listens."""
        if not self._writer.is_closing():
            self._writer.write(msgspec.json.encode(Progress(line)) + b"\n")


Handler = Callable[[Request, Caller], Awaitable[Answer]]


async def serve(path: Path, handler: Handler) -> asyncio.Server:
    """Listens on `path` (mode 0600). What is no request gets an error as its answer and disturbs nobody else."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await _answer(reader, Caller(writer), handler)
            writer.write(msgspec.json.encode(answer) + b"\n")
            async with asyncio.timeout(ANSWER_SECONDS):
                await writer.drain()
        except (ConnectionError, TimeoutError):
            return  # it hung up; nothing of ours depends on it
        finally:
            writer.close()

    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(client, path, limit=LONGEST_REQUEST)
    path.chmod(0o600)
    return server


async def _answer(reader: asyncio.StreamReader, caller: Caller, handler: Handler) -> Answer:
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
    return await handler(request, caller)


def ask(
    path: Path,
    command: str,
    *,
    timeout: float | None = 10.0,
    on_progress: Callable[[str], None] = lambda line: None,  # noqa: ARG005
    arguments: dict[str, Any] | None = None,
    **more: Any,
) -> bytes:
    """Sends one request and returns the body of the answer as JSON. Blocking. ControlError as said.

    :param timeout: seconds until the answer; None waits for as long as it takes, once a first line has come within
        FIRST_LINE_SECONDS
    :param on_progress: gets the lines that come before the answer
    """
    until = None if timeout is None else time.monotonic() + timeout
    received = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(FIRST_LINE_SECONDS if timeout is None else timeout)
            connection.connect(str(path))
            connection.sendall(msgspec.json.encode(Request(command, {**(arguments or {}), **more})) + b"\n")
            while True:
                line, end, rest = received.partition(b"\n")
                if end:
                    answer = _answer_in(bytes(line), path)
                    if isinstance(answer, Answer):
                        break
                    on_progress(answer.progress)
                    received = rest
                    if until is None:
                        connection.settimeout(None)
                    continue
                if until is not None:
                    connection.settimeout(max(0.001, until - time.monotonic()))
                data = connection.recv(1 << 16)
                if not data:
                    raise ControlError(
                        f"the supervisor at {path} has ended before it answered; `orchestrator status` says whether it is there"
                    )
                received += data
                if len(received) > LONGEST_ANSWER:
                    raise ControlError(f"the answer from {path} is longer than {LONGEST_ANSWER} bytes")
        except (FileNotFoundError, ConnectionRefusedError):
            raise ControlError(
                f"no orchestrator runs here ({path} does not answer); start one with `orchestrator up`, "
                "or name its folder with --runtime-dir"
            ) from None
        except PermissionError:
            raise ControlError(f"{path} belongs to another user; run this command as that user") from None
        except TimeoutError:
            raise ControlError(
                f"the supervisor at {path} did not answer within {timeout or FIRST_LINE_SECONDS:g} s; it may be stopped or hung"
            ) from None
        except OSError as error:
            raise ControlError(f"{path}: {error.strerror or error}") from None
    if not answer.ok:
        raise ControlError(answer.error or "refused without a reason", answer.exit_code)
    return bytes(answer.body)


def _answer_in(line: bytes, path: Path) -> Answer | Progress:
    try:
        return (
            msgspec.json.decode(line, type=Progress)
            if line.startswith(b'{"progress"')
            else (msgspec.json.decode(line, type=Answer))
        )
    except msgspec.DecodeError as error:
        raise ControlError(f"the answer from {path} cannot be read: {error}; is it of another version?") from None
