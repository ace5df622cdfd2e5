"""How is a machine shown to a person in a terminal? Pure.

A few lines that count, a table of nodes, and a map by package, NUMA node, cache domain and core. State is told by signs, not by
colour alone: a log file or a colour-blind reader sees the same.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable

from topology.cpuset import format_cpulist
from topology.model import Cpu, Machine, Node

_NOT_ALLOWED = "-"
_RESERVED = "*"
_ISOLATED = "~"
_EFFICIENCY = "e"
_LEGEND = {
    "/": "0/96 siblings of one core",
    _NOT_ALLOWED: f"{_NOT_ALLOWED}5 online, this process may not use it",
    _RESERVED: f"{_RESERVED}5 reserved",
    _ISOLATED: f"{_ISOLATED}5 isolated from the scheduler",
    _EFFICIENCY: f"5{_EFFICIENCY} efficiency core",
}
_SHOWN_ISA = 12
_NARROWEST = 40
_LEAST_LIST = 16
"""Columns that a list of CPUs needs beside other columns."""


def summary(machine: Machine, width: int = 80) -> str:
    """The counts, the nodes and the warnings, without the map: what `orchestrator up` prints."""
    width = max(width, _NARROWEST)
    sections = [_wrapped(_headline(machine), width), _nodes_table(machine, width), _warnings(machine, width)]
    return "\n\n".join("\n".join(section) for section in sections if section)


def describe(machine: Machine, width: int = 80, reserved: Collection[int] = ()) -> str:
    """The whole text, lines of at most `width` columns where a single word allows. `reserved`: CPUs to mark as taken."""
    width = max(width, _NARROWEST)
    sections = [
        _wrapped(_headline(machine), width),
        _nodes_table(machine, width),
        _map(machine, width, reserved),
        _warnings(machine, width),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section)


def _wrapped(lines: Iterable[str], width: int) -> list[str]:
    return [
        piece
        for line in lines
        for piece in textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    ]


def _warnings(machine: Machine, width: int) -> list[str]:
    return _wrapped([f"warning: {warning}" for warning in machine.warnings], width)


def _headline(machine: Machine) -> list[str]:
    online = [cpu for cpu in machine.cpus if cpu.online]
    allowed = [cpu for cpu in online if cpu.allowed]
    counts = [
        _count(len(machine.packages), "package") if machine.packages else "packages unknown",
        _count(len(machine.nodes), "NUMA node") if machine.nodes else "no NUMA nodes named",
        _count(len({cpu.llc for cpu in online if cpu.llc is not None}), "last-level cache domain"),
        _count(len({cpu.core for cpu in online}), "core"),
        f"{_count(len(online), 'CPU')} online ({machine.smt} per core{' at most' if _uneven(online) else ''})",
    ]
    offline = len(machine.cpus) - len(online)
    if offline:
        counts.append(f"{offline} offline")
    lines = [
        f"{machine.model_name or 'CPU model unknown'}{f', {machine.arch}' if machine.arch else ''}",
        ", ".join(counts),
    ]
    kinds = [(kind, len({cpu.core for cpu in online if cpu.kind == kind})) for kind in ("performance", "efficiency")]
    if any(number for _, number in kinds):
        lines.append(", ".join(_count(number, f"{kind} core") for kind, number in kinds))
    quota = "" if machine.quota_cpus is None else f"; its cgroup grants the time of {machine.quota_cpus:g} CPUs"
    usable = _count(len({cpu.core for cpu in allowed}), "core")
    lines.append(f"this process may use {_count(len(allowed), 'CPU')} on {usable}{quota}")
    reasons: dict[str, list[int]] = {}
    for cpu in online:
        if cpu.why_not:
            reasons.setdefault(cpu.why_not, []).append(cpu.cpu)
    lines.extend(f"CPUs {format_cpulist(cpus)}: {reason}" for reason, cpus in reasons.items())
    closed = format_cpulist(node.node for node in machine.nodes if node.has_memory and not node.allowed)
    if closed:
        lines.append(f"this process may not allocate memory on nodes {closed}")
    if machine.isa:
        # The names that tell machines apart sort last: avx512_vnni rather than sse2.
        newest = sorted(machine.isa, key=_isa_rank)[:_SHOWN_ISA]
        more = len(machine.isa) - len(newest)
        lines.append(f"instruction sets: {' '.join(newest)}{f' and {more} more' if more else ''}")
    return lines


def _isa_rank(name: str) -> tuple[int, str]:
    order = (
        "amx",
        "sme",
        "sve",
        "i8mm",
        "bf16",
        "avx512_",
        "avx_vnni",
        "avx512",
        "asimd",
        "mma",
        "vsx",
        "rvv",
        "avx",
        "f",
    )
    return next((rank for rank, prefix in enumerate(order) if name.startswith(prefix)), len(order)), name


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _uneven(online: Iterable[Cpu]) -> bool:
    sizes: dict[int | None, int] = {}
    for cpu in online:
        sizes[cpu.core] = sizes.get(cpu.core, 0) + 1
    return len(set(sizes.values())) > 1


# ---------------------------------------------------------------- the table of nodes


def _nodes_table(machine: Machine, width: int) -> list[str]:
    if not machine.nodes:
        return []
    cpu_of = {cpu.cpu: cpu for cpu in machine.cpus}
    rows = [("node", "cores", "allowed", "memory", "free", "CPUs")]
    for node in machine.nodes:
        members = [cpu_of[cpu] for cpu in node.cpus]
        rows.append(
            (
                str(node.node),
                str(len({cpu.core for cpu in members})),
                str(len({cpu.core for cpu in members if cpu.allowed})),
                _bytes(node.memory_bytes) if node.has_memory else "none",
                _bytes(node.free_bytes),
                format_cpulist(node.cpus) or "none",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        start = "  ".join(cell.rjust(size) for cell, size in zip(row, widths, strict=False))
        if width - len(start) >= _LEAST_LIST:
            lines.extend(_list_after(f"{start}  ", row[5], width))
        else:  # a terminal too narrow for the last column has it below
            lines.extend([start, *(_list_after("      CPUs ", row[5], width) if row is not rows[0] else [])])
    return lines + _distances(machine, width)


def _list_after(start: str, cpus: str, width: int) -> list[str]:
    """A CPU list behind some text, broken after commas and indented below itself."""
    pieces = textwrap.wrap(cpus.replace(",", ", "), width - len(start)) or [""]
    return [
        f"{start if index == 0 else ' ' * len(start)}{piece.replace(', ', ',')}" for index, piece in enumerate(pieces)
    ]


def _bytes(number: int | None) -> str:
    if number is None:
        return "?"
    for unit, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number >> 10} KiB"


def _distances(machine: Machine, width: int) -> list[str]:
    nodes = [node for node in machine.nodes if node.distances]
    if len(machine.nodes) < 2 or len(nodes) < len(machine.nodes):
        return []
    ids = [node.node for node in nodes]
    size = max(len(str(value)) for node in nodes for value in (*node.distances.values(), node.node))
    label = max(len(f"node {node}") for node in ids)
    if label + (size + 1) * len(ids) > width:  # 32 nodes and more: the matrix would wrap, the distinct rows say as much
        return [
            "",
            "distances",
            *(
                piece
                for node in nodes
                for piece in _list_after(f"{f'node {node.node}':>{label}}  ", _by_distance(node), width)
            ),
        ]
    lines = ["", f"{'to':>{label}}" + "".join(f" {number:>{size}}" for number in ids)]
    lines.extend(
        f"{f'node {node.node}':>{label}}" + "".join(f" {node.distances[other]:>{size}}" for other in ids)
        for node in nodes
    )
    return lines


def _by_distance(node: Node) -> str:
    at: dict[int, list[int]] = {}
    for other, distance in node.distances.items():
        at.setdefault(distance, []).append(other)
    return ", ".join(
        f"{distance} to {format_cpulist(others).replace(',', '+')}" for distance, others in sorted(at.items())
    )


# ---------------------------------------------------------------- the map


def _map(machine: Machine, width: int, reserved: Collection[int]) -> list[str]:
    cells = _cells(machine, frozenset(reserved))
    lines: list[str] = []
    places: dict[tuple[int, int], dict[int, list[int]]] = {}
    for cpu in machine.cpus:
        if cpu.online and cpu.core is not None:
            place = (_or_last(cpu.package), _or_last(cpu.node))
            cores = places.setdefault(place, {}).setdefault(_or_last(cpu.llc), [])
            if cpu.core not in cores:
                cores.append(cpu.core)
    offline: dict[tuple[int, int], list[int]] = {}
    for cpu in machine.cpus:
        if not cpu.online:
            offline.setdefault(_home(cpu, places), []).append(cpu.cpu)
    size = max((len(cell) for cell in cells.values()), default=1)
    names = _domain_names(machine)
    for package in sorted({place[0] for place in (*places, *offline)}):
        lines.append("package unknown" if package == _LAST else f"package {package}")
        for place in sorted({place for place in (*places, *offline) if place[0] == package}):
            indent = "  "
            if machine.nodes:
                lines.append(f"{indent}{'node unknown' if place[1] == _LAST else f'node {place[1]}'}")
                indent += "  "
            lines.extend(_domains(places.get(place, {}), names, cells, size, indent, width))
            if place in offline:
                lines.extend(_list_after(f"{indent}offline  ", format_cpulist(offline[place]), width))
    lines.extend(
        f"node {node.node}: {'memory only' if node.has_memory else 'neither CPUs nor memory'}"
        for node in machine.nodes
        if not node.cpus
    )
    used = [text for sign, text in _LEGEND.items() if any(sign in cell for cell in cells.values())]
    return lines + (["", *_wrapped(["; ".join(used)], width)] if used else [])


_LAST = 1 << 30
"""Sorts what has no id behind what has one."""


def _or_last(number: int | None) -> int:
    return _LAST if number is None else number


def _home(cpu: Cpu, places: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Where to draw an offline CPU: with its node, whose package the online CPUs of the node tell."""
    if cpu.package is None and cpu.node is not None:
        packages = {package for package, node in places if node == cpu.node}
        if len(packages) == 1:
            return packages.pop(), cpu.node
    return _or_last(cpu.package), _or_last(cpu.node)


def _domains(
    domains: dict[int, list[int]], names: dict[int, str], cells: dict[int, str], size: int, indent: str, width: int
) -> list[str]:
    # Nothing known, or a cache of its own for each core, is no grouping.
    if not domains.keys() - {_LAST} or all(len(cores) == 1 for cores in domains.values()):
        return _grid([core for _, cores in sorted(domains.items()) for core in cores], cells, size, indent, width)
    labels = {domain: names.get(domain, "no cache") for domain in domains}
    label = max(map(len, labels.values()))
    lines = []
    for domain, cores in sorted(domains.items()):
        grid = _grid(cores, cells, size, f"{indent}{'':{label}}  ", width)
        grid[0] = f"{indent}{labels[domain]:<{label}}  {grid[0].lstrip()}"
        lines.extend(grid)
    return lines


def _grid(cores: list[int], cells: dict[int, str], size: int, indent: str, width: int) -> list[str]:
    columns = max((width - len(indent) + 2) // (size + 2), 1)
    return [
        indent + "  ".join(cells[core].ljust(size) for core in cores[start : start + columns]).rstrip()
        for start in range(0, len(cores), columns)
    ]


def _domain_names(machine: Machine) -> dict[int, str]:
    """Last-level domain → the level and number the JSON gives it."""
    last, l3, l2 = (_members(machine, field) for field in ("llc", "l3", "l2"))
    names: dict[int, str] = {}
    for domain, cpus in last.items():
        first = cpus[0]
        if first.l3 is not None and l3[first.l3] == cpus:
            names[domain] = f"L3 {first.l3}"
        elif first.l2 is not None and l2[first.l2] == cpus:
            names[domain] = f"L2 {first.l2}"
        else:
            names[domain] = f"cache {domain}"
    return names


def _members(machine: Machine, field: str) -> dict[int, list[Cpu]]:
    members: dict[int, list[Cpu]] = {}
    for cpu in machine.cpus:
        domain = getattr(cpu, field)
        if domain is not None:
            members.setdefault(domain, []).append(cpu)
    return members


def _cells(machine: Machine, reserved: frozenset[int]) -> dict[int, str]:
    """Core → its CPUs with their signs: `0/96`, `-1/-97`, `0-7` for eight siblings in a row."""
    siblings: dict[int, list[Cpu]] = {}
    for cpu in machine.cpus:
        if cpu.online and cpu.core is not None:
            siblings.setdefault(cpu.core, []).append(cpu)
    cells = {}
    for core, cpus in siblings.items():
        signs = [_sign(cpu, reserved) for cpu in cpus]
        numbers = [cpu.cpu for cpu in cpus]
        kind = _EFFICIENCY if cpus[0].kind == "efficiency" else ""
        if len(numbers) > 2 and len(set(signs)) == 1 and numbers[-1] - numbers[0] == len(numbers) - 1:
            cells[core] = f"{signs[0]}{numbers[0]}/…/{numbers[-1]}{kind}"
        else:
            cells[core] = "/".join(f"{sign}{number}" for sign, number in zip(signs, numbers, strict=True)) + kind
    return cells


def _sign(cpu: Cpu, reserved: frozenset[int]) -> str:
    if not cpu.allowed:
        return _NOT_ALLOWED
    if cpu.cpu in reserved:
        return _RESERVED
    return _ISOLATED if cpu.isolated else ""
