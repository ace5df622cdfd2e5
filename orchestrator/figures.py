"""How are the figures of a Status document written for people in a terminal? Pure. The dashboard writes them so too (view.js)."""

from __future__ import annotations

from orchestrator.plan.model import Bucket
from orchestrator.status import Status

NONE = "-"


def number(value: float | None) -> str:
    """About three digits that mean something: `0.42`, `7.1`, `128`, `12,345`; `-` where nothing is known."""
    if value is None:
        return NONE
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}"


def percent(ratio: float | None) -> str:
    """`83 %`, `6.2 %`."""
    if ratio is None:
        return NONE
    return f"{ratio * 100:.1f} %" if 0 < ratio < 0.1 else f"{ratio * 100:.0f} %"


def mebibytes(count: int | None) -> str:
    return NONE if count is None else f"{count / (1 << 20):.0f}"


def milliseconds(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


def duration(seconds: float) -> str:
    """`2d03h`, `3h07m`, `0m05s`."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    return f"{days}d{hours:02}h" if days else f"{hours}h{minutes:02}m" if hours else f"{minutes}m{whole % 60:02}s"


def lengths(bucket: Bucket | None) -> str:
    """`1-32` tokens, `all`."""
    return f"{bucket.min}-{bucket.max}" if bucket else "all"


def counts_by_reason(counts: dict[str, int]) -> str:
    """`queue_full 12, too_long 3`, the most first."""
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{reason} {number(count)}" for reason, count in ordered if count)


def headline(status: Status) -> str:
    return f"{status.state}  {status.endpoint}  up {duration(status.uptime_seconds)}  policy {status.policy}  pid {status.pid}"


def model_line(status: Status) -> str:
    model = status.model
    return (
        f"model {model.id} ({model.architecture}, {model.precision}, {model.engine}), up to {model.max_seqlen} tokens"
    )
