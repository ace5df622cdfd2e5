"""How does an orchestrator that is benchmarked die with the benchmark? `python -m orchestrator.bench.tethered PID WORD…`

Becomes `orchestrator WORD…` after asking the kernel to kill it when its parent, PID, dies: what the kernel was asked outlives execve(2).
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from workers.channel import SupervisorGone, die_with_parent


def main() -> NoReturn:
    try:
        die_with_parent(int(sys.argv[1]))
    except SupervisorGone as error:
        sys.exit(f"not started: {error}")
    os.execv(sys.executable, [sys.executable, "-m", "orchestrator.cli.main", *sys.argv[2:]])


if __name__ == "__main__":
    main()
