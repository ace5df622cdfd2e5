"""How is a set of CPU or node numbers written and read? Pure.

The kernel's list form: `0-3,8,10-14:2` (ranges inclusive; `:step` and the used/group form `a-b:used/group`).
The kernel's mask form: comma-separated 32-bit hexadecimal words, the most significant first.
Source: Documentation/admin-guide/kernel-parameters.rst ("cpu lists") and lib/bitmap.c of Linux.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

LARGEST_NUMBER = (1 << 20) - 1
"""No kernel numbers CPUs or nodes this high (NR_CPUS is at most 8192); beyond it the text is not a CPU list."""


class CpusetError(ValueError):
    """A text that is no CPU list or mask. `position` is the offset in `text` of what is wrong."""

    def __init__(self, what: str, text: str, position: int, why: str) -> None:
        shown = text if len(text) <= 80 else text[:77] + "..."
        super().__init__(f"not a {what}: {shown!r}, at position {position}: {why}")
        self.text = text
        self.position = position


def parse_cpulist(text: str) -> frozenset[int]:
    """The numbers of a list such as `0-3,8,10-14:2`. White space around it is ignored; an empty text is the empty set.

    CpusetError names the text and the position of what cannot be read.
    """
    stripped = text.strip()
    if not stripped:
        return frozenset()
    numbers: set[int] = set()
    position = text.index(stripped)
    for part in stripped.split(","):
        numbers.update(_range(text, part, position))
        position += len(part) + 1
    return frozenset(numbers)


def _range(text: str, part: str, position: int) -> Iterable[int]:
    span, colon, stride = part.partition(":")
    first_text, dash, last_text = span.partition("-")
    first = _number(text, first_text, position)
    last = _number(text, last_text, position + len(first_text) + 1) if dash else first
    if last < first:
        raise CpusetError("CPU list", text, position, f"the range {span} ends before it starts")
    if not colon:
        return range(first, last + 1)
    after_colon = position + len(span) + 1
    if not dash:
        raise CpusetError("CPU list", text, after_colon, "a stride needs a range before it")
    used_text, slash, group_text = stride.partition("/")
    used = _number(text, used_text, after_colon)
    if not slash:  # a-b:step is one of every `step`
        used, group, group_at = 1, used, after_colon
    else:
        group_at = after_colon + len(used_text) + 1
        group = _number(text, group_text, group_at)
    if group == 0 or used == 0 or used > group:
        raise CpusetError("CPU list", text, group_at, "a stride is at least 1 and no smaller than what it uses")
    return (number for number in range(first, last + 1) if (number - first) % group < used)


def _number(text: str, digits: str, position: int) -> int:
    if not digits:
        raise CpusetError("CPU list", text, position, "a number is missing")
    if not (digits.isascii() and digits.isdigit()):
        offset = next(i for i, char in enumerate(digits) if not (char.isascii() and char.isdigit()))
        raise CpusetError("CPU list", text, position + offset, f"{digits[offset]!r} is not a digit")
    # The length first: int() refuses thousands of digits with an error of its own.
    if len(digits.lstrip("0")) > len(str(LARGEST_NUMBER)) or int(digits) > LARGEST_NUMBER:
        raise CpusetError("CPU list", text, position, f"a number larger than {LARGEST_NUMBER}")
    return int(digits)


def format_cpulist(numbers: Iterable[int]) -> str:
    """The shortest list of ranges: {0, 1, 2, 8} → `0-2,8`. The empty set is the empty text."""
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges(numbers))


def ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The maximal runs of consecutive numbers, ascending, both ends inclusive."""
    first: int | None = None
    last = -1
    for number in sorted(set(numbers)):
        if first is None:
            first = number
        elif number != last + 1:
            yield first, last
            first = number
        last = number
    if first is not None:
        yield first, last


def parse_mask(text: str) -> frozenset[int]:
    """The numbers of a mask such as `00000001,80000000` (= 31 and 32). Every word counts, not only the last.

    Only the first word may have fewer than eight digits. CpusetError names the text and the position.
    """
    stripped = text.strip()
    if not stripped:
        return frozenset()
    words = stripped.split(",")
    position = text.index(stripped)
    value = 0
    for index, word in enumerate(words):
        if not word:
            raise CpusetError("CPU mask", text, position, "a word is missing")
        for offset, char in enumerate(word):
            if char not in "0123456789abcdefABCDEF":
                raise CpusetError("CPU mask", text, position + offset, f"{char!r} is not a hexadecimal digit")
        # One word alone may be any length: old kernels and lscpu write masks of up to NR_CPUS bits without commas.
        if len(words) > 1 and (len(word) > 8 or (index > 0 and len(word) < 8)):
            raise CpusetError("CPU mask", text, position, f"the word {word!r} has {len(word)} digits, not 8")
        value = (value << 32 | int(word, 16)) if len(words) > 1 else int(word, 16)
        position += len(word) + 1
    if value.bit_length() > LARGEST_NUMBER + 1:
        raise CpusetError("CPU mask", text, 0, f"a number larger than {LARGEST_NUMBER}")
    return frozenset(_bits(value))


def _bits(value: int) -> Iterator[int]:
    # Over the digits, not by shifting the number: that would take quadratic time on a long mask.
    return (position for position, digit in enumerate(reversed(f"{value:b}")) if digit == "1")


def format_mask(numbers: Iterable[int]) -> str:
    """The kernel's mask: words of eight digits, the first as short as it is ({0, 32} → `1,00000001`; {} → `0`)."""
    value = 0
    for number in numbers:
        value |= 1 << number
    words = [f"{value & 0xFFFFFFFF:08x}"]
    while value := value >> 32:
        words.append(f"{value & 0xFFFFFFFF:08x}")
    words[-1] = words[-1].lstrip("0") or "0"
    return ",".join(reversed(words))
