"""Is the request to the kernel held as long as it should be, and a refusal told with what to do?"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.idle import DEVICE, NotHeld, cpu_latency


def counts_now() -> int:
    (microseconds,) = struct.unpack("=i", DEVICE.read_bytes()[:4])
    return int(microseconds)


@pytest.fixture
def before() -> int:
    """What counts without us; the test is left out where the device cannot be read."""
    try:
        return counts_now()
    except OSError as error:
        pytest.skip(f"{DEVICE}: {error.strerror}")


def test_the_kernel_is_asked_until_the_block_ends(before: int) -> None:
    with cpu_latency(7) as counts:
        assert counts == counts_now() == min(7, before)
    assert counts_now() == before


def test_a_device_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    said = r"nowhere is not there: .*docker run --device .*leave cpu_latency_us out"
    with pytest.raises(NotHeld, match=said), cpu_latency(0, tmp_path / "nowhere"):
        pass


def test_a_device_that_may_not_be_opened_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotHeld, match=r"Is a directory; run as root, or .*udev"), cpu_latency(0, tmp_path):
        pass


def test_something_that_does_not_take_the_number_is_no_such_device() -> None:
    with pytest.raises(NotHeld, match=r"/dev/full does not take 0: .*No space left"), cpu_latency(0, Path("/dev/full")):
        pass


def test_an_orchestrator_that_is_killed_leaves_the_host_as_it_was(
    start_system: Callable[..., Any], before: int
) -> None:
    system = start_system("--instances", "1", "--cpu-latency-us", "5")
    assert counts_now() == min(5, before)
    assert f"idle cores of this host wake up within {min(5, before)} µs" in system.said()
    system.process.kill()
    system.process.wait()
    assert counts_now() == before
