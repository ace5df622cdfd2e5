"""Which keys may ask? A file with one on each line, of which the gateways get fingerprints only.

The file is read at the start and at each reload. Empty lines and those that begin with # are passed over.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

SHORTEST = 16
"""Characters of a key: what can be guessed guards nothing."""


class KeysError(Exception):
    """The file cannot be used: says which, where in it, why and what to do."""


def fingerprint(key: str) -> str:
    """What is kept of a key: SHA-256, which tells nothing of a key that is long and random."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(path: Path) -> tuple[str, ...]:
    """The fingerprints of all keys in the file, sorted. KeysError."""
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8")
    except OSError as error:
        raise KeysError(f"keys_file {path}: {error.strerror}; name a file with one key on each line") from None
    except UnicodeDecodeError:
        raise KeysError(f"keys_file {path}: not a text; name a file with one key on each line") from None
    if mode & stat.S_IRWXO:
        raise KeysError(f"keys_file {path}: every user of this host may read it; chmod 640 {path}")
    found = set()
    for number, line in enumerate(text.splitlines(), 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
            raise KeysError(
                f"keys_file {path}:{number}: a key is {SHORTEST} or more printable ASCII characters without a space; "
                "make one with: openssl rand -hex 24"
            )
        found.add(fingerprint(key))
    if not found:
        raise KeysError(f"keys_file {path}: holds no key, and nobody could ask; make one with: openssl rand -hex 24")
    return tuple(sorted(found))
