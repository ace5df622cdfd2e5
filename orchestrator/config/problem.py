"""How is one thing that is wrong with a layout told? Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct


class Problem(Struct, frozen=True):
    """What is wrong, where, why, and what to do next."""

    file: str
    line: int | None
    """From 1; None where the file as a whole is meant."""
    column: int | None
    """From 1, in characters."""
    where: str
    """The place in the document, for example `instances[0].cpus`; empty for the document."""
    what: str
    why: str = ""
    next: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"
        said = "; ".join(part for part in (self.what, self.why, self.next) if part)
        return f"{place}: {self.where}: {said}" if self.where else f"{place}: {said}"


class LayoutErrors(Exception):
    """A layout file that cannot be used, with every problem that was found, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda each: (each.line or 0, each.column or 0)))
        super().__init__("\n".join(map(str, self.problems)))
