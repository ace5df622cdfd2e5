"""How do rows become CSV for a spreadsheet? Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from topology.cpuset import format_cpulist


def to_csv(rows: Sequence[msgspec.Struct]) -> str:
    """One line per row under the names of its fields; parts of a part are named `latency.p50_ms`, and CPU lists are as the kernel's,
    one per instance, separated by `;`."""
    flat = [flattened(msgspec.to_builtins(row)) for row in rows]
    names: list[str] = []
    for row in flat:
        names += [name for name in row if name not in names]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    if names:
        writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def flattened(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, each in value.items():
        if isinstance(each, dict):
            found.update(flattened(each, f"{before}{name}."))
        elif isinstance(each, list):
            if each and isinstance(each[0], dict):
                for one in each:
                    found.update(
                        flattened(
                            {key: of for key, of in one.items() if key != "name"}, f"{before}{name}.{one['name']}."
                        )
                    )
            else:
                found[before + name] = ";".join(
                    format_cpulist(part) if isinstance(part, list) else str(part) for part in each
                )
        else:
            found[before + name] = "" if each is None else each
    return found
