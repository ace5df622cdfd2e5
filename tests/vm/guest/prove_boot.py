"""Is what was enabled there again after a boot, without anybody's doing? Installs, enables, reboots; goes on in prove_booted."""

from __future__ import annotations

from pathlib import Path

from proof import check, ran, reboot
from prove_unit import install, story

FILE_SYSTEMS = """\
project /mnt/project 9p trans=virtio,version=9p2000.L,msize=262144,ro,cache=loose,nofail 0 0
/dev/vdb /mnt/site ext4 ro,nofail 0 0
"""


def prove() -> None:
    install()
    with Path("/etc/fstab").open("a") as table:
        table.write(FILE_SYSTEMS)
    with Path("/etc/systemd/system/orchestrator.service.d/emulator.conf").open("a") as override:
        override.write("[Unit]\nRequiresMountsFor=/mnt/project /mnt/site\n")  # the program is a script that leads there
    ran("systemctl", "daemon-reload")
    ran("systemctl", "stop", "orchestrator.socket", "orchestrator.service")
    enabled = ran("systemctl", "enable", "orchestrator.socket", "orchestrator.service")
    check("enable", enabled.returncode == 0, enabled.stderr + story())
    reboot("booted")
