"""Would the nightly run notice a router whose books are wrong?"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orchestrator.router.dispatcher import Dispatcher
from orchestrator.router.ledger import Ledger
from orchestrator.router.queue import LengthQueue

SCRIPT = Path(__file__).parents[2] / "nightly" / "router_steps.py"


@pytest.fixture(scope="module")
def nightly() -> ModuleType:
    spec = importlib.util.spec_from_file_location("router_steps", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_kind_of_event_happens_and_the_books_are_right(nightly: ModuleType) -> None:
    kinds = nightly.run_episode(1, 1500) + nightly.run_episode(2, 1500)
    assert set(kinds) == {
        "Request", "BatchDone", "BatchFailed", "Tick", "WorkerHello", "WorkerLost", "WorkerLeft", "Undelivered", "Cancel",
        "ClientGone", "PlanChanged", "Drain",
    }  # fmt: skip
    assert nightly.run_episode(1, 1500) + nightly.run_episode(2, 1500) == kinds, "a seed gives the same story again"


def forgets_a_sequence(sound: Any, *args: Any, **more: Any) -> Any:
    batch = sound(*args, **more)
    return batch[:-1] if len(batch) > 3 else batch


def counts_a_retry_twice(sound: Any, ledger: Ledger, item: Any) -> None:
    ledger.counts.queued += 1
    sound(ledger, item)


def computes_the_late(_sound: Any, _dispatcher: Dispatcher, batch: list[Any], _now: float, _actions: list[Any]) -> Any:
    return batch


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (LengthQueue, "take", forgets_a_sequence),
        (Ledger, "returned", counts_a_retry_twice),
        (Dispatcher, "_still_wanted", computes_the_late),
    ],
)
def test_a_bug_in_the_router_ends_it_with_a_seed_and_a_story(
    nightly: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    owner: type,
    name: str,
    broken: Any,
) -> None:
    sound = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **more: broken(sound, *args, **more))
    with pytest.raises(AssertionError):
        [nightly.run_episode(seed, 1500) for seed in range(1, 6)]
    assert "--seed" in capsys.readouterr().err
