"""What does the guest boot from? Kernel, initrd and two disks, made once from Debian packages and kept in a cache folder.

`root.ext4` is Debian 12 (systemd, Python 3.11, numactl, libnuma1); `site.ext4` holds the Python packages that the product needs, so that
the guest needs no network. Each is named by a digest of what went into it: a change of the lists makes it anew, nothing else does.
The model has many bytes and little to compute (an emulated CPU builds MiniLM in seven minutes): its pages show where memory lies.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
GUEST_PYTHON = "3.11"
PACKAGES = (
    "linux-image-amd64", "initramfs-tools", "systemd", "systemd-sysv", "libnss-systemd", "udev", "dbus", "kmod",
    "python3", "numactl", "libnuma1", "util-linux", "procps",
)  # fmt: skip
TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "debootstrap": "debootstrap", "mke2fs": "e2fsprogs"}
UNUSED_MODULES = (
    "arch",
    "sound",
    *(f"drivers/{name}" for name in ("gpu", "media", "net", "iio", "staging", "infiniband")),
)
"""Not needed in a machine without devices; those below `arch` udev would try once per CPU, which takes minutes in an emulator."""
JOB_UNIT = """\
[Unit]
Description=What the host asked for, then power off
After=basic.target dbus.socket
[Service]
Type=exec
ExecStart=/bin/sh /usr/local/lib/job
[Install]
WantedBy=multi-user.target
"""
JOB = """\
modprobe -a 9p 9pnet_virtio
mkdir -p /mnt/project
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,ro,cache=loose project /mnt/project
exec sh /mnt/project/tests/vm/guest/job.sh
"""


MODEL_SHAPE = {"vocab_size": 640_000, "max_position_embeddings": 512}
"""80 MB of embeddings, and two layers of width 32."""
MODEL_MAKER = """\
import json, runpy, sys
from pathlib import Path
from orchestrator.models import prepare
models = runpy.run_path("tests/data/models/tiny_models.py")
folder = Path(sys.argv[1])
case = models["CASES"]["bert-mean-normalised"]
if not (folder / "large").exists():
    models["write"](folder / "large", {**case, "config": case["config"] | json.loads(sys.argv[2])})
prepare(str(folder / "large"), precision="fp32", cache=folder / "artefacts")
"""


class CannotError(Exception):
    """This machine cannot run the proofs: says what is missing and what to do."""


@dataclass(frozen=True)
class Image:
    kernel: Path
    initrd: Path
    root: Path
    site: Path
    model: Path
    """A folder: the model's directory `large`, and the cache `artefacts` with what was built of it."""


def cache_folder() -> Path:
    """$ORCHESTRATOR_VM_CACHE, else a folder in the user's cache; about 3 GB."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("ORCHESTRATOR_VM_CACHE") or Path(base) / "orchestrator-vm")


def prepare(say: Callable[[str], None]) -> Image:
    """The image, made if it is not there. CannotError says what is missing."""
    if platform.machine() != "x86_64":
        raise CannotError(
            f"the guests are x86_64 machines with this host's packages, and this host is {platform.machine()}"
        )
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool, path=_path()) is None]
    if missing:
        raise CannotError(f"missing: {', '.join(missing)}; install: apt-get install {' '.join(missing)}")
    cache = cache_folder()
    root = cache / f"root-{_digest(SUITE, *PACKAGES, *UNUSED_MODULES, JOB_UNIT, JOB)}"
    dependencies = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    pins = [PROJECT / "requirements" / name for name in ("constraints.txt", "model.txt")]
    site = cache / f"site-{_digest(GUEST_PYTHON, *dependencies, *(pin.read_text() for pin in pins))}"
    if not root.exists():
        if os.getuid() != 0:
            raise CannotError("making the Debian image needs root (debootstrap); run it once as root")
        say(f"making {root} (debootstrap; some minutes)")
        _whole(root, _make_root)
    if not site.exists():
        say(f"making {site} (pip)")
        _whole(site, lambda folder: _make_site(folder, dependencies, *pins))
    model = cache / f"model-{_digest(str(MODEL_SHAPE))}"
    if not model.exists():
        _whole(model, _make_model)
    else:
        _make_model(model)  # what was built of it may be of an older builder
    return Image(root / "vmlinuz", root / "initrd.img", root / "root.ext4", site / "site.ext4", model)


def _make_root(folder: Path) -> None:
    tree = folder / "tree"
    mirror = _mirror()
    # In mount points of its own: a debootstrap that is killed leaves no /proc of this host below a folder that we remove.
    include = f"--include={','.join(PACKAGES)}"
    _run(["unshare", "--mount", "debootstrap", "--variant=minbase", include, SUITE, str(tree), mirror], "debootstrap")
    modules = next((tree / "usr/lib/modules").iterdir())
    for name in UNUSED_MODULES:
        shutil.rmtree(modules / "kernel" / name, ignore_errors=True)
    (tree / "etc/initramfs-tools/modules").write_text("virtio_pci\nvirtio_blk\next4\n")
    settings = tree / "etc/initramfs-tools/initramfs.conf"
    settings.write_text(settings.read_text().replace("MODULES=most", "MODULES=list"))
    (tree / "etc/fstab").write_text("/dev/vda / ext4 noatime 0 0\n")
    (tree / "etc/hostname").write_text("guest\n")
    (tree / "etc/systemd/system/job.service").write_text(JOB_UNIT)
    (tree / "usr/local/lib/job").write_text(JOB)
    _run(["chroot", str(tree), "depmod", modules.name], "depmod")
    _run(["chroot", str(tree), "update-initramfs", "-u", "-k", modules.name], "update-initramfs")
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "job.service").symlink_to("../job.service")
    shutil.copy(tree / "boot" / f"vmlinuz-{modules.name}", folder / "vmlinuz")
    shutil.copy(tree / "boot" / f"initrd.img-{modules.name}", folder / "initrd.img")
    for name in ("var/cache/apt/archives", "var/lib/apt/lists", "boot", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(tree / name, ignore_errors=True)
    _disk(tree, folder / "root.ext4", "2G")


def _make_site(folder: Path, dependencies: list[str], constraints: Path, model: Path) -> None:
    tree = folder / "tree"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"--target={tree}",
           f"--python-version={GUEST_PYTHON}", "--only-binary=:all:"]  # fmt: skip
    _run([*pip, f"--constraint={constraints}", *dependencies], "pip")
    _run([*pip, "--no-deps", f"--requirement={model}"], "pip")
    _disk(tree, folder / "site.ext4", "2G")


def _make_model(folder: Path) -> None:
    _run([sys.executable, "-c", MODEL_MAKER, str(folder), json.dumps(MODEL_SHAPE)], "building the model")


def _disk(tree: Path, disk: Path, size: str) -> None:
    _run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(tree), str(disk), size], "mke2fs")
    shutil.rmtree(tree)


def _whole(folder: Path, make: Callable[[Path], None]) -> None:
    """A folder of this name exists only when it is whole."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    make(partial)
    partial.rename(folder)


def _mirror() -> str:
    """The mirror that this host's apt uses for the suite, else Debian's own."""
    if shutil.which("apt-get") is None:
        raise CannotError(
            "no apt-get here: the image is made from Debian packages; run this on a Debian or Ubuntu host"
        )
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)"], capture_output=True, text=True, check=False
    )
    found = [line.split()[1] for line in listed.stdout.splitlines() if line.startswith(f"{SUITE} ")]
    return found[0] if found else "http://deb.debian.org/debian"


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, "PATH": _path()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotError(f"{what} failed ({done.returncode}):\n{done.stdout[-2000:]}")


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where Debian keeps debootstrap and mke2fs


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
