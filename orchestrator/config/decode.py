"""What does a YAML document say, taken as a layout, and what is wrong with it? Pure.

Theory of operation
-------------------
The document is walked as PyYAML *nodes*, not as built objects: nodes know their line and column, keep both of two equal
keys, and keep the text as it was written. That matters because YAML 1.1 reads `yes` and `on` as true, `010` as eight and
`1:30` as ninety. The declared type decides here, not YAML's guess, and a value that needs guessing is a problem.
The walk never stops at the first problem; each value that cannot be read becomes a `Problem`, and the layout is built only
if there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import yaml
from msgspec import Struct

from orchestrator.config.allocation import allocation_problems
from orchestrator.config.declared import Declared, FieldType, declared, type_in_words
from orchestrator.config.lengths import first_gap, group_ranges
from orchestrator.config.problem import Problem
from orchestrator.config.schema import MOST_INSTANCES, VERSION, InstanceGroup, Layout, Place, Places
from orchestrator.config.suggest import did_you_mean
from topology.cpuset import CpusetError, parse_cpulist

_TAG: Final = "tag:yaml.org,2002:"
_SCALAR_TAGS: Final = {_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")}
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_NUMBER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?([eE][-+]?[0-9]{1,2})?")
_TRUTHS: Final = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_LAYERED: Final = ("by-seqlen", "by-seqlen-strict")


_Entries = dict[str, tuple[yaml.Node, yaml.Node]]
"""Name → (key node, value node)."""


class _Unreadable:
    """Stands for a value that became a problem."""


_UNREADABLE: Final = _Unreadable()


def decode_layout(root: yaml.Node | None, file: str) -> tuple[Layout | None, list[Problem]]:
    """The layout that the document's root node says, or None and what is wrong with it.

    `file` is the name that the problems give.
    """
    walk = _Walk(file)
    if root is None:
        why = "a layout has at least its version"
        return None, [Problem(file, 1, 1, "", "the file is empty", why, f"begin with `version: {VERSION}`")]
    fields = walk.struct(root, Layout, "")
    if walk.problems or isinstance(fields, _Unreadable):
        return None, walk.problems
    layout = Layout(**fields, places=Places(file, walk.places))
    problems = list(_contradictions(layout, file))
    return (None, problems) if problems else (layout, [])


class _Walk:
    """Collects places and problems on the way through the nodes."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.places: dict[str, Place] = {}
        # By identity of the node: an alias is the anchored node itself, so that without this a chain of merges would
        # be expanded once per path to it. None marks a mapping that is being expanded.
        self._entries: dict[int, _Entries | None] = {}

    def problem(self, node: yaml.Node, where: str, what: str, why: str = "", next_: str = "") -> _Unreadable:
        place = _place(node)
        found = Problem(self.file, place.line, place.column, where, what, why, next_)
        # An anchor that is used twice is read twice; what is wrong with it stands in the file once.
        if not any((p.line, p.column, p.what) == (found.line, found.column, found.what) for p in self.problems):
            self.problems.append(found)
        return _UNREADABLE

    def struct(self, node: yaml.Node, struct: type[Struct], path: str) -> dict[str, Any] | _Unreadable:
        self.places[path] = _place(node)
        if not isinstance(node, yaml.MappingNode):
            return self.problem(node, path, f"a mapping is wanted, this is {_shown(node)}", next_="write `key: value`")
        known = {each.name: each for each in declared(struct)}
        values: dict[str, Any] = {}
        entries = self.entries(node, path)
        for name, (key, value) in entries.items():
            if (option := known.get(name)) is None:
                if not path and name.startswith("x-"):  # room for anchors
                    continue
                self.problem(
                    key,
                    path,
                    f'unknown field "{_cut(name)}"',
                    next_=did_you_mean(name, known) or "known are " + ", ".join(known),
                )
                continue
            inner = f"{path}.{name}" if path else name
            self.places[inner] = _place(value)
            if option.type.optional and _is_explicit_null(value):
                continue
            values[name] = self.value(value, option.type, inner)
        for each in known.values():
            if each.required and each.name not in entries:
                self.missing(node, each, path)
        return values

    def missing(self, node: yaml.Node, option: Declared, path: str) -> None:
        example = str(VERSION) if option.name == "version" else f"<{type_in_words(option.type)}>"
        self.problem(
            node, path, f'"{option.name}" is missing', option.type.help.rstrip("."), f"add `{option.name}: {example}`"
        )

    def entries(self, node: yaml.MappingNode, path: str) -> _Entries:
        """What the mapping holds. Merge keys (`<<: *base`) come below what the mapping says itself."""
        if (known := self._entries.get(id(node), {})) is None:
            self.problem(node, path, "a mapping that merges itself", next_="remove the `<<`")
            return {}
        if known:
            return known
        self._entries[id(node)] = None
        own: _Entries = {}
        merged: _Entries = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.problem(key, path, "a key must be a plain word", f"this is {_shown(key)}")
            elif key.tag == _TAG + "merge":
                for base in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(base, yaml.MappingNode):
                        self.problem(
                            value, path, "`<<` takes a mapping or a list of mappings", next_="write `<<: *name`"
                        )
                        continue
                    for name, entry in self.entries(base, path).items():
                        merged.setdefault(name, entry)
            elif key.value in own:
                first = _place(own[key.value][0])
                why = f"it stands in line {first.line}, column {first.column} already"
                self.problem(key, path, f'duplicate key "{_cut(key.value)}"', why, "remove one of the two")
            else:
                own[key.value] = (key, value)
        self._entries[id(node)] = {**merged, **own}
        return {**merged, **own}

    def value(self, node: yaml.Node, kind: FieldType, path: str) -> Any:
        if issubclass(kind.kind, Struct):
            fields = self.struct(node, kind.kind, path)
            if isinstance(fields, _Unreadable) or any(isinstance(each, _Unreadable) for each in fields.values()):
                return _UNREADABLE
            complete = all(not each.required or each.name in fields for each in declared(kind.kind))
            return kind.kind(**fields) if complete else _UNREADABLE
        if kind.item is not None:
            return self.sequence(node, kind, kind.item, path)
        return self.scalar(node, kind, path)

    def sequence(self, node: yaml.Node, kind: FieldType, item: FieldType, path: str) -> Any:
        if not isinstance(node, yaml.SequenceNode):
            what = f"a list is wanted, this is {_shown(node)}"
            return self.problem(node, path, what, next_="write `[…]`, or one `- ` per line")
        if kind.min_length is not None and len(node.value) < kind.min_length:
            return self.problem(node, path, "the list is empty", next_=f'fill it, or leave "{_last(path)}" out')
        if kind.max_length is not None and len(node.value) > kind.max_length:
            return self.problem(node, path, f"{len(node.value)} entries, at most {kind.max_length} are taken")
        values = [self.value(each, item, f"{path}[{index}]") for index, each in enumerate(node.value)]
        for index, each in enumerate(node.value):
            self.places.setdefault(f"{path}[{index}]", _place(each))
            if not isinstance(values[index], (Struct, _Unreadable)) and values[index] in values[:index]:
                self.problem(each, f"{path}[{index}]", f"{_shown(each)} stands in the list twice", next_="remove one")
        return _UNREADABLE if any(isinstance(each, _Unreadable) for each in values) else tuple(values)

    def scalar(self, node: yaml.Node, kind: FieldType, path: str) -> Any:
        wanted = type_in_words(kind)
        if not isinstance(node, yaml.ScalarNode):
            hint = 'write it as text, for example "0-3,8"' if kind.cpulist else ""
            return self.problem(node, path, f"{wanted} is wanted, this is {_shown(node)}", next_=hint)
        if node.tag not in _SCALAR_TAGS:
            return self.problem(node, path, f"the tag {_cut(node.tag)} has no meaning here", next_="remove it")
        if node.style is None and node.tag == _TAG + "null":
            what = f"{wanted} is wanted, nothing stands here"
            return self.problem(node, path, what, next_=f'give a value, or remove "{_last(path)}"')
        if kind.kind is bool:
            return self.truth(node, path)
        if kind.kind in (int, float):
            return self.number(node, kind, path, wanted)
        return self.text(node, kind, path, wanted)

    def truth(self, node: yaml.ScalarNode, path: str) -> Any:
        if node.style is None and node.value.lower() in ("true", "false"):
            return node.value.lower() == "true"
        meant = _TRUTHS.get(node.value.lower(), node.value.lower())
        hint = f"write {meant}" if meant in ("true", "false") else "write true or false"
        return self.problem(node, path, f"true or false is wanted, this is {_shown(node)}", next_=hint)

    def number(self, node: yaml.ScalarNode, kind: FieldType, path: str, wanted: str) -> Any:
        pattern = _INTEGER if kind.kind is int else _NUMBER
        if not pattern.fullmatch(node.value):
            what = f"{wanted} is wanted, this is {_shown(node)}"
            return self.problem(node, path, what, next_="write it in plain decimal digits, for example 8")
        if node.style is not None:
            what = f"{wanted} is wanted, this is a text"
            return self.problem(node, path, what, "it stands in quotes", f"write {node.value}")
        value: float = kind.kind(node.value)
        if kind.gt is not None and value <= kind.gt:
            return self.problem(node, path, f"{node.value} is too small", f"it must be more than {kind.gt:g}")
        if kind.ge is not None and kind.ge == kind.le != value:
            return self.problem(node, path, f"{node.value} is not known here", f"this program reads {kind.ge:g}")
        if kind.ge is not None and value < kind.ge:
            return self.problem(node, path, f"{node.value} is too small", f"it must be at least {kind.ge:g}")
        if kind.le is not None and value > kind.le:
            return self.problem(node, path, f"{node.value} is too large", f"it must be at most {int(kind.le)}")
        return value

    def text(self, node: yaml.ScalarNode, kind: FieldType, path: str, wanted: str) -> Any:
        value: str = node.value
        if kind.choices:
            if value in kind.choices:
                return value
            return self.problem(node, path, f'"{_cut(value)}" is not {wanted}', next_=did_you_mean(value, kind.choices))
        if kind.cpulist:
            return self.cpulist(node, path)
        if node.style is None and node.tag != _TAG + "str":
            what = f"{wanted} is wanted, YAML reads {_cut(value)} as {_tag_in_words(node.tag)}"
            return self.problem(node, path, what, next_=f'put it in quotes: "{_cut(value)}"')
        if kind.min_length is not None and len(value.strip()) < kind.min_length:
            return self.problem(
                node, path, f"{wanted} is wanted, this is empty", next_=f'give it, or remove "{_last(path)}"'
            )
        if kind.max_length is not None and len(value) > kind.max_length:
            return self.problem(node, path, f'"{_cut(value)}" is too long', f"at most {kind.max_length} characters")
        if kind.pattern is not None and not re.fullmatch(kind.pattern, value):
            return self.problem(node, path, f'"{_cut(value)}" is no {_last(path)}', f"it must be {kind.form}")
        return value

    def cpulist(self, node: yaml.ScalarNode, path: str) -> Any:
        try:
            numbers = parse_cpulist(node.value)
        except CpusetError as error:
            return self.problem(node, path, str(error), next_='write ranges and numbers, for example "0-3,8"')
        if not numbers:
            return self.problem(node, path, "the CPU list is empty", next_=f'name CPUs, or remove "{_last(path)}"')
        return node.value.strip()


def _contradictions(layout: Layout, file: str) -> Iterator[Problem]:
    """What the document says against itself; no machine is needed to see it."""

    def problem(where: str, what: str, why: str = "", next_: str = "") -> Problem:
        place = layout.places.of(where)
        line, column = (place.line, place.column) if place is not None else (None, None)
        return Problem(file, line, column, where, what, why, next_)

    for index, group in enumerate(layout.instances):
        yield from (problem(f"instances[{index}]{where}", *said) for where, *said in _inside_an_entry(group))
    total = sum(group.replicas for group in layout.instances)
    if total > MOST_INSTANCES:
        yield problem("instances", f"{total} instances in all", f"at most {MOST_INSTANCES} are taken")
    yield from (problem(where, *said) for where, *said in _between_entries(layout.instances))
    yield from allocation_problems(layout)
    if layout.policy in _LAYERED:
        backwards = any(low > high for low, high in group_ranges(layout.instances) if high is not None)
        gap = None if backwards else first_gap(group_ranges(layout.instances))
        if gap is not None:
            what = f"no instance takes sequences of {gap[0]} to {gap[1]} tokens"
            yield problem("instances", what, "", "lower a min_seqlen, raise a max_seqlen, or leave min_seqlen out")


def _inside_an_entry(group: InstanceGroup) -> Iterator[tuple[str, ...]]:
    if group.cores is not None and group.cpus is not None:
        yield "", "both cores and cpus are given", "cpus says which, cores lets the planner choose", "keep one of them"
    if group.cores is None and group.cpus is None:
        yield "", "neither cores nor cpus is given", "an instance needs cores", "add `cores: 4`, or `cpus` with a list"
    size = group.cores
    if group.cpus is not None:
        count = len(parse_cpulist(group.cpus))
        size = count // group.replicas
        if count % group.replicas:
            why = "replicas share the CPUs of an entry in equal parts"
            yield ".cpus", f"{count} CPUs do not divide by {group.replicas} replicas", why, "change one of the two"
            return
    if group.threads is not None and size is not None and group.threads > size:
        what = f"{group.threads} threads on {size} {'core' if size == 1 else 'cores'}"
        yield (
            ".threads",
            what,
            "threads that share a core wait for each other",
            f"lower threads to {size}, or leave it out",
        )


def _between_entries(groups: Sequence[InstanceGroup]) -> Iterator[tuple[str, ...]]:
    ranges = group_ranges(groups)
    first_of: dict[str, int] = {}
    for index, (group, (low, high)) in enumerate(zip(groups, ranges, strict=True)):
        if high is not None and low > high:
            what = f"min_seqlen {low} is larger than max_seqlen {high}"
            yield f"instances[{index}].min_seqlen", what, "", "no sequence fits; swap them"
        first = first_of.setdefault(group.name, index)
        if ranges[first] != (low, high):
            why = f"instances[{first}] has this name with other lengths"
            next_ = "give each range of lengths a name of its own"
            yield f"instances[{index}].name", f'"{group.name}" is taken', why, next_


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _is_explicit_null(node: yaml.Node) -> bool:
    """`null` or `~` means omitted; nothing at all after the colon is more likely unfinished."""
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in ("null", "~", "Null", "NULL")


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if not isinstance(node, yaml.ScalarNode) or (node.style is None and not node.value):
        return "nothing"
    return _cut(node.value) if node.style is None else f'the text "{_cut(node.value)}"'


def _cut(text: str) -> str:
    printable = "".join(char if char.isprintable() else "�" for char in text)
    return printable if len(printable) <= 60 else printable[:57] + "..."


def _tag_in_words(tag: str) -> str:
    words = {"bool": "true or false", "int": "a number", "float": "a number", "timestamp": "a date", "null": "nothing"}
    return words.get(tag.removeprefix(_TAG), "something else")


def _last(path: str) -> str:
    return path.rsplit(".", 1)[-1]
