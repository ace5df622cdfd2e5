"""Which layout does this file hold?"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

from orchestrator.config.decode import decode_layout
from orchestrator.config.problem import LayoutErrors, Problem
from orchestrator.config.schema import Layout

__all__ = ["LARGEST_FILE", "LayoutErrors", "load_layout", "parse_layout"]

LARGEST_FILE: Final = 1 << 20
"""Bytes. A layout of a thousand instances takes a tenth of it."""


def load_layout(path: Path) -> Layout:
    """Reads a layout file. Raises LayoutErrors with every problem of it, each with line and column."""
    file = str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise LayoutErrors([Problem(file, None, None, "", what, "", "check the path and its permissions")]) from error
    if len(data) > LARGEST_FILE:
        what = f"more than {LARGEST_FILE >> 20} MiB"
        raise LayoutErrors([Problem(file, None, None, "", what, "no layout is that long", "check the path")])
    return parse_layout(data, file)


def parse_layout(data: bytes, file: str) -> Layout:
    """The layout in these bytes (UTF-8); `file` is the name that problems give. Raises LayoutErrors."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        what = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise LayoutErrors([Problem(file, line, column, "", what, "", "save the file as UTF-8")]) from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise LayoutErrors([_not_yaml(error, file)]) from error
    except yaml.reader.ReaderError as error:
        before_text = text[: error.position]
        line = before_text.count("\n") + 1
        column = error.position - (before_text.rfind("\n") + 1) + 1
        what = f"character U+{ord(text[error.position]):04X} may not stand in YAML"
        raise LayoutErrors([Problem(file, line, column, "", what, "", "remove it")]) from error
    except RecursionError as error:
        problem = Problem(file, None, None, "", "nested too deep", "a layout has three levels", "check the brackets")
        raise LayoutErrors([problem]) from error
    layout, problems = decode_layout(root, file)
    if layout is None:
        raise LayoutErrors(problems)
    return layout


def _not_yaml(error: yaml.MarkedYAMLError, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (None, None)
    context = error.context or ""
    if context and error.context_mark is not None:
        context += f" in line {error.context_mark.line + 1}"
    return Problem(file, line, column, "", f"not YAML: {error.problem or 'cannot be read'}", context)
