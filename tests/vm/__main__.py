"""Does placement hold on a real kernel with several sockets and NUMA nodes? Boots each machine and runs its proofs in it as root.

    python tests/vm [--proof NAME] [MACHINE …]

Exit status: 0 all proofs held; 1 one did not; 3 this machine cannot run them, with the reason.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from image import PROJECT, CannotError, Image, cache_folder, prepare
from machines import SHAPES, qemu


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/vm", description=__doc__.splitlines()[0])
    parser.add_argument("machines", nargs="*", metavar="MACHINE", help=f"of: {', '.join(SHAPES)} (default: all)")
    parser.add_argument("--proof", action="append", help="only this proof (may be repeated)")
    parser.add_argument("--minutes", type=float, default=20, help="deadline of one machine (default: 20)")
    args = parser.parse_args()
    for name in args.machines:
        if name not in SHAPES:
            parser.error(f"no machine {name!r}; there are {', '.join(SHAPES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` ends the machine
    try:
        image = prepare(lambda line: print(line, flush=True))
    except CannotError as error:
        print(f"cannot run the proofs here: {error}", file=sys.stderr)
        return 3
    failed = [
        name
        for name in args.machines or SHAPES
        if not run(name, image, args.proof or list(SHAPES[name].proofs), args.minutes)
    ]
    print(f"FAILED on: {', '.join(failed)}" if failed else "all proofs held")
    return 1 if failed else 0


def run(name: str, image: Image, proofs: list[str], minutes: float) -> bool:
    """Boots one machine and shows what its proofs say. What it leaves (captures, logs, the console) is kept in the cache folder."""
    kept = cache_folder() / "out" / name
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    print(f"\n=== {name}: {SHAPES[name].about}: {' '.join(proofs)}", flush=True)
    started = time.monotonic()
    machine = subprocess.Popen(
        qemu(SHAPES[name], image, str(PROJECT), str(kept), proofs),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    deadline = threading.Timer(minutes * 60, machine.kill)
    deadline.start()
    status = None
    try:
        assert machine.stdout is not None
        for line in machine.stdout:
            print(f"{time.monotonic() - started:6.1f} {line.rstrip()}", flush=True)
            if (end := re.match(r"exit status: (\d+)", line)) is not None:
                status = int(end[1])
    finally:
        deadline.cancel()
        machine.kill()
        machine.wait()
    if status is None:
        print(f"the machine ended without a result; the last lines of its console ({kept}/console):")
        print("\n".join((kept / "console").read_text(errors="replace").splitlines()[-15:]))
        return False
    archive = kept / "machine.tar.gz"
    return (not archive.exists() or _reads_back(archive)) and status == 0


def _reads_back(archive: Path) -> bool:
    """A capture made in the guest, read on this host, is the machine that the guest saw."""
    seen = archive.with_name(archive.name.removesuffix(".tar.gz") + ".json")
    with tempfile.TemporaryFile("w+") as read:
        subprocess.run(
            [sys.executable, "-m", "orchestrator.cli.main", "topology", "--json", "--sysroot", str(archive)],
            stdout=read, cwd=PROJECT, check=False,
        )  # fmt: skip
        read.seek(0)
        same = read.read() == seen.read_text()
    print(f"{'ok  ' if same else 'FAIL'} host: {archive.name} reads back as the machine that the guest saw", flush=True)
    return same


if __name__ == "__main__":
    sys.exit(main())
