"""Who reads the time of day? Only what people are shown: every wait, deadline and rate is on the monotonic clock."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "orchestrator/bench/environment.py": "when a benchmark was run",
    "orchestrator/cli/tune.py": "when a layout was found",
    "orchestrator/supervisor/observe.py": "status: time_unix",
    "orchestrator/gateway/pages.py": "`created` of a model, as OpenAI gives it",
    "orchestrator/gateway/reply.py": "the Date header",
    "orchestrator/logs/journal.py": "the time of a line",
    "orchestrator/models/digest.py": "the age of a file, which the kernel stamps with the time of day",
    "orchestrator/models/preparation.py": "when an artefact was made",
    "orchestrator/models/study.py": "when an artefact was made",
    "orchestrator/models/share.py": "when an artefact was made",
}
WALL = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today")}


def reads_wall_clock(source: str) -> list[int]:
    """The lines that ask for the time of day."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name | ast.Attribute)
        and ((node.value.id if isinstance(node.value, ast.Name) else node.value.attr), node.attr) in WALL
    ]


def test_only_what_people_are_shown_reads_the_time_of_day() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): lines
        for package in ("orchestrator", "workers", "topology")
        for path in (ROOT / package).rglob("*.py")
        if (lines := reads_wall_clock(path.read_text()))
    }
    assert {path: lines for path, lines in found.items() if path not in ALLOWED} == {}


def test_a_deadline_on_the_wrong_clock_would_be_found() -> None:
    assert reads_wall_clock("import time\nend = time.time() + 5\n") == [2]
    assert reads_wall_clock("import datetime\nnow = datetime.datetime.now()\n") == [2]
    assert reads_wall_clock("import time\nend = time.monotonic() + 5\n") == []
