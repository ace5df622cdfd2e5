"""Does a page that is opened now show what was before it, with its gaps, in a real browser?"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Locator, Page, expect

from orchestrator.plan.model import Bucket
from orchestrator.status import Event, RouterStatus, Status

expect.set_options(timeout=15_000)
CORNER = "[ML]"


def line(page: Page, chart: str = "throughput", instance: str = "short-0", measure: str = "rate") -> Locator:
    return page.locator(f'#{chart} path[data-instance="{instance}"][data-measure="{measure}"]')


def pieces(*corners: int) -> re.Pattern[str]:
    """A line of so many pieces, each with so many corners."""
    return re.compile("^" + "".join(rf"M[^ML]+(L[^ML]+){{{count - 1}}}" for count in corners) + "$")


def times(page: Page) -> Locator:
    return page.locator("#throughput .grid text[text-anchor='middle']")


def shifted(status: Status, *, clock: float = 0.0, **given: Any) -> Status:
    """The same at another time of day."""
    return msgspec.structs.replace(status, time_unix=status.time_unix + clock, **given)


def test_the_charts_begin_filled_and_go_on_with_what_comes(page: Page, simulation: Any, scenarios: Any) -> None:
    simulation.remember(*(scenarios.two(second) for second in range(0, 201, 2)))
    simulation.show(page, scenarios.two(201))
    for chart, measure in (("throughput", "rate"), ("latency", "p50"), ("latency", "p99")):
        for instance in ("short-0", "long-0"):
            expect(line(page, chart, instance, measure)).to_have_attribute("d", pieces(102))
    simulation.push(scenarios.two(202))
    expect(line(page)).to_have_attribute("d", pieces(103))
    expect(page.locator("#charts-note")).to_have_text("")


def test_only_five_minutes_of_what_is_remembered_are_drawn(page: Page, simulation: Any, scenarios: Any) -> None:
    simulation.remember(*(scenarios.two(second) for second in range(0, 599, 2)))
    simulation.show(page, scenarios.two(599))
    expect(line(page)).to_have_attribute("d", pieces(151))


def test_the_past_has_the_values_that_were_live_then(page: Page, simulation: Any, scenarios: Any) -> None:
    statuses = [scenarios.two(second) for second in range(0, 21, 2)]
    for status in statuses:
        status.instances[0].sequences_per_second = 100.0 + (status.time_unix - scenarios.begin)
    simulation.remember(*statuses[:-1])
    simulation.show(page, statuses[-1])
    expect(line(page)).to_have_attribute("d", pieces(11))
    page.locator("#throughput .chart-area").focus()
    for key, said in (("Home", "15:07:00: short-0 100; "), ("ArrowRight", "15:07:02: short-0 102; ")):
        page.keyboard.press(key)
        expect(page.locator("#chart-reading")).to_contain_text(said)
    page.keyboard.press("End")
    expect(page.locator("#chart-reading")).to_contain_text("15:07:20: short-0 120; ")


def test_a_time_of_which_the_orchestrator_knows_nothing_is_left_open(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    simulation.remember(*(scenarios.two(second) for second in (*range(0, 40, 2), *range(60, 100, 2))))
    simulation.show(page, scenarios.two(100))
    expect(line(page)).to_have_attribute("d", pieces(20, 21))


def test_an_instance_has_no_line_for_the_time_when_it_was_not_there(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    statuses = [scenarios.two(second) for second in range(0, 40, 2)]
    for status in statuses[:5]:
        del status.instances[0]
    simulation.remember(*statuses)
    simulation.show(page, scenarios.two(40))
    expect(line(page)).to_have_attribute("d", pieces(16))
    expect(line(page, instance="long-0")).to_have_attribute("d", pieces(21))


def test_what_went_wrong_before_the_page_was_opened_is_told_and_not_counted_twice(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    def status(second: int, refused: int, restarts: int) -> Status:
        router = RouterStatus(state="ready", rejected={"queue_full": refused})
        made: Status = scenarios.two(second, short={"restarts": restarts}, router=router)
        return made

    simulation.remember(status(0, 40, 2), status(2, 40, 2), status(4, 52, 3), status(6, 52, 3))
    simulation.show(page, status(7, 55, 3))
    expect(page.locator("#problems")).to_contain_text("refused in the last 5 minutes: queue_full 15")
    expect(page.locator("#problems")).to_contain_text("Restarts in the last 5 minutes: short-0 1")
    expect(page.locator("#figures > div", has_text="refused in 5 min").locator("dd")).to_have_text("15")
    simulation.push(status(8, 56, 3))
    expect(page.locator("#problems")).to_contain_text("queue_full 16")


def test_errors_of_a_gateway_are_no_news_when_another_one_goes(page: Page, simulation: Any, scenarios: Any) -> None:
    statuses = [scenarios.two(second) for second in range(4)]
    for status in statuses:
        first = status.gateways[0]
        status.gateways.append(msgspec.structs.replace(first, name="gateway-1", responses={"/embed 500": 3}))
        first.responses = {"/embed 500": 5}
    del statuses[3].gateways[0]
    simulation.remember(statuses[0])
    simulation.show(page, *statuses[1:])
    expect(line(page)).to_have_attribute("d", pieces(4))
    expect(page.locator("#problems")).not_to_contain_text("Errors were answered")
    later = scenarios.two(4)
    later.gateways[0].name, later.gateways[0].responses = "gateway-1", {"/embed 500": 4}
    simulation.push(later)
    expect(page.locator("#problems")).to_contain_text("Errors were answered in the last 5 minutes: /embed 500 1")


def test_the_last_hours_are_asked_for_when_they_are_chosen(page: Page, simulation: Any, scenarios: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.partition("/api/")[2]))
    simulation.remember(*(scenarios.two(second) for second in range(0, 2 * 3600 + 1, 2)))
    simulation.show(page, scenarios.two(2 * 3600 + 1))
    expect(line(page)).to_have_attribute("d", pieces(151))
    expect(page.locator("#charts-title")).to_have_text("Last 5 minutes")
    assert "history?step=60" not in asked
    page.get_by_role("button", name="6 h").click()
    expect(page.locator("#charts-title")).to_have_text("Last 6 hours")
    expect(line(page)).to_have_attribute("d", pieces(121))
    expect(times(page)).to_have_text(["12:00", "13:00", "14:00", "15:00", "16:00"])
    page.get_by_role("button", name="1 h").click()
    expect(page.get_by_role("button", name="1 h")).to_have_attribute("aria-pressed", "true")
    expect(times(page)).to_have_text(["16:10", "16:20", "16:30", "16:40", "16:50", "17:00"])
    page.get_by_role("button", name="5 min").click()
    expect(line(page)).to_have_attribute("d", pieces(151))
    assert asked.count("history?step=2") == 1


def test_a_restart_of_the_orchestrator_is_a_gap_and_what_was_before_it_stays(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    simulation.remember(*(scenarios.two(second) for second in range(0, 40, 2)))
    simulation.show(page, scenarios.two(40))
    expect(line(page)).to_have_attribute("d", pieces(21))
    for second in (60, 61, 62):
        simulation.push(shifted(scenarios.two(second), pid=4999, uptime_seconds=second - 50.0))
    expect(line(page)).to_have_attribute("d", pieces(21, 3))


def test_a_clock_that_is_set_tears_no_line_and_dates_all_of_it_anew(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    simulation.remember(*(scenarios.two(second) for second in range(0, 40, 2)))
    simulation.show(page, scenarios.two(40))
    for clock, second, said in ((3600.0, 41, "16:07:00"), (-1800.0, 43, "14:37:00")):
        simulation.push(shifted(scenarios.two(second), clock=clock))
        simulation.push(shifted(scenarios.two(second + 1), clock=clock))
        expect(line(page)).to_have_attribute("d", pieces(second - 18))
        page.locator("#throughput .chart-area").focus()
        page.keyboard.press("Home")
        expect(page.locator("#chart-reading")).to_contain_text(said)
        page.keyboard.press("Escape")


def test_what_was_missed_while_the_stream_was_away_is_filled_in(
    page: Page, simulation: Any, scenarios: Any, console: Any
) -> None:
    console.expect("/api/")
    simulation.show(page, *(scenarios.two(second) for second in range(5)))
    expect(line(page)).to_have_attribute("d", pieces(5))
    simulation.break_stream()
    expect(page.locator("body")).to_have_attribute("data-feed", "stale")
    simulation.remember(*(scenarios.two(second) for second in range(0, 41, 2)))
    simulation.latest = msgspec.json.encode(scenarios.two(41))
    simulation.mend()
    simulation.wait_for_viewer(2)
    expect(line(page)).to_have_attribute("d", pieces(22))


def test_without_a_memory_the_page_says_so_and_works_as_before(
    page: Page, simulation: Any, scenarios: Any, console: Any
) -> None:
    console.expect("/api/history")
    simulation.history = {}
    simulation.show(page, *(scenarios.two(second) for second in range(3)))
    expect(page.locator("#charts-note")).to_have_text(
        "What was before this page is not known: the orchestrator answered 503: nobody remembers."
    )
    expect(line(page)).to_have_attribute("d", pieces(3))
    expect(page.locator("#banner")).to_be_hidden()


@pytest.mark.parametrize("sent", [b"{", b"null", b'{"points": []}'])
def test_a_memory_that_cannot_be_read_is_told_and_harms_nothing(
    page: Page, simulation: Any, scenarios: Any, sent: bytes
) -> None:
    simulation.history = {"2": sent}
    simulation.show(page, scenarios.two(0), scenarios.two(1))
    expect(page.locator("#charts-note")).to_contain_text("What was before this page is not known: ")
    expect(line(page)).to_have_attribute("d", pieces(2))


def happened(second: float, part: str, before: str, after: str, why: str) -> Event:
    return Event(600.0 + second, part, "worker", 1, before, after, why)


def test_events_of_before_and_of_now_are_told_once_the_newest_first(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    early, late = (
        happened(1, "short-0", "ready", "backoff", "SIGKILL"),
        happened(3, "short-0", "starting", "ready", "ready"),
    )
    past = msgspec.json.decode(simulation.history["2"])
    simulation.history["2"] = msgspec.json.encode({**past, "events": [early]})
    simulation.show(page, scenarios.two(2, events=[early]))
    expect(page.locator("#events li")).to_have_text(["15:07:01 short-0 ready → backoff SIGKILL"])
    simulation.push(scenarios.two(4, events=[early, late]))
    expect(page.locator("#events li")).to_have_text(
        [re.compile("^15:07:03 short-0 starting → ready $"), "15:07:01 short-0 ready → backoff SIGKILL"]
    )
    expect(page.locator("#events-note")).to_have_text("")


def test_an_event_of_another_day_has_its_date(page: Page, simulation: Any, scenarios: Any) -> None:
    simulation.show(page, scenarios.two(90_000, events=[happened(1, "short-0", "ready", "backoff", "SIGKILL")]))
    expect(page.locator("#events li")).to_have_text(["2025-06-15 15:07:01 short-0 ready → backoff SIGKILL"])


def test_text_of_events_stays_text(page: Page, simulation: Any, scenarios: Any) -> None:
    hostile = "<img src=x onerror='window.taken=1'>"
    simulation.show(page, scenarios.two(0, events=[happened(0, hostile, hostile, hostile, hostile + "!")]))
    expect(page.locator("#events li")).to_contain_text(hostile)
    assert page.evaluate("[window.taken ?? null, document.images.length]") == [None, 0]


def test_of_so_many_instances_that_points_are_left_out_the_lines_hold_together(
    page: Page, simulation: Any, scenarios: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.supervisor.past.MOST_VALUES", 1200)
    simulation.remember(*(scenarios.two(second) for second in range(0, 201, 2)))
    simulation.show(page, scenarios.two(201))
    expect(line(page)).to_have_attribute("d", pieces(35))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_events_and_ranges_fit_and_stick_out_nowhere(
    open_page: Callable[..., Page], simulation: Any, scenarios: Any, scheme: str, width: int
) -> None:
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    simulation.remember(*(scenarios.large(second) for second in range(0, 200, 2)))
    events = [
        happened(number, "len16-0", "ready", "backoff", f"exit 139: {'word' * 40}, last output: Segmentation fault")
        for number in range(40)
    ]
    status = scenarios.large(201, events=events)
    status.instances[0].bucket = Bucket(min=1, max=16)
    simulation.show(page, status)
    expect(page.locator("#events li")).to_have_count(40)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
