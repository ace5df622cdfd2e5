"""How does a test make a part of the real program fail at a moment that no signal from outside can hit?

Python imports a module of this name at its start, if it is on PYTHONPATH; so nothing in the product knows of it. Files in the folder
$FAULTS say what is to go wrong:
  exit-in-batch    the worker that computes the next batch takes the file away and exits with 7 instead of answering
  exit-on-tokens   a worker exits with 7 whenever the ids of a batch contain the ones in this file, one after the other
  exit-at-start    the worker whose name is in this file exits with 7 before it has loaded anything
  vanish           a worker, once bound and before it loads the model, removes the folder that this file names
  wall-clock       time.time() is off by the seconds in this file, in every process
"""

from __future__ import annotations

import array
import importlib.abc
import importlib.util
import os
import shutil
import sys
import time
from pathlib import Path

FAULTS = Path(os.environ["FAULTS"])
real_time = time.time


def said(name: str) -> str | None:
    try:
        return (FAULTS / name).read_text()
    except FileNotFoundError:
        return None


def wall_clock() -> float:
    return real_time() + float(said("wall-clock") or 0)


def in_worker_loop(module) -> None:
    compute = module.Worker._compute

    def and_then_perhaps_exit(self, batch):
        rows = compute(self, batch)
        tokens = said("exit-on-tokens")
        if tokens is not None and array.array("i", map(int, tokens.split())).tobytes() in bytes(batch.ids):
            os._exit(7)
        try:
            (FAULTS / "exit-in-batch").unlink()
        except FileNotFoundError:
            return rows
        os._exit(7)

    module.Worker._compute = and_then_perhaps_exit


def in_bind(module) -> None:
    bind = module.bind

    def bind_and_perhaps_remove(*args):
        bound = bind(*args)
        if (name := said("exit-at-start")) is not None and name in sys.orig_argv:
            print("the test wants this worker to fail", flush=True)
            os._exit(7)
        if (folder := said("vanish")) is not None:
            shutil.rmtree(folder, ignore_errors=True)
        return bound

    module.bind = bind_and_perhaps_remove


class Finder(importlib.abc.MetaPathFinder):
    """Lets one module be imported as ever, and changes it then."""

    def __init__(self, name: str, change) -> None:
        self.name = name
        self.change = change

    def find_spec(self, name, path, target=None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_change(module) -> None:
            execute(module)
            self.change(module)

        spec.loader.exec_module = execute_and_change
        return spec


time.time = wall_clock
if "workers" in sys.orig_argv:
    sys.meta_path.insert(0, Finder("workers.loop", in_worker_loop))
    sys.meta_path.insert(0, Finder("workers.bind", in_bind))
