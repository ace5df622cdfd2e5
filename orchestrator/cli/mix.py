"""Which lengths does `--mix` name? One of the mixes that come with the program, or a file."""

from __future__ import annotations

from pathlib import Path

from orchestrator.cli.errors import FAILED, USAGE, CommandError
from orchestrator.simulate.mixes import MIXES, Mix, MixError
from orchestrator.tune.lengths import decode_lengths

DEFAULT_MIX = "mixed"
HELP = (
    f"lengths that come: {', '.join(MIXES)}; or a file: a mix in JSON, a trace of JSON lines, or a number of tokens on each line "
    f"(default: {DEFAULT_MIX})"
)


def mix_of(name: str) -> Mix:
    """CommandError if there is neither such a mix nor such a file, or it is none."""
    if name in MIXES:
        return MIXES[name]
    instead = f"there are {', '.join(MIXES)}, or name a file of lengths"
    try:
        return decode_lengths(read_file(Path(name), "--mix", instead), name)
    except MixError as error:
        raise CommandError(f"--mix: {error}", FAILED) from error


def read_file(path: Path, what: str, instead: str) -> bytes:
    """CommandError says which option named it, why it cannot be read, and what to say `instead`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{what} {path}: {error.strerror}; {instead}", USAGE) from error
