"""Is it known who asks and how urgent it is, and does an unknown priority say which there are?"""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from aiohttp.test_utils import make_mocked_request

from orchestrator.gateway.caller import Caller, Guard, caller_of
from orchestrator.gateway.errors import Refusal
from orchestrator.keys import fingerprint


def caller(address: str | None = "10.0.0.1", **headers: str) -> Caller:
    transport = Mock()
    transport.get_extra_info.side_effect = lambda what: (address, 4711) if what == "peername" and address else None
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return caller_of(make_mocked_request("POST", "/", headers=sent, transport=transport))


@pytest.mark.parametrize(("sent", "priority"), [("interactive", 0), ("normal", 1), ("bulk", 2)])
def test_a_priority_is_taken_by_its_name(sent: str, priority: int) -> None:
    assert caller(x_priority=sent).priority == priority


def test_without_a_priority_a_request_is_normal() -> None:
    assert caller().priority == 1


@pytest.mark.parametrize("sent", ["urgent", "", "0", "Bulk", "bulk ,normal", "é"])
def test_a_priority_that_does_not_exist_is_refused_with_those_that_do(sent: str) -> None:
    with pytest.raises(Refusal, match="known are interactive, normal, bulk") as caught:
        caller(x_priority=sent)
    assert caught.value.status == 400


def test_callers_are_told_apart_by_their_key_and_without_one_by_their_address() -> None:
    assert caller().tenant == caller(x_priority="bulk").tenant != caller("10.0.0.2").tenant
    key = caller(Authorization="Bearer a").tenant
    assert key == caller("10.0.0.2", Authorization="Bearer a").tenant
    assert len({key, caller(Authorization="Bearer b").tenant, caller(x_api_key="c").tenant, caller().tenant}) == 4


def test_a_caller_of_whom_nothing_is_known_is_the_gateway_itself() -> None:
    assert caller(None) == Caller(1, 0)


def test_a_tenant_fits_the_wire() -> None:
    assert all(0 < caller(x_api_key=f"key {number}").tenant < 1 << 32 for number in range(100))


KEY = "0123456789abcdef"


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer  {KEY} "}, {"x-api-key": KEY},
     {"Authorization": "Basic Zm9v", "x-api-key": KEY}],
)  # fmt: skip
def test_who_sends_a_known_key_is_let_in(headers: dict[str, str]) -> None:
    Guard([fingerprint(KEY), fingerprint("another one, long")]).admit(make_mocked_request("POST", "/", headers=headers))


@pytest.mark.parametrize(
    ("headers", "why"),
    [({}, "no key"), ({"Authorization": ""}, "no key"), ({"Authorization": "Bearer"}, "no key"),
     ({"Authorization": f"Basic {KEY}"}, "no key"), ({"Authorization": f"Bearer {KEY}x"}, "not one of those"),
     ({"x-api-key": KEY.upper()}, "not one of those"), ({"x-api-key": fingerprint(KEY)}, "not one of those"),
     ({"Authorization": "Bearer ÿ", "x-api-key": KEY}, "not one of those")],
)  # fmt: skip
def test_nobody_else_is(headers: dict[str, str], why: str) -> None:
    with pytest.raises(Refusal, match=why) as caught:
        Guard([fingerprint(KEY)]).admit(make_mocked_request("POST", "/", headers=headers))
    assert caught.value.status == 401
    assert KEY not in caught.value.message
