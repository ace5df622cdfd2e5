"""How does a command end that cannot do what it was asked? Pure."""

from __future__ import annotations

FAILED = 1
"""Failed while running."""
USAGE = 2
"""Wrong usage or arguments."""
UNWORKABLE = 78
"""A configuration or layout that cannot work; a service manager must not retry it (EX_CONFIG of sysexits.h)."""


class CommandError(Exception):
    """Printed to standard error without a traceback: what, where, why, what to do next."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
