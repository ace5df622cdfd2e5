"""Which proofs run in this guest? Those named; each in its own module `prove_NAME`, ended by an error or not, none hides another."""

from __future__ import annotations

import importlib
import sys
import traceback

from proof import AFTER_BOOT, REBOOT, Reboot, failures


def main(names: list[str]) -> int:
    if (AFTER_BOOT / "next").exists():
        names = [(AFTER_BOOT / "next").read_text()]
        failures.extend((AFTER_BOOT / "failures").read_text().splitlines())
    for name in names:
        print(f"--- {name}")
        try:
            importlib.import_module(f"prove_{name}").prove()
        except Reboot as after:
            AFTER_BOOT.mkdir(exist_ok=True)
            (AFTER_BOOT / "next").write_text(str(after))
            (AFTER_BOOT / "failures").write_text("\n".join(failures))
            return REBOOT
        except Exception:  # noqa: BLE001 - the outermost frame of a proof: it is told and counted
            traceback.print_exc(file=sys.stdout)
            failures.append(f"{name} ended by an error")
    print(f"{len(failures)} failed" + "".join(f"\n  {what}" for what in failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
