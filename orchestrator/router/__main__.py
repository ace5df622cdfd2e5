"""How does the router process start? Its specification comes over the channel; ready once both sockets are bound."""

from __future__ import annotations

import argparse
import gc
import signal
import sys
import time
from collections.abc import Sequence

import msgspec

from orchestrator.router.loop import RouterLoop, log
from orchestrator.router.ports import BindError
from orchestrator.router.spec import RouterSpec
from orchestrator.settle import settle
from workers.channel import Channel, ChannelError, SupervisorGone
from workers.spec import Fatal, Ready

FAILED, USAGE, UNWORKABLE = 1, 2, 78


def main(argv: Sequence[str] | None = None) -> int:
    started = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator.router", description="The router; started by the supervisor.", allow_abbrev=False
    )
    parser.add_argument("--channel", type=int, required=True, help="file descriptor of this child's end of the channel")
    parser.add_argument("--name", default="", help="shown by ps")
    args = parser.parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor steers by the channel
    channel = Channel(args.channel)
    try:
        spec = msgspec.json.decode(channel.start().spec, type=RouterSpec)
        return _serve(spec, channel, started)
    except SupervisorGone:
        return FAILED
    except msgspec.DecodeError as error:
        channel.send(Fatal(f"the router's specification cannot be read: {error}", permanent=True))
        return UNWORKABLE
    except ChannelError as error:
        log(f"the channel does not carry the supervisor's messages: {error}")
        return USAGE


def _serve(spec: RouterSpec, channel: Channel, started: float) -> int:
    for refused in settle(spec.cpus):  # before ZeroMQ starts its thread
        log(refused)
    loop = RouterLoop(spec, channel)
    try:
        try:
            loop.bind()
        except BindError as error:
            channel.send(Fatal(str(error)))
            return FAILED
        # What lives long is never looked at again, and what dies young dies by its reference count: a full collection
        # in the middle of traffic would cost milliseconds and find nothing.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        channel.send(Ready(time.monotonic() - started, details={"boot": loop.boot}))
        log(
            f"ready after={time.monotonic() - started:.2f}s front={spec.front} back={spec.back} policy={spec.plan.policy}"
        )
        loop.run()
    except SupervisorGone:
        raise
    except Exception as error:
        # The task's outermost frame: the story goes to the log, and the supervisor starts a new router.
        for now, event, actions in list(loop.core.story)[-20:]:
            log(f"story now={now:.6f} {_brief(event)} -> {[_brief(action) for action in actions]}")
        log(f"ends: {type(error).__name__}: {error}")
        raise
    finally:
        loop.close()
    return 0


def _brief(thing: object) -> str:
    return repr(thing)[:200]


if __name__ == "__main__":
    sys.exit(main())
