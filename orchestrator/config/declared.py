"""What does the declaration of the layout say of each option? For the loader, the command line and the documentation. Pure."""

from __future__ import annotations

import functools
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Struct

from orchestrator.config.schema import Layout


class Option(Struct, frozen=True):
    """One option as documentation and command line see it."""

    name: str
    """As in the file: `limits.body_mb`, `instances[].cores`."""
    type: str
    default: Any
    """`msgspec.NODEFAULT` where it is required."""
    help: str


def options() -> list[Option]:
    """Every option of a layout file in the order of the declaration, nested ones after their parent."""
    return list(_options(Layout, ""))


def option(name: str) -> Option:
    """The option of this name; KeyError if there is none."""
    for each in options():
        if each.name == name:
            return each
    raise KeyError(name)


def bounds_of(name: str) -> FieldType:
    """The declared type of the option of this name, with its bounds; KeyError if there is none."""
    struct: type[Struct] = Layout
    *outer, last = name.split(".")
    for part in outer:
        struct = next((each.type.kind for each in declared(struct) if each.name == part), Struct)
    for each in declared(struct):
        if each.name == last:
            return each.type
    raise KeyError(name)


class FieldType(Struct, frozen=True):
    """A declared type taken apart: what a value must be, and within which bounds."""

    kind: type
    """bool, int, float, str, tuple or a Struct."""
    optional: bool = False
    choices: tuple[str, ...] = ()
    item: FieldType | None = None
    """Of a tuple's elements."""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    form: str = ""
    """The pattern in words."""
    cpulist: bool = False
    help: str = ""


class Declared(Struct, frozen=True):
    """One field of a struct of this file."""

    name: str
    type: FieldType
    required: bool
    default: Any


@functools.cache
def declared(struct: type[Struct]) -> tuple[Declared, ...]:
    """The options of one struct, in the order of their declaration."""
    hints = typing.get_type_hints(struct, include_extras=True)
    return tuple(
        Declared(
            name=each.name,
            type=_take_apart(hints[each.name]),
            required=each.required,
            default=each.default_factory() if each.default_factory is not msgspec.NODEFAULT else each.default,
        )
        for each in msgspec.structs.fields(struct)
        if each.name != "places"
    )


def _take_apart(hint: Any) -> FieldType:
    if get_origin(hint) is Annotated:
        inner, *metas = get_args(hint)
        kind = _take_apart(inner)
        for meta in metas:
            extra = meta.extra or {}
            kind = msgspec.structs.replace(
                kind,
                ge=meta.ge if meta.ge is not None else kind.ge,
                gt=meta.gt if meta.gt is not None else kind.gt,
                le=meta.le if meta.le is not None else kind.le,
                min_length=meta.min_length if meta.min_length is not None else kind.min_length,
                max_length=meta.max_length if meta.max_length is not None else kind.max_length,
                pattern=meta.pattern or kind.pattern,
                form=extra.get("form", kind.form),
                cpulist=extra.get("cpulist", kind.cpulist),
                help=meta.description or kind.help,
            )
        return kind
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return FieldType(str, choices=tuple(arguments))
    if get_origin(hint) is tuple:
        return FieldType(tuple, item=_take_apart(arguments[0]))
    if type(None) in arguments:
        (inner,) = (each for each in arguments if each is not type(None))
        return msgspec.structs.replace(_take_apart(inner), optional=True)
    return FieldType(hint)


def _options(struct: type[Struct], prefix: str) -> Iterator[Option]:
    for each in declared(struct):
        name = f"{prefix}{each.name}"
        yield Option(name, type_in_words(each.type), each.default, each.type.help)
        if issubclass(each.type.kind, Struct):
            yield from _options(each.type.kind, f"{name}.")
        elif each.type.item is not None and issubclass(each.type.item.kind, Struct):
            yield from _options(each.type.item.kind, f"{name}[].")


def type_in_words(kind: FieldType) -> str:
    """What a value of this type is, for people: "a whole number", "one of a, b, c"."""
    if kind.choices:
        return "one of " + ", ".join(kind.choices)
    if kind.cpulist:
        return "a CPU list"
    if kind.item is not None:
        return f"a list, each {type_in_words(kind.item)}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return words.get(kind.kind, "a mapping")
