"""Which task does the model card claim? The last hint, where neither modules nor the class of the model say it."""

from __future__ import annotations

import re
from pathlib import Path

CARD = "README.md"
LARGEST_HEADER = 64 << 10
"""Bytes that are looked at: the header of a card is some lines."""

_TAG = re.compile(r"^pipeline_tag:[ \t]*[\"']?([\w-]+)[\"']?[ \t]*(?:#.*)?\r?$", re.MULTILINE)


def card_task(directory: Path) -> str | None:
    """`pipeline_tag` of the YAML header of README.md: a name of the hub, served or not. Cheap: every start asks.

    Source: https://huggingface.co/docs/hub/model-cards. A card that is missing, unreadable or without the tag is no error: it is prose.
    """
    try:
        with (directory / CARD).open("rb") as file:
            text = file.read(LARGEST_HEADER).decode("utf-8", "replace")
    except OSError:
        return None
    opening, _, rest = text.removeprefix("\ufeff").partition("\n")
    header, end, _ = rest.partition("\n---")
    if opening.rstrip() != "---" or not end:
        return None
    found = _TAG.search(header)
    return None if found is None else found.group(1)
