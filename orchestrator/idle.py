"""How deeply may idle cores sleep while the orchestrator serves? A request to the kernel, held as long as the descriptor is open.

Source: Documentation/power/pm_qos_interface.rst: a signed 32-bit number of microseconds, written to the device; the smallest of
all that are held counts, for the whole host; closing the descriptor, or dying, takes the request back. Reading tells what counts.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEVICE = Path("/dev/cpu_dma_latency")
_NUMBER = struct.Struct("=i")


class NotHeld(Exception):
    """The kernel does not take the request: says why, and what to do."""


@contextmanager
def cpu_latency(microseconds: int, device: Path = DEVICE) -> Iterator[int]:
    """Until the end of the block no idle core takes longer than this to wake up; 0: it spins. Gives what the kernel says counts
    now, which is less where somebody else asks for less. NotHeld where the request is refused.
    """
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotHeld(
            f"{device} is not there: the kernel has no CPU_IDLE, or the container or service hides its devices (docker run "
            f"--device {device}); or leave cpu_latency_us out"
        ) from None
    except OSError as error:
        raise NotHeld(
            f'{device}: {error.strerror}; run as root, or let this user write to it (udev: KERNEL=="{device.name}", '
            'GROUP="…", MODE="0660"); or leave cpu_latency_us out'
        ) from None
    try:
        try:
            os.write(descriptor, _NUMBER.pack(microseconds))
            (counts,) = _NUMBER.unpack(os.pread(descriptor, _NUMBER.size, 0))
        except (OSError, struct.error) as error:
            raise NotHeld(f"{device} does not take {microseconds}: {error}; leave cpu_latency_us out") from None
        yield counts
    finally:
        os.close(descriptor)
