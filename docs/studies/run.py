"""What do the studies' tables say with today's router? `make studies` runs each command of each page and writes the block after it anew."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
from pathlib import Path

from orchestrator.cli.main import main

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BLOCK = re.compile(r"```sh\n(orchestrator simulate [^`]*?)\n```\n\n```text\n(.*?)```\n", re.DOTALL)


def pages() -> list[Path]:
    return sorted(page for page in HERE.glob("*.md") if page.name != "README.md")


def commands(page: str) -> list[list[str]]:
    """The arguments of each command of a page, without the program's name."""
    return [words(found[1]) for found in BLOCK.finditer(page)]


def words(command: str) -> list[str]:
    return shlex.split(command.replace("\\\n", " "))[1:]


def printed(arguments: list[str]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(arguments)
    if code:
        raise SystemExit(f"orchestrator {shlex.join(arguments)} ended with {code}")
    return out.getvalue()


def rewritten(page: str) -> str:
    return BLOCK.sub(lambda found: f"```sh\n{found[1]}\n```\n\n```text\n{printed(words(found[1]))}```\n", page)


if __name__ == "__main__":
    os.chdir(ROOT)  # the commands name layouts from here
    for each in pages():
        print(each.relative_to(ROOT), file=sys.stderr)
        each.write_text(rewritten(each.read_text()))
