"""What machine does pasted `lscpu` output describe: plain, `-p`, `-e`, or `-J`, or several of them in one file? Pure.

The second source, for machines known only by a bug report. `-p` and `-e` name the core, package, node and caches of every CPU; the
plain summary only counts them, so that which CPUs share a core must be assumed, and a warning says what was assumed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from topology.cpuinfo import known_isa
from topology.cpuset import CpusetError, format_cpulist, parse_cpulist, parse_mask, ranges
from topology.facts import CacheFacts, CpuFacts, Facts, NodeFacts
from topology.model import TopologyError

_UNKNOWN = frozenset({"", "-", "None", "null"})
_NODE_KEY = re.compile(r"NUMA node(\d+) CPU\(s\)\Z")
_ADJACENT_SIBLINGS = ("ppc", "power", "s390", "aarch64", "arm", "riscv")
"""Architectures whose kernels number the threads of a core one after the other; x86 firmware lists first threads first."""


@dataclass(slots=True)
class _Pasted:
    rows: list[dict[str, str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    """Of each row, its line in the file."""
    summary: dict[str, str] = field(default_factory=dict)


def parse_lscpu(text: str, origin: str) -> Facts:
    """The facts in the text. TopologyError names the line that cannot be read, or says what to paste instead."""
    pasted = _json(text, origin) if text.lstrip().startswith("{") else _lines(text, origin)
    if not pasted.rows and not any(key in pasted.summary for key in ("CPU(s)", "On-line CPU(s) list")):
        raise TopologyError(
            f"{origin}: no output of lscpu in it; paste that of `LC_ALL=C lscpu` and of `LC_ALL=C lscpu -p`, or name a directory"
        )
    warnings = ["read from lscpu output: what a process may use there is unknown, every online CPU counts as allowed"]
    facts = _from_rows(pasted, origin) if pasted.rows else _from_summary(pasted.summary, origin, warnings)
    summary = pasted.summary
    return Facts(
        origin=origin,
        present=facts.present,
        online=facts.online,
        cpus=facts.cpus,
        nodes=facts.nodes,
        model_name=_value(summary, "Model name"),
        isa=known_isa(_value(summary, "Flags").split()),
        arch=_value(summary, "Architecture"),
        warnings=tuple(warnings),
        source="lscpu",
    )


def _value(summary: Mapping[str, str], key: str) -> str:
    value = summary.get(key, "")
    return "" if value in _UNKNOWN else value


# ---------------------------------------------------------------- the forms


def _json(text: str, origin: str) -> _Pasted:
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise TopologyError(f"{origin}: not the JSON of `lscpu -J`: {error}; paste all of it") from error
    pasted = _Pasted()
    for row in _objects(document.get("cpus")):
        pasted.rows.append({key.upper(): "-" if value is None else str(value) for key, value in row.items()})
        pasted.lines.append(len(pasted.rows))
    entries = _objects(document.get("lscpu"))
    while entries:
        entry = entries.pop(0)
        if "field" in entry:
            pasted.summary.setdefault(str(entry["field"]).strip().rstrip(":"), str(entry.get("data") or "").strip())
        entries = _objects(entry.get("children")) + entries
    return pasted


def _objects(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _lines(text: str, origin: str) -> _Pasted:
    pasted = _Pasted()
    columns: list[str] = []
    separator: str | None = ","
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        words = stripped.split()
        if stripped.startswith("#"):
            names = [name.strip().upper() for name in stripped.lstrip("# ").split(",")]
            if "CPU" in names:
                columns, separator = names, ","
        elif words and words[0] == "CPU" and all(word == word.upper() or ":" in word for word in words):
            columns, separator = [word.upper() for word in words], None
        elif columns and words and re.match(r"\d+(,|\s|\Z)", stripped):
            cells = stripped.split(separator)
            if len(cells) != len(columns):
                raise TopologyError(
                    f"{origin}:{number}: {len(cells)} columns where the heading has {len(columns)}: {stripped[:60]!r}; "
                    "the line is cut off, paste the output again"
                )
            pasted.rows.append(dict(zip(columns, cells, strict=True)))
            pasted.lines.append(number)
        elif ":" in stripped:
            key, _, value = stripped.partition(":")
            pasted.summary.setdefault(key.strip(), value.strip())
    return pasted


# ---------------------------------------------------------------- one row per CPU


@dataclass(frozen=True, slots=True)
class _Found:
    present: frozenset[int]
    online: frozenset[int]
    cpus: dict[int, CpuFacts]
    nodes: dict[int, NodeFacts] | None


def _from_rows(pasted: _Pasted, origin: str) -> _Found:
    present: set[int] = set()
    online: set[int] = set()
    ids: dict[int, dict[str, int | None]] = {}
    for row, line in zip(pasted.rows, pasted.lines, strict=True):
        cells = dict(row)
        for heading, cell in row.items():  # `L1d:L1i:L2:L3` over `0:0:0:0`
            if ":" in heading:
                cells.update(zip(heading.split(":"), cell.split(":"), strict=False))
        cpu = _integer(cells.get("CPU"), "CPU", origin, line)
        if cpu is None or cpu in present:
            raise TopologyError(f"{origin}:{line}: {'no CPU number' if cpu is None else f'CPU {cpu} a second time'}")
        present.add(cpu)
        if cells.get("ONLINE", "yes").lower() in ("yes", "y", "true", "1"):
            online.add(cpu)
        ids[cpu] = {
            name: _integer(cells.get(name), name, origin, line)
            for name in ("CORE", "SOCKET", "NODE", "BOOK", "DRAWER", "CLUSTER", "L2", "L3", "L4")
        }
    place = {cpu: (row["DRAWER"], row["BOOK"], row["SOCKET"]) for cpu, row in ids.items()}
    core = _shared({cpu: (place[cpu], row["CORE"]) for cpu, row in ids.items() if row["CORE"] is not None})
    package = _shared({cpu: place[cpu] for cpu, row in ids.items() if row["SOCKET"] is not None})
    cluster = _shared({cpu: row["CLUSTER"] for cpu, row in ids.items() if row["CLUSTER"] is not None})
    caches = {
        level: _shared({cpu: row[f"L{level}"] for cpu, row in ids.items() if row[f"L{level}"] is not None})
        for level in (2, 3, 4)
    }
    nodes = {node: NodeFacts(cpus=cpus) for node, cpus in _node_lists(pasted.summary, origin).items()}
    for cpus in _shared({cpu: row["NODE"] for cpu, row in ids.items() if row["NODE"] is not None}).values():
        node = ids[min(cpus)]["NODE"]
        if node is not None:
            nodes[node] = NodeFacts(cpus=cpus)
    return _Found(
        present=frozenset(present),
        online=frozenset(online),
        cpus={
            cpu: CpuFacts(
                core_cpus=core.get(cpu),
                package_cpus=package.get(cpu),
                package_id=ids[cpu]["SOCKET"],
                book_id=ids[cpu]["BOOK"],
                drawer_id=ids[cpu]["DRAWER"],
                cluster_cpus=cluster.get(cpu),
                caches=tuple(CacheFacts(level, of[cpu]) for level, of in caches.items() if cpu in of),
            )
            for cpu in present
        },
        nodes=nodes or None,
    )


def _shared(key_of: Mapping[int, Hashable]) -> dict[int, frozenset[int]]:
    members: dict[Hashable, set[int]] = {}
    for cpu, key in key_of.items():
        members.setdefault(key, set()).add(cpu)
    sets = {key: frozenset(cpus) for key, cpus in members.items()}
    return {cpu: sets[key] for cpu, key in key_of.items()}


def _integer(cell: str | None, column: str, origin: str, line: int) -> int | None:
    if cell is None or cell.strip() in _UNKNOWN:
        return None
    try:
        return int(cell)
    except ValueError as error:
        raise TopologyError(
            f"{origin}:{line}: column {column}: not a number: {cell!r}; paste the output again"
        ) from error


# ---------------------------------------------------------------- the summary alone


def _from_summary(summary: Mapping[str, str], origin: str, warnings: list[str]) -> _Found:
    node_lists = _node_lists(summary, origin)
    online = _cpus(summary, "On-line CPU(s)", origin)
    if online is None:
        online = frozenset().union(*node_lists.values())
    if not online:
        online = frozenset(range(_count(summary, "CPU(s)", origin) or 0))
        warnings.append(f"no list of online CPUs; 0 to {len(online) - 1} assumed from their count")
    offline = _cpus(summary, "Off-line CPU(s)", origin) or frozenset()
    packages = _packages(summary, online, node_lists, origin, warnings)
    cores = _cores(summary, online, node_lists, packages, origin, warnings)
    caches = {level: _cache(summary, level, online, packages, node_lists, cores) for level in (2, 3, 4)}
    package_of = {cpu: number for number, cpus in enumerate(packages) for cpu in cpus}
    return _Found(
        present=online | offline,
        online=online,
        cpus={
            cpu: CpuFacts(
                core_cpus=cores.get(cpu),
                package_cpus=packages[package_of[cpu]] if cpu in package_of else None,
                package_id=package_of.get(cpu),
                caches=tuple(CacheFacts(level, of[cpu]) for level, of in caches.items() if cpu in of),
            )
            for cpu in online
        },
        nodes={node: NodeFacts(cpus=cpus) for node, cpus in node_lists.items()} or None,
    )


def _packages(
    summary: Mapping[str, str],
    online: frozenset[int],
    node_lists: Mapping[int, frozenset[int]],
    origin: str,
    warnings: list[str],
) -> list[frozenset[int]]:
    sockets = _count(summary, "Socket(s)", origin)
    if sockets is None:
        books = (_count(summary, key, origin) for key in ("Socket(s) per book", "Book(s) per drawer", "Drawer(s)"))
        sockets = 1
        for count in books:
            sockets *= count or 1
    if sockets == 1:
        return [online]
    lists = [cpus & online for _, cpus in sorted(node_lists.items()) if cpus & online]
    if not lists or len(lists) % sockets:
        warnings.append(
            f"{sockets} packages and {len(lists)} nodes with CPUs: which CPUs lie in which package is unknown"
        )
        return []
    each = len(lists) // sockets
    warnings.append(
        f"package taken to be {'one node' if each == 1 else f'{each} nodes in order'}; `lscpu -p` would tell"
    )
    return [frozenset().union(*lists[start : start + each]) for start in range(0, len(lists), each)]


def _cores(
    summary: Mapping[str, str],
    online: frozenset[int],
    node_lists: Mapping[int, frozenset[int]],
    packages: list[frozenset[int]],
    origin: str,
    warnings: list[str],
) -> dict[int, frozenset[int]]:
    threads = _count(summary, "Thread(s) per core", origin)
    if threads is None:
        return {}
    if threads <= 1:
        return {cpu: frozenset({cpu}) for cpu in online}
    homes = [cpus & online for cpus in node_lists.values() if cpus & online] or packages or [online]
    if any(len(home) % threads for home in homes):
        warnings.append(f"{threads} threads per core do not divide the online CPUs; some are offline or cores differ")
        return {}
    adjacent = _value(summary, "Architecture").lower().startswith(_ADJACENT_SIBLINGS)
    cores = {}
    for home in homes:
        order = sorted(home)
        size = len(order) // threads
        # As many equal runs as threads (`0-11,24-35`) are the first threads of all cores, then the second.
        runs = [last - first + 1 for first, last in ranges(home)]
        together = adjacent and not (len(runs) == threads and len(set(runs)) == 1)
        for index in range(size):
            siblings = order[index * threads : (index + 1) * threads] if together else order[index::size]
            for cpu in siblings:
                cores[cpu] = frozenset(siblings)
    example = format_cpulist(cores[min(online)])
    warnings.append(
        f"the summary does not say which CPUs share a core; siblings such as {example} are assumed, `lscpu -p` would tell"
    )
    return cores


def _cache(
    summary: Mapping[str, str],
    level: int,
    online: frozenset[int],
    packages: list[frozenset[int]],
    node_lists: Mapping[int, frozenset[int]],
    cores: Mapping[int, frozenset[int]],
) -> dict[int, frozenset[int]]:
    """Only where the number of instances leaves one reading: one for all, one per package, per node or per core."""
    match = re.search(r"\((\d+) instances?\)", _value(summary, f"L{level} cache"))
    instances = int(match[1]) if match else 0
    lists = [cpus & online for cpus in node_lists.values() if cpus & online]
    sharing: Iterable[frozenset[int]] = ()
    if instances == 1:
        sharing = [online]
    elif instances == len(packages):
        sharing = packages
    elif instances == len(lists):
        sharing = lists
    elif instances == len(set(cores.values())):
        sharing = cores.values()
    return {cpu: cpus for cpus in sharing for cpu in cpus}


def _node_lists(summary: Mapping[str, str], origin: str) -> dict[int, frozenset[int]]:
    return {
        int(match[1]): _numbers(key, value, origin) for key, value in summary.items() if (match := _NODE_KEY.match(key))
    }


def _cpus(summary: Mapping[str, str], key: str, origin: str) -> frozenset[int] | None:
    for form in ("list", "mask"):
        if f"{key} {form}" in summary:
            return _numbers(f"{key} {form}", summary[f"{key} {form}"], origin)
    return None


def _numbers(key: str, value: str, origin: str) -> frozenset[int]:
    try:
        if value.startswith("0x"):  # lscpu -x
            return parse_mask(value[2:])
        return frozenset() if value in _UNKNOWN else parse_cpulist(value)
    except CpusetError as error:
        raise TopologyError(f"{origin}: {key}: {error}; paste the output again") from error


def _count(summary: Mapping[str, str], key: str, origin: str) -> int | None:
    value = _value(summary, key)
    if not value:
        return None
    if not value.isdecimal() or len(value) > 6 or int(value) == 0:
        raise TopologyError(f"{origin}: {key}: not a count: {value[:60]!r}; paste the output of `LC_ALL=C lscpu` again")
    return int(value)
