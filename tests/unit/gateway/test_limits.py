"""Are ids, deadlines and content types of requests taken where they are sane and refused otherwise?"""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from orchestrator.gateway import limits
from orchestrator.gateway.errors import Refusal


def request_with(**headers: str):  # type: ignore[no-untyped-def]
    return make_mocked_request("POST", "/", headers={key.replace("_", "-"): value for key, value in headers.items()})


@pytest.mark.parametrize("sane", ["a", "7f3c-1", "urn:uuid:1_2.3/4+5=", "x" * 128])
def test_a_sane_request_id_is_taken_over(sane: str) -> None:
    assert limits.request_id(request_with(x_request_id=sane), "made") == sane


@pytest.mark.parametrize("strange", ["", "x" * 129, "a b", "a\tb", "é", "<script>"])
def test_a_strange_request_id_is_replaced(strange: str) -> None:
    assert limits.request_id(request_with(x_request_id=strange), "made") == "made"


def test_a_request_without_an_id_gets_one() -> None:
    assert limits.request_id(request_with(), "made") == "made"


@pytest.mark.parametrize(("sent", "seconds"), [("1", 0.001), ("2500", 2.5), ("9999999999", 86_400.0)])
def test_a_deadline_is_whole_milliseconds_and_at_most_a_day(sent: str, seconds: float) -> None:
    assert limits.timeout_seconds(request_with(x_request_timeout_ms=sent), 60_000) == seconds


def test_a_request_without_a_deadline_gets_the_default() -> None:
    assert limits.timeout_seconds(request_with(), 60_000) == 60.0


@pytest.mark.parametrize("sent", ["0", "-5", "1.5", "abc", "", "1e3", "99999999999", "٣"])
def test_a_deadline_that_is_no_number_of_milliseconds_is_malformed(sent: str) -> None:
    with pytest.raises(Refusal, match="x-request-timeout-ms") as caught:
        limits.timeout_seconds(request_with(x_request_timeout_ms=sent), 60_000)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "sent",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_json_is_read_however_its_type_is_spelled(sent: str) -> None:
    limits.require_json(request_with(content_type=sent))


def test_a_body_without_a_type_is_taken_for_json() -> None:
    limits.require_json(request_with())


@pytest.mark.parametrize(
    "sent", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "json", ""]
)
def test_another_type_of_body_is_refused_with_what_to_send(sent: str) -> None:
    with pytest.raises(Refusal) as caught:
        limits.require_json(request_with(content_type=sent))
    assert caught.value.status == 415
