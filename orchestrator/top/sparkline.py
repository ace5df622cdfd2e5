"""How did a figure move over the last minute, in a few cells? Pure."""

from __future__ import annotations

from collections.abc import Sequence

SECONDS = 60.0
BLOCKS = "▁▂▃▄▅▆▇█"
NOTHING = " "


def sparkline(at: Sequence[float], values: Sequence[float | None], step: float, width: int) -> str:
    """`width` cells for the minute that ends with the last point, the height from zero to the largest value of that minute.

    :param at: seconds of each point, ascending, about `step` apart; a cell for which there is none stays blank
    """
    if not at or width <= 0:
        return NOTHING * max(width, 0)
    last = int(at[-1] // step)
    slots = max(1, int(SECONDS // step))
    heights: list[list[float]] = [[] for _ in range(width)]
    for when, value in zip(at, values, strict=True):
        age = last - int(when // step)
        if value is not None and 0 <= age < slots:
            heights[width - 1 - age * width // slots].append(value)
    # A cell that no slot falls into (more cells than slots) goes on with the one before it.
    means: list[float | None] = [sum(cell) / len(cell) if cell else None for cell in heights]
    if width > slots:
        means = [means[width - 1 - (width - 1 - cell) * slots // width * width // slots] for cell in range(width)]
    top = max((mean for mean in means if mean is not None), default=0.0)
    return "".join(NOTHING if mean is None else _block(mean, top) for mean in means)


def _block(value: float, top: float) -> str:
    if top <= 0 or value <= 0:
        return BLOCKS[0]
    return BLOCKS[min(len(BLOCKS) - 1, int(value / top * len(BLOCKS)))]
