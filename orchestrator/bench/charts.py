"""How does a result look as a drawing? SVG within the page, coloured by its style sheet, readable in print. Pure.

Series have names at their ends' side, not colour alone; heat maps carry their figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 150, 14, 42
_MARKS = ("●", "▲", "■", "◆", "▼", "○", "△", "□")


@dataclass(frozen=True)
class Series:
    name: str
    points: Sequence[tuple[float, float]]
    """Positive where the axis is logarithmic."""


def lines(
    title: str, x: str, y: str, series: Sequence[Series], *, log_x: bool = False, log_y: bool = False, ticks: Sequence[float] = ()
) -> str:  # fmt: skip
    """A figure; empty text where nothing can be drawn. `ticks`: those of x, where they are not round numbers."""
    drawn = [Series(each.name, sorted(each.points)) for each in series if each.points]
    if not drawn:
        return ""
    across = _Axis([at for each in drawn for at, _ in each.points], _LEFT, WIDTH - _RIGHT, log_x, zero=not log_x)
    up = _Axis([value for each in drawn for _, value in each.points], HEIGHT - _BOTTOM, _TOP, log_y, zero=not log_y)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in up.ticks():
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{up(tick) + 4:.1f}" text-anchor="end">{short(tick)}</text>'
        )
    parts += [
        f'<line class="grid" x1="{across(tick):.1f}" x2="{across(tick):.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
        f'<text class="tick" x="{across(tick):.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{short(tick)}</text>'
        for tick in ticks or across.ticks()
    ]
    parts.append(
        f'<text class="axis" x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>'
        f'<text class="axis" transform="translate(14 {(HEIGHT - _BOTTOM + _TOP) / 2}) rotate(-90)" text-anchor="middle">{escape(y)}</text>'
    )
    labels = _apart([(up(each.points[-1][1]), index) for index, each in enumerate(drawn)])
    for index, each in enumerate(drawn):
        slot = f"slot-{index % 8}"
        path = " ".join(f"{'ML'[at > 0]}{across(a):.1f} {up(b):.1f}" for at, (a, b) in enumerate(each.points))
        parts.append(f'<g class="{slot}"><path class="line" d="{path}"/>')
        mark = _MARKS[index % len(_MARKS)]
        parts += [
            f'<text class="mark" x="{across(a):.1f}" y="{up(b) + 4:.1f}" text-anchor="middle">{mark}'
            f"<title>{escape(f'{each.name}: {short(b)} at {short(a)}')}</title></text>"
            for a, b in each.points
        ]
        parts.append(
            f'<text class="label" x="{WIDTH - _RIGHT + 10}" y="{labels[index] + 4:.1f}">{mark} {escape(each.name)}</text></g>'
        )
    parts.append("</svg>")
    return _figure(title, "".join(parts))


def heat(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[float | None]]], unit: str) -> str:
    """A table whose cells are the darker the larger their value, over all of it."""
    values = [value for _, row in rows for value in row if value is not None]
    if not values:
        return ""
    low, high = min(values), max(values)
    parts = ['<div class="scroll"><table class="heat"><thead><tr><th></th>']
    parts += [f"<th>{escape(column)}</th>" for column in columns]
    parts.append("</tr></thead><tbody>")
    for name, row in rows:
        parts.append(f"<tr><th>{escape(name)}</th>")
        for value in row:
            if value is None:
                parts.append('<td class="none">–</td>')
                continue
            share = (value - low) / (high - low) if high > low else 1.0
            dark = " dark" if share > 0.75 else ""
            parts.append(f'<td class="h{round(share * 10)}{dark}">{short(value)}</td>')
        parts.append("</tr>")
    parts.append("</tbody></table></div>")
    return _figure(f"{title} ({unit})", "".join(parts), "wide")


def short(value: float) -> str:
    """`0.85`, `12.3`, `480`, `12k`: three digits."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    if size >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _figure(title: str, body: str, kind: str = "drawn") -> str:
    return f"<figure class={kind}><figcaption>{escape(title)}</figcaption>{body}</figure>"


def _apart(places: Sequence[tuple[float, int]], distance: float = 14.0) -> dict[int, float]:
    """Heights for labels, none closer to the next than this, all within the drawing where they fit."""
    placed: dict[int, float] = {}
    before = -math.inf
    for height, index in sorted(places):
        before = max(height, before + distance)
        placed[index] = before
    over = before - (HEIGHT - _BOTTOM)
    if over > 0:  # push back up from the bottom
        limit = float(HEIGHT - _BOTTOM)
        for index in sorted(placed, key=lambda each: -placed[each]):
            placed[index] = min(placed[index], limit)
            limit = placed[index] - distance
    return placed


class _Axis:
    """Values to places on the paper."""

    def __init__(self, values: Sequence[float], start: float, end: float, log: bool, *, zero: bool) -> None:
        self._start, self._end, self._log = start, end, log
        low, high = (0.0 if zero else min(values)), max(values)
        if log:
            low, high = math.log10(low), math.log10(high)
            if high - low < 1e-9:
                low, high = low - 0.3, high + 0.3
        elif high <= low:
            high = low + 1.0
        self._low, self._high = low, high

    def __call__(self, value: float) -> float:
        at = math.log10(value) if self._log else value
        return self._start + (self._end - self._start) * (at - self._low) / (self._high - self._low)

    def ticks(self) -> list[float]:
        if self._log:
            found = [
                factor * 10.0**power
                for power in range(math.floor(self._low), math.ceil(self._high) + 1)
                for factor in ((1, 2, 5) if self._high - self._low < 2.2 else (1,))
                if self._low - 1e-9 <= math.log10(factor * 10.0**power) <= self._high + 1e-9
            ]
            return found or [10.0**self._low, 10.0**self._high]
        step = 10.0 ** math.floor(math.log10((self._high - self._low) / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if (self._high - self._low) / (step * factor) <= 6)
        return [step * count for count in range(round(self._low / step), math.floor(self._high / step + 1e-9) + 1)]
