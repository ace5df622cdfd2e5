"""`orchestrator models`: what the cache holds; list, show and prune."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from orchestrator.cli.errors import USAGE, CommandError
from orchestrator.cli.options import add_cache_dir, cache_dir
from orchestrator.models import inventory
from orchestrator.models.inventory import Entry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "show", "prune"), help="prune removes what no start will use again")
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="the artefact to show, as `list` names it; a unique beginning will do"
    )
    parser.add_argument("--all", action="store_true", help="prune: everything; the next start builds anew")
    parser.add_argument("--dry-run", action="store_true", help="prune: only say what would go")
    parser.add_argument("--json", action="store_true", help="One JSON document on standard output.")
    add_cache_dir(parser)


def run(args: argparse.Namespace) -> int:
    root = cache_dir(args)
    entries = inventory.entries(root)
    match args.action:
        case "show":
            _show(entries, args.name, root)
        case "prune":
            _prune(entries, root, everything=args.all, only_say=args.dry_run, as_json=args.json)
        case _:
            if args.json:
                print(msgspec.json.format(msgspec.json.encode(entries), indent=2).decode())
            else:
                print(render(entries, root))
    return 0


def render(entries: list[Entry], root: Path) -> str:
    lines = [f"{'artefact':<64} {'MiB':>7} {'precision':<9} {'engine':<11} {'made':<25} model"]
    for entry in entries:
        manifest = entry.manifest
        said = f"{manifest.precision:<9} {manifest.engine:<11} {manifest.created:<25} {manifest.id}" if manifest else ""
        lines.append(
            f"{entry.name:<64} {entry.bytes / (1 << 20):>7.1f} {said}".rstrip()
            + (f"  stale: {entry.stale}" if entry.stale else "")
        )
    lines.append(f"{len(entries)} entries, {sum(entry.bytes for entry in entries) / (1 << 20):.1f} MiB in {root}")
    return "\n".join(lines)


def _show(entries: list[Entry], name: str | None, root: Path) -> None:
    if name is None:
        raise CommandError("name the artefact to show; `orchestrator models list` has them", USAGE)
    found = [entry for entry in entries if entry.name == name] or [e for e in entries if e.name.startswith(name)]
    if len(found) != 1:
        names = ", ".join(entry.name for entry in found)
        why = (
            f"{len(found)} artefacts begin with it: {names}"
            if found
            else f"none of the {len(entries)} in {root} begins with it"
        )
        raise CommandError(f"{name}: {why}; `orchestrator models list` has their names", USAGE)
    (entry,) = found
    if entry.manifest is None:
        raise CommandError(
            f"{entry.name}: {entry.stale or 'it is no artefact'}; `orchestrator models prune` removes what is stale"
        )
    print(msgspec.json.format(msgspec.json.encode(entry.manifest), indent=2).decode())


def _prune(entries: list[Entry], root: Path, *, everything: bool, only_say: bool, as_json: bool) -> None:
    going = [entry for entry in entries if everything or entry.stale is not None]
    for entry in going if not only_say else ():
        try:
            inventory.remove(root, entry)
        except OSError as error:
            raise CommandError(f"{root / entry.name}: {error.strerror}; remove it by hand") from None
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(going), indent=2).decode())
        return
    for entry in going:
        print(f"{entry.name}  {entry.stale or 'as asked'}")
    size = sum(entry.bytes for entry in going) / (1 << 20)
    print(f"{'would remove' if only_say else 'removed'} {len(going)} of {len(entries)}, {size:.1f} MiB")
