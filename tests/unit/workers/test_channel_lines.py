"""Does the channel cut its stream into messages, however the bytes arrive?"""

from __future__ import annotations

import pytest

from workers.channel import LARGEST_LINE, ChannelError, Lines, decode, encode
from workers.spec import Beat, Lost, Stop


def test_lines_are_cut_wherever_the_bytes_are_torn() -> None:
    stream = b"".join(encode(message) for message in (Stop(), Lost("short-0", 2), Stop()))
    for step in (1, 2, 3, 7, len(stream)):
        lines = Lines()
        got = [line for at in range(0, len(stream), step) for line in lines.feed(stream[at : at + step])]
        assert [decode(line) for line in got] == [Stop(), Lost("short-0", 2), Stop()]


def test_a_line_without_end_is_refused_before_it_fills_the_memory() -> None:
    lines = Lines()
    lines.feed(b"x" * LARGEST_LINE)
    with pytest.raises(ChannelError, match="more than"):
        lines.feed(b"x")


@pytest.mark.parametrize("line", [b"", b"{}", b'{"type":"nonsense"}', b"\xff\xfe", encode(Beat())])
def test_a_line_that_is_no_message_for_a_child_is_refused(line: bytes) -> None:
    with pytest.raises(ChannelError):
        decode(line)
