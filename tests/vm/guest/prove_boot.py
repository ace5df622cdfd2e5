"""Is what was enabled there again after a boot, without anybody's doing? Installs, enables, reboots; goes on in prove_booted."""

from __future__ import annotations

from proof import check, ran, reboot
from prove_unit import install, story


def prove() -> None:
    install()
    ran("systemctl", "stop", "orchestrator.socket", "orchestrator.service")
    enabled = ran("systemctl", "enable", "orchestrator.socket", "orchestrator.service")
    check("enable", enabled.returncode == 0, enabled.stderr + story())
    reboot("booted")
