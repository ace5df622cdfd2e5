"""Does a value fit a JSON schema? As much of draft 2020-12 as /openapi.json uses; a keyword that is not known here is an error.

Stricter than the draft in one thing: an object may have no other properties than its schema names, so that an answer cannot grow fields
that nobody has described.
"""

from __future__ import annotations

from typing import Any

TYPES: dict[str, Any] = {
    "string": str, "boolean": bool, "null": type(None), "array": list, "object": dict, "integer": int, "number": (int, float),
}  # fmt: skip
SAYS_NOTHING = {"title", "description", "default"}


class Unfit(AssertionError):
    """A value is not what its schema says."""


def check(value: Any, schema: dict[str, Any], components: dict[str, Any], at: str = "$") -> None:
    """Unfit says where the value is not what the schema says."""
    for keyword, wanted in schema.items():
        if keyword in SAYS_NOTHING:
            continue
        rule = _RULES.get(keyword)
        if rule is None:
            raise NotImplementedError(f"{at}: no rule for {keyword}")
        rule(value, wanted, schema, components, at)


def _ref(value: Any, wanted: str, _: Any, components: dict[str, Any], at: str) -> None:
    check(value, components[wanted.removeprefix("#/components/schemas/")], components, at)


def _type(value: Any, wanted: str, _: Any, __: Any, at: str) -> None:
    if not isinstance(value, TYPES[wanted]) or (isinstance(value, bool) and wanted not in ("boolean",)):
        raise Unfit(f"{at}: {value!r:.60} is no {wanted}")


def _enum(value: Any, wanted: list[Any], _: Any, __: Any, at: str) -> None:
    if value not in wanted:
        raise Unfit(f"{at}: {value!r:.60} is none of {wanted}")


def _any_of(value: Any, wanted: list[Any], _: Any, components: dict[str, Any], at: str) -> None:
    wrong = []
    for one in wanted:
        try:
            return check(value, one, components, at)
        except Unfit as error:
            wrong.append(str(error))
    raise Unfit(f"{at}: fits none of {len(wanted)} schemas: {'; '.join(wrong)}")


def _properties(value: Any, wanted: dict[str, Any], schema: Any, components: dict[str, Any], at: str) -> None:
    if isinstance(value, dict):
        for name, one in value.items():
            if name in wanted:
                check(one, wanted[name], components, f"{at}.{name}")
            elif "additionalProperties" not in schema:
                raise Unfit(f"{at}.{name}: is not described")


def _additional(value: Any, wanted: Any, schema: Any, components: dict[str, Any], at: str) -> None:
    if isinstance(value, dict):
        for name in value.keys() - schema.get("properties", {}).keys():
            if wanted is False:
                raise Unfit(f"{at}.{name}: may not be there")
            if wanted is not True:
                check(value[name], wanted, components, f"{at}.{name}")


def _required(value: Any, wanted: list[str], _: Any, __: Any, at: str) -> None:
    if isinstance(value, dict) and (missing := set(wanted) - value.keys()):
        raise Unfit(f"{at}: lacks {sorted(missing)}")


def _items(value: Any, wanted: Any, schema: Any, components: dict[str, Any], at: str) -> None:
    first = len(schema.get("prefixItems", ()))
    for number, one in list(enumerate(value))[first:] if isinstance(value, list) else ():
        if wanted is False:
            raise Unfit(f"{at}[{number}]: may not be there")
        check(one, wanted, components, f"{at}[{number}]")


def _prefix_items(value: Any, wanted: list[Any], _: Any, components: dict[str, Any], at: str) -> None:
    if isinstance(value, list):
        for number, (one, schema) in enumerate(zip(value, wanted, strict=False)):
            check(one, schema, components, f"{at}[{number}]")


def _min_items(value: Any, wanted: int, _: Any, __: Any, at: str) -> None:
    if isinstance(value, list) and len(value) < wanted:
        raise Unfit(f"{at}: {len(value)} items, at least {wanted}")


def _max_items(value: Any, wanted: int, _: Any, __: Any, at: str) -> None:
    if isinstance(value, list) and len(value) > wanted:
        raise Unfit(f"{at}: {len(value)} items, at most {wanted}")


_RULES: dict[str, Any] = {
    "$ref": _ref, "type": _type, "enum": _enum, "anyOf": _any_of, "properties": _properties, "required": _required,
    "additionalProperties": _additional, "items": _items, "prefixItems": _prefix_items, "minItems": _min_items,
    "maxItems": _max_items,
}  # fmt: skip
