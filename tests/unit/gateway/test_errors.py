"""Is every refusal told in the shape and with the status that its protocol expects?"""

from __future__ import annotations

import json

import pytest

from orchestrator.gateway import errors
from orchestrator.gateway.errors import RETRIED, STATUS, Refusal
from workers import wire


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("malformed", 400), ("unauthorized", 401), ("not_found", 404), ("method_not_allowed", 405), ("body_too_large", 413),
        ("batch_too_large", 413), ("too_long", 413), ("unsupported_media_type", 415), ("unprocessable", 422),
        ("queue_full", 429), ("draining", 503), ("no_instance", 503), ("deadline", 504),
    ],
)  # fmt: skip
def test_the_status_is_the_one_that_the_contract_gives(kind: str, status: int) -> None:
    assert Refusal(kind, "").status == status


def test_every_reason_of_the_router_has_a_status_but_the_one_nobody_is_left_to_hear() -> None:
    assert set(wire.REASONS) - set(STATUS) == {"cancelled"}


def test_every_status_has_a_reason_phrase() -> None:
    assert set(STATUS.values()) <= set(errors.REASON)


@pytest.mark.parametrize(("seconds", "header"), [(0.0, 1), (0.2, 1), (1.0, 1), (1.01, 2), (30.0, 30)])
def test_retry_after_is_whole_seconds_rounded_up_and_at_least_one(seconds: float, header: int) -> None:
    for kind in RETRIED:
        assert Refusal(kind, "", retry_after_seconds=seconds).retry_after == header


def test_what_cannot_succeed_later_carries_no_retry_after() -> None:
    assert {kind for kind in STATUS if Refusal(kind, "").retry_after is not None} == {
        "queue_full",
        "draining",
        "no_instance",
    }


def test_the_plain_body_has_error_and_error_type() -> None:
    assert json.loads(errors.body("too_long", "text 0 …")) == {"error": "text 0 …", "error_type": "too_long"}


@pytest.mark.parametrize(
    ("kind", "family"),
    [("too_long", "invalid_request_error"), ("queue_full", "rate_limit_error"), ("draining", "server_error")],
)
def test_the_openai_body_is_an_error_object(kind: str, family: str) -> None:
    assert json.loads(errors.openai_body(kind, "m")) == {
        "error": {"message": "m", "type": family, "param": None, "code": kind}
    }


def test_a_message_that_quotes_a_lone_surrogate_can_still_be_written() -> None:
    assert json.loads(errors.body("malformed", "a\ud800b"))["error"] == "a\\ud800b"
