"""Do lines get into files, whole and bounded, and out again, while files are renamed, torn, emptied and taken away?"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.logs import journal
from orchestrator.logs.files import FIRST_RETRY_SECONDS, Files
from orchestrator.logs.read import Reader, every_line, known
from orchestrator.logs.record import SUPERVISOR, Record, encode
from orchestrator.logs.screen import goes_to_journal
from workers.said import Level

START = datetime(2026, 1, 1, tzinfo=UTC)


class Written:
    """Files of a folder, with a clock that stands still until told to go."""

    def __init__(self, folder: Path, most_bytes: int = 1 << 20, keep: int = 3) -> None:
        self.now = 1000.0
        self.shown: list[Record] = []
        self.number = 0
        self.files = Files(
            folder,
            most_bytes=most_bytes,
            keep=keep,
            clock=lambda: self.now,
            compose=self.compose,
            show=self.shown.append,
        )

    def compose(self, message: str, level: Level, dropped: int) -> Record:
        return self.record(message, SUPERVISOR, level)

    def record(self, message: str, instance: str = "short-0", level: Level = "info") -> Record:
        self.number += 1
        return Record(
            time=START + timedelta(milliseconds=self.number), level=level, part="worker", instance=instance, event="output",
            message=message,
        )  # fmt: skip

    def say(self, *messages: str, instance: str = "short-0") -> None:
        self.files.write([self.record(message, instance) for message in messages])


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Callable[..., Written]]:
    made: list[Written] = []

    def make(folder: Path = tmp_path / "logs", **more: int) -> Written:
        made.append(Written(folder, **more))
        return made[-1]

    yield make
    for each in made:
        each.files.close()


def messages(records: list[Record]) -> list[str]:
    return [record.message for record in records]


Make = Callable[..., Written]


@pytest.fixture
def follow() -> Iterator[Callable[[Path], Reader]]:
    """A reader of short-0."""
    with ExitStack() as held:
        yield lambda folder: held.enter_context(closing(Reader(folder, "short-0")))


Follow = Callable[[Path], Reader]


def last(folder: Path, count: int) -> list[Record]:
    with closing(Reader(folder, "short-0")) as reader:
        return reader.back(count)


def test_each_instance_has_its_file_and_what_was_written_is_read(tmp_path: Path, written: Make, follow: Follow) -> None:
    logs = written()
    logs.say("one", "two")
    logs.say("other", instance="router")
    assert logs.files.trouble is None
    assert known(tmp_path / "logs") == ["router", "short-0"]
    reader = follow(tmp_path / "logs")
    assert messages(reader.back(1)) == ["two"]
    assert messages(reader.more()) == []
    logs.say("three")
    assert messages(reader.more()) == ["three"]
    assert messages(list(every_line(tmp_path / "logs", "short-0"))) == ["one", "two", "three"]


def test_an_instance_never_has_more_on_the_disk_than_it_may(tmp_path: Path, written: Make) -> None:
    logs = written(most_bytes=2000, keep=2)
    for number in range(500):
        logs.say(f"line {number}")
    files = {path.name: path.stat().st_size for path in (tmp_path / "logs").iterdir() if path.name != ".lock"}
    assert set(files) == {"short-0.log", "short-0.log.1", "short-0.log.2"}
    assert max(files.values()) <= 2000
    kept = messages(list(every_line(tmp_path / "logs", "short-0")))
    assert kept == [f"line {number}" for number in range(500 - len(kept), 500)], "the last lines, without a gap"


def test_who_follows_loses_nothing_however_often_the_file_is_begun_anew(
    tmp_path: Path, written: Make, follow: Follow
) -> None:
    logs = written(most_bytes=1500, keep=8)
    logs.say("before")
    reader = follow(tmp_path / "logs")
    assert messages(reader.back(10)) == ["before"]
    seen: list[str] = []
    for turn in range(60):
        logs.say(*(f"{turn}-{number}" for number in range(turn % 40)))  # up to four files at once
        seen += messages(reader.more())
    assert seen == [f"{turn}-{number}" for turn in range(60) for number in range(turn % 40)]


def test_the_last_lines_are_gathered_over_several_files(tmp_path: Path, written: Make) -> None:
    logs = written(most_bytes=1500, keep=8)
    for number in range(60):
        logs.say(f"{number} " + "é" * (number % 50))
    for count in (0, 1, 7, 25, 60, 1000):
        found = last(tmp_path / "logs", count)
        assert [int(record.message.split()[0]) for record in found] == list(range(60))[60 - min(count, 60) :]


def test_lines_longer_than_what_is_read_at_once_are_found_from_behind(tmp_path: Path, written: Make) -> None:
    logs = written()
    for number in range(4):
        logs.say(f"{number}" + "x" * 100_000)
    assert [message[0] for message in messages(last(tmp_path / "logs", 2))] == ["2", "3"]


def test_a_later_layout_that_keeps_fewer_files_removes_the_surplus(tmp_path: Path, written: Make) -> None:
    logs = written(most_bytes=500, keep=5)
    for number in range(60):
        logs.say(str(number))
    logs.files.close()
    written(most_bytes=500, keep=1).say("again")
    assert not [path.name for path in (tmp_path / "logs").iterdir() if path.name.endswith((".2", ".3", ".4", ".5"))]


def test_a_line_that_the_power_cut_in_two_spoils_no_other(tmp_path: Path, written: Make) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    whole = encode(Record(time=START, level="info", part="worker", instance="short-0", event="output", message="whole"))
    (folder / "short-0.log").write_bytes(whole + whole[:40])
    written().say("after")
    found = list(every_line(folder, "short-0"))
    assert [record.event for record in found] == ["output", "unreadable", "output"]
    assert messages(found)[::2] == ["whole", "after"]


def test_a_file_that_somebody_moved_removed_or_emptied_is_begun_anew(
    tmp_path: Path, written: Make, follow: Follow
) -> None:
    folder = tmp_path / "logs"
    logs = written()
    logs.say("one")
    reader = follow(folder)
    reader.back(10)
    (folder / "short-0.log").rename(folder / "taken-away")
    logs.now += 2
    logs.say("two")
    assert messages(reader.more()) == ["two"]
    (folder / "short-0.log").unlink()
    logs.now += 2
    logs.say("three")
    assert messages(reader.more()) == ["three"]
    (folder / "short-0.log").write_bytes(b"")
    logs.now += 2
    logs.say("4")
    assert messages(reader.more()) == ["4"]


def test_a_folder_has_one_writer_and_who_comes_second_says_so_and_takes_over(tmp_path: Path, written: Make) -> None:
    first, second = written(), written()
    first.say("mine")
    second.say("not here")
    assert second.files.trouble is not None
    assert f"pid {os.getpid()}" in second.files.trouble
    assert "--log-dir" in second.files.trouble
    assert len(second.shown) == 1
    first.files.close()
    second.now += FIRST_RETRY_SECONDS + 0.1
    second.say("now")
    assert second.files.trouble is None
    assert messages(list(every_line(tmp_path / "logs", "short-0"))) == ["mine", "now"]


def test_what_cannot_be_written_is_said_once_counted_and_tried_again(tmp_path: Path, written: Make) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    logs = written()
    for _ in range(100):
        logs.say("lost")
    assert [record.level for record in logs.shown] == ["error"]
    assert "serving goes on" in logs.shown[0].message
    assert logs.files.trouble is not None
    assert str(tmp_path / "logs") in logs.files.trouble
    (tmp_path / "logs").unlink()
    logs.say("still too early")
    assert logs.files.seconds_to_retry() == pytest.approx(FIRST_RETRY_SECONDS)
    logs.now += FIRST_RETRY_SECONDS
    logs.files.write([])
    assert logs.files.trouble is None
    assert logs.files.seconds_to_retry() is None
    assert "101 lines are missing" in messages(list(every_line(tmp_path / "logs", SUPERVISOR)))[0]
    assert len(logs.shown) == 2


def test_a_symbolic_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path, written: Make) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "precious").write_text("keep me")
    (tmp_path / "logs" / "short-0.log").symlink_to(tmp_path / "precious")
    logs = written()
    logs.say("not there")
    assert logs.files.trouble is not None
    assert (tmp_path / "precious").read_text() == "keep me"


def test_a_write_that_gets_only_half_through_leaves_whole_lines(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes the kernel cut a write short, and refuse the next, as a full disk does."""
    script = textwrap.dedent("""
        import resource, sys, time
        from pathlib import Path
        from datetime import datetime, UTC
        from orchestrator.logs.files import Files
        from orchestrator.logs.record import Record
        def record(message, level="info", dropped=0):
            return Record(time=datetime.now(UTC), level=level, part="worker", instance="short-0", event="output", message=message)
        shown = []
        files = Files(Path(sys.argv[1]), most_bytes=1 << 20, keep=1, clock=time.monotonic, compose=record, show=shown.append)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
        for number in range(40):
            files.write([record(f"{number} " + "x" * 100)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(files.trouble, len(shown))
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "logs")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert done.stdout.strip().endswith(" 1"), "said once"
    found = list(every_line(tmp_path / "logs", "short-0"))
    assert {record.event for record in found} == {"output"}
    assert [int(record.message.split()[0]) for record in found] == list(range(len(found)))
    assert 3 < len(found) < 30


def test_only_the_journal_s_own_stream_is_taken_for_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("wb") as stream, (tmp_path / "other").open("wb") as other:
        found = os.fstat(stream.fileno())
        environment = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert goes_to_journal(stream.fileno(), environment)
        assert not goes_to_journal(other.fileno(), environment), "standard error was redirected"
        assert not goes_to_journal(stream.fileno(), {})
        assert not goes_to_journal(stream.fileno(), {"JOURNAL_STREAM": "nonsense"})
    assert not goes_to_journal(10_000, environment)


def test_a_disk_that_does_not_answer_holds_up_nobody_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named pipe in the place of a file takes 64 KiB, and then lets its writer wait for ever."""
    monkeypatch.setattr(journal, "STUCK_SECONDS", 0.2)
    monkeypatch.setattr(journal, "CLOSE_SECONDS", 0.2)
    folder = tmp_path / "logs"
    folder.mkdir()
    os.mkfifo(folder / "supervisor.log")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    log = journal.Journal(fd=nowhere)
    log.open_files(folder, most_bytes=1 << 20, keep=1)
    for number in range(3000):
        log(f"{number} " + "x" * 100)
    deadline = time.monotonic() + 30.0
    while log.trouble is None:
        assert time.monotonic() < deadline, "nobody noticed"
        threading.Event().wait(0.01)
    assert "the disk does not answer" in log.trouble
    log.close()  # gives up after its time
    reader = os.open(folder / "supervisor.log", os.O_RDONLY | os.O_NONBLOCK)
    while any(thread.name == "log-files" for thread in threading.enumerate()):  # lets the thread go on to its end
        assert time.monotonic() < deadline, "its thread is still there"
        try:
            os.read(reader, 1 << 16)
        except BlockingIOError:
            threading.Event().wait(0.01)
    os.close(reader)
    os.close(nowhere)
