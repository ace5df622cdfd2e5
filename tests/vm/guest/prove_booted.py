"""Does the service that was enabled before the boot serve after it? A request may come before it is ready: it waits."""

from __future__ import annotations

from proof import check, equal, ran
from prove_unit import answers, shown, until


def prove() -> None:
    equal(
        "after a boot the socket listens", ran("systemctl", "is-active", "orchestrator.socket").stdout.strip(), "active"
    )
    check("after a boot a text is answered", answers())
    until("after a boot the service is ready", lambda: shown("ActiveState") == "active")
    equal("without a restart", shown("NRestarts"), "0")
