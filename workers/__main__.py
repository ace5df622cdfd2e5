"""How does a worker start? Bind first, then import the engine, load, warm up, say ready, serve."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from workers.bind import BindError, bind
from workers.channel import Channel, ChannelError, SupervisorGone
from workers.isolated import isolated_cpus, spread, threads
from workers.said import say
from workers.spec import Binding, Fatal, Ready, WorkerSpec


def main() -> int:
    started = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="python -m workers", description="One model instance; started by the supervisor."
    )
    parser.add_argument("--channel", type=int, required=True, help="file descriptor of this child's end of the channel")
    parser.add_argument("--name", default="", help="shown by ps")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    channel = Channel(args.channel)
    try:
        spec = msgspec.json.decode(channel.start().spec, type=WorkerSpec)
        return _serve(spec, channel, started)
    except SupervisorGone:
        return 1
    except (ChannelError, msgspec.DecodeError) as error:
        print(f"the supervisor's first message is no specification: {error}", file=sys.stderr)
        return 2


def _serve(spec: WorkerSpec, channel: Channel, started: float) -> int:
    try:
        binding = bind(spec.cpus, spec.membind, spec.nodes_on_machine)
    except BindError as error:
        channel.send(Fatal(str(error), permanent=True))
        return 78
    # Only now: the first touch of every page of numpy and of the engine shall happen on the bound node.
    from workers.costs import costs_of
    from workers.engines.base import EngineError, LoadError
    from workers.engines.chosen import load
    from workers.loop import Worker
    from workers.warmup import warm_up

    try:
        if spec.artefact is not None and not Path(spec.artefact.path).is_file():
            raise LoadError(f"{spec.artefact.path}: no model there any more; the next `orchestrator up` makes it anew")
        before = threads()
        engine = load(spec)
        warm_up(engine, spec)
        # Before anything is measured: on isolated CPUs all of the engine's threads would share one.
        binding = Binding(binding.policy, [*binding.notes, *spread(spec.cpus, isolated_cpus(), before)])
        costs = costs_of(engine, spec, say)
    except (LoadError, EngineError) as error:
        channel.send(Fatal(str(error)))
        return 1
    Worker(spec, engine, channel, costs).run(os.getpid(), Ready(time.monotonic() - started, binding))
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is answered and said. What is left is to take the engine apart, and there OpenVINO 2026.4 ends one process in ten with
    # SIGABRT ("terminate called without an active exception"): the kernel takes it apart better.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
