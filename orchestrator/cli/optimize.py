"""`orchestrator optimize`: every form of a model that this CPU can run, measured and compared, before anything is served."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec

from orchestrator.cli.bar import Bar
from orchestrator.cli.errors import FAILED, UNWORKABLE, USAGE, CommandError
from orchestrator.cli.options import add_cache_dir, as_declared, cache_dir
from orchestrator.config.declared import option
from orchestrator.config.schema import Precision
from orchestrator.models import ModelError, prepare
from orchestrator.models.calibration import texts_of
from orchestrator.models.choose import Choice, Wish, why_not
from orchestrator.models.optimize import Tuned, tune
from orchestrator.models.progress import Step
from orchestrator.models.variants import LENGTHS, Variant

SHORT, MIDDLE = 32, 128
"""The ranges that the choice is shown for: 1 to 32 tokens, 33 to 128, and longer."""
FEWEST_TEXTS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help=option("model").help)
    parser.add_argument("--task", metavar="T", help=option("task").help)
    parser.add_argument("--precision", choices=get_args(Precision), default="auto", help=option("precision").help)
    parser.add_argument(
        "--min-cosine", type=as_declared("min_cosine"), metavar="C", default=0.99, help=option("min_cosine").help
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="Texts that int8 is made with, one per line, like those you will serve.",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="Put the chosen artefacts there as well; a new directory."
    )
    parser.add_argument("--json", action="store_true", help="One JSON document on standard output.")
    add_cache_dir(parser)


def run(args: argparse.Namespace) -> int:
    calibration = None if args.calibration is None else _texts(args.calibration)
    if args.out is not None and args.out.exists():
        raise CommandError(f"--out {args.out}: it exists; name a directory that does not, or remove it", USAGE)
    wish = Wish(args.precision, "auto", args.min_cosine)
    try:
        with Bar(sys.stderr, wanted=not args.json) as bar:
            bar.show(Step("fp32: reading, building and checking"))
            prepared = prepare(args.model, task=args.task, cache=cache_dir(args))
            tuned = tune(prepared, cache_dir(args), wish, calibration, bar.say, bar.show)
        choices = {span: tuned.choose(*span) for span in _ranges(prepared.status.max_seqlen)}
    except ModelError as error:
        raise CommandError(str(error), UNWORKABLE if error.unworkable else FAILED) from None
    if args.out is not None:
        _copy(tuned, choices, args.out)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(_document(tuned, choices)), indent=2).decode())
    else:
        print(render(tuned, choices))
        if args.out is not None:
            print(f"written to {args.out}")
    return 0


def _texts(path: Path) -> tuple[str, ...]:
    try:
        texts = texts_of(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"--calibration {path}: {error.strerror}", USAGE) from None
    except UnicodeDecodeError as error:
        raise CommandError(f"--calibration {path}: not UTF-8 at byte {error.start}", USAGE) from None
    if len(texts) < FEWEST_TEXTS:
        raise CommandError(
            f"--calibration {path}: {len(texts)} texts; give at least {FEWEST_TEXTS}, one per line, better a hundred",
            USAGE,
        )
    return texts


def _ranges(longest: int) -> list[tuple[int, int]]:
    edges = [edge for edge in (SHORT, MIDDLE) if edge < longest]
    return list(zip([1, *(edge + 1 for edge in edges)], [*edges, longest], strict=True))


def render(tuned: Tuned, choices: dict[tuple[int, int], Choice]) -> str:
    """For people: a row per variant, then the choice for each range of lengths with its reason."""
    unused = why_not(tuned.study, [choice.variant for choice in choices.values()], tuned.wish)
    lines = [
        f"{tuned.study.model} ({tuned.prepared.status.architecture}, {tuned.prepared.status.task}), one thread, CPU milliseconds per text",
        f"{'variant':<20} {'MiB':>6} "
        + " ".join(f"{f'{tokens} tokens':>10}" for tokens in LENGTHS)
        + f" {'tokens/s':>9} {'cosine mean':>11} {'min':>7} {'batches':>8} {'ranks':>7} {'flips':>6}  serves",
    ]
    for variant in tuned.study.variants:
        spans = [f"{low}-{high}" for (low, high), choice in choices.items() if choice.variant.name == variant.name]
        lines.append(_row(variant) + "  " + (", ".join(spans) or f"no: {unused.get(variant.name, 'slower')}"))
    lines.append("")
    for (low, high), choice in choices.items():
        lines.append(f"{low} to {high} tokens: {choice.variant.name}: {choice.reason}")
        lines += [f"warning: {warning}" for warning in choice.warnings]
    for one in tuned.study.variants:
        if one.accuracy is not None and one.accuracy.changes_with_batch:
            most = f"{one.accuracy.batch_difference:.1%}"
            lines.append(f"{one.name}: what else is in a batch moves a float by up to {most} of its row's largest")
    lines += [f"warning: {note}" for note in tuned.notes]
    lines += [f"artefacts: {tuned.root}"]
    return "\n".join(lines)


def _row(variant: Variant) -> str:
    times = " ".join(
        f"{'-' if (time := variant.milliseconds(tokens)) is None else f'{time:.2f}':>10}" for tokens in LENGTHS
    )
    speed = f"{variant.tokens_per_second():.0f}" if variant.timings else "-"
    found = variant.accuracy
    if found is None:
        accuracy = f"{'exact' if variant.problem is None else '-':>11} {'':>7} {'':>8} {'':>7} {'':>6}"
    else:
        ranks = "-" if found.rank_correlation is None else f"{found.rank_correlation:.4f}"
        flips = "-" if found.label_flips is None else f"{found.label_flips:.1%}"
        accuracy = f"{found.mean_cosine:>11.5f} {found.min_cosine:>7.4f} {found.mean_cosine_in_batches:>8.5f} {ranks:>7} {flips:>6}"
    return f"{variant.name:<20} {variant.bytes / (1 << 20):>6.1f} {times} {speed:>9} {accuracy}"


def _document(tuned: Tuned, choices: dict[tuple[int, int], Choice]) -> dict[str, Any]:
    return {
        "study": msgspec.to_builtins(tuned.study),
        "choices": [
            {
                "min": low, "max": high, "precision": choice.variant.precision, "engine": choice.variant.engine,
                "artefact": str(tuned.root / choice.variant.graph.partition("/")[0]), "reason": choice.reason,
                "warnings": list(choice.warnings),
            }
            for (low, high), choice in choices.items()
        ],
        "notes": list(tuned.notes),
    }  # fmt: skip


def _copy(tuned: Tuned, choices: dict[tuple[int, int], Choice], out: Path) -> None:
    """The artefacts, one folder each, and what was measured; whole or not at all."""
    fresh = out.with_name(f".{out.name}.making-{os.getpid()}")
    try:
        fresh.mkdir(parents=True)
        for variant in {choice.variant.name: choice.variant for choice in choices.values()}.values():
            folder = tuned.root / variant.graph.partition("/")[0]
            shutil.copytree(folder, fresh / f"{variant.precision}-{variant.engine}")
        (fresh / "study.json").write_bytes(
            msgspec.json.format(msgspec.json.encode(_document(tuned, choices)), indent=2)
        )
        fresh.rename(out)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise CommandError(
            f"--out {out}: {error.strerror or error}; free some room or name another directory"
        ) from None
