"""How does one wait in epoll for a moment more exactly than to the millisecond? A timerfd, which epoll sees as readable."""

from __future__ import annotations

import ctypes
import os

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1


class _TimerSpec(ctypes.Structure):
    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


class Alarm:
    """Readable from the moment on that it is set to, on the clock of time.perf_counter and time.monotonic. Source: timerfd_create(2)."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def fileno(self) -> int:
        return int(self._fd)

    def set(self, at: float) -> None:
        """Forgets what it was set to before."""
        # All zero would switch it off instead of ringing at once.
        nanoseconds = max(1, round(at * 1e9))
        spec = _TimerSpec(0, 0, nanoseconds // 1_000_000_000, nanoseconds % 1_000_000_000)
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def heard(self) -> None:
        """Makes it unreadable until it is set again."""
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # it was set anew meanwhile

    def close(self) -> None:
        os.close(self._fd)
