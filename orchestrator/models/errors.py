"""How does a model fail that cannot be served? Pure."""

from __future__ import annotations


class ModelError(Exception):
    """For operators: what cannot be done, where, why, and what to do next.

    `unworkable` means that trying again with the same files and options cannot help (exit code 78 of the commands).
    """

    def __init__(self, what: str, *, where: str = "", why: str, remedy: str, unworkable: bool = True) -> None:
        place = f"{where}: " if where else ""
        super().__init__(f"{place}{what}: {why}; {remedy}")
        self.what = what
        self.where = where
        self.why = why
        self.remedy = remedy
        self.unworkable = unworkable


class NotBuilt(ModelError):
    """A whole and honest model whose graph is not written here: torch may still export it."""
