"""What if somebody sets the clock while it runs? Nobody notices: only what is shown to people is the time of day."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

YEAR = 365 * 86_400.0


def test_a_clock_that_jumps_years_ahead_and_back_ends_no_wait_and_holds_none_up(
    start_system: Callable[..., Any], load_on: Callable[[Any], Any], faults: Any, all_right: Any
) -> None:
    system = start_system("--instances", "2", environment=faults.environment)
    load = load_on(system)
    load.start()
    load.until_answered(20)
    began = system.status()
    for deaths, jump in enumerate((YEAR, -10 * YEAR, 0.0), 1):
        faults.want("wall-clock", str(jump))
        status = system.until(
            "the clock has jumped", lambda status, jump=jump: abs(status.time_unix - began.time_unix - jump) < 3600
        )
        assert 0 <= status.uptime_seconds - began.uptime_seconds < 120
        os.kill(system.pids()["short-0"], signal.SIGKILL)
        load.until_answered(20)
        system.until(
            "the worker is back",
            lambda status, deaths=deaths: status.state == "ready" and status.instances[0].restarts == deaths,
        )
    all_right(load.stop())
    status = system.status()
    assert [one.restarts for one in status.instances] == [3, 0]
    assert (status.router.restarts, status.gateways[0].restarts) == (0, 0)
    assert system.stop() == 0
