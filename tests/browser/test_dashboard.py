"""Does the live page show what runs, and what is wrong with it, in a real browser?"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Locator, Page, expect

from orchestrator.plan.model import Bucket
from orchestrator.status import Quantiles, RouterStatus, Status, Verified

expect.set_options(timeout=15_000)
BROWSER_BEGIN = 1_750_000_000
"""Seconds since the epoch where a stopped clock of a page begins."""


def stop_the_clock(page: Page) -> None:
    """From here on the page's timers run only by `page.clock.run_for`."""
    page.clock.install(time=BROWSER_BEGIN)
    page.clock.pause_at(BROWSER_BEGIN + 1)


def line(page: Page, chart: str, instance: str, measure: str) -> Locator:
    return page.locator(f'#{chart} path[data-instance="{instance}"][data-measure="{measure}"]')


def corners(data: str | None) -> int:
    return len(re.findall("[ML]", data or ""))


@pytest.mark.parametrize(("chart", "measure"), [("throughput", "rate"), ("latency", "p50"), ("latency", "p99")])
def test_the_lines_of_both_instances_move_with_each_new_document(
    page: Page, simulation: Any, scenarios: Any, chart: str, measure: str
) -> None:
    simulation.show(page, *(scenarios.two(second) for second in range(5)))
    lines = {name: line(page, chart, name, measure) for name in ("short-0", "long-0")}
    for drawn in lines.values():
        expect(drawn).to_have_attribute("d", re.compile(r"^M[^ML]+(L[^ML]+){4}$"))
    before = {name: drawn.get_attribute("d") for name, drawn in lines.items()}
    simulation.push(scenarios.two(5))
    for drawn in lines.values():
        expect(drawn).to_have_attribute("d", re.compile(r"^M[^ML]+(L[^ML]+){5}$"))
    after = {name: drawn.get_attribute("d") for name, drawn in lines.items()}
    assert all(after[name] != before[name] for name in lines)
    assert after["short-0"] != after["long-0"]


def test_a_higher_rate_is_drawn_higher_and_a_later_moment_further_right(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    low, high = scenarios.two(0), scenarios.two(1)
    low.instances[0].sequences_per_second, high.instances[0].sequences_per_second = 100.0, 700.0
    simulation.show(page, low, high)
    drawn = line(page, "throughput", "short-0", "rate")
    expect(drawn).to_have_attribute("d", re.compile("L"))
    (x0, y0), (x1, y1) = re.findall(r"[ML]([\d.]+) ([\d.]+)", drawn.get_attribute("d") or "")
    assert float(x1) > float(x0)
    assert float(y1) < float(y0)


def test_a_time_of_which_nothing_is_known_is_left_open_in_the_line(page: Page, simulation: Any, scenarios: Any) -> None:
    simulation.show(page, *(scenarios.two(second) for second in (0, 1, 60, 61)))
    drawn = line(page, "throughput", "short-0", "rate")
    expect(drawn).to_have_attribute("d", re.compile(r"^M[^ML]+L[^ML]+M[^ML]+L[^ML]+$"))


def test_only_the_last_five_minutes_are_drawn(page: Page, simulation: Any, scenarios: Any) -> None:
    simulation.show(page, *(scenarios.two(second) for second in range(0, 400, 2)))
    expect(page.locator("#facts")).to_contain_text("16 min 38 s")
    assert corners(line(page, "throughput", "short-0", "rate").get_attribute("d")) == 151


def test_latency_without_an_answer_says_so_instead_of_drawing_zero(page: Page, simulation: Any, scenarios: Any) -> None:
    status = scenarios.two(0)
    for one in status.instances:
        one.latency_ms = Quantiles()
    simulation.show(page, status)
    expect(page.locator("#latency .chart-empty")).to_have_text("Nothing was answered in the last 5 minutes")
    expect(line(page, "latency", "short-0", "p99")).to_have_attribute("d", "")
    row = page.locator('#instances-table tbody[data-instance="short-0"]')
    expect(row.locator('td[data-label="p99 ms"]')).to_have_text("–")


def test_the_pointer_reads_the_values_of_one_moment(page: Page, simulation: Any, scenarios: Any) -> None:
    first, second = scenarios.two(0), scenarios.two(1)
    second.instances[0].sequences_per_second = 432.0
    second.instances[1].sequences_per_second = 21.5
    simulation.show(page, first, second)
    area = page.locator("#throughput .chart-area")
    box = area.bounding_box()
    assert box is not None
    area.hover(position={"x": box["width"] - 5, "y": 60})
    reading = page.locator("#throughput .reading")
    expect(reading).to_be_visible()
    expect(reading.locator("tr")).to_have_text(["15:07:01sequences/s", "short-0432", "long-021.5"])
    page.mouse.move(5, 5)
    expect(reading).to_be_hidden()


def test_arrow_keys_read_a_chart_and_are_announced(page: Page, simulation: Any, scenarios: Any) -> None:
    statuses = [scenarios.two(second) for second in range(3)]
    for status, rate in zip(statuses, (10.0, 20.0, 30.0), strict=True):
        status.instances[0].sequences_per_second = rate
        status.instances[1].sequences_per_second = rate / 10
    simulation.show(page, *statuses)
    page.locator("#throughput .chart-area").focus()
    said = page.locator("#chart-reading")
    page.keyboard.press("ArrowLeft")
    expect(said).to_have_text("15:07:02: short-0 30; long-0 3")
    page.keyboard.press("ArrowLeft")
    expect(said).to_have_text("15:07:01: short-0 20; long-0 2")
    page.keyboard.press("Home")
    expect(said).to_have_text("15:07:00: short-0 10; long-0 1")
    page.keyboard.press("Escape")
    expect(page.locator("#throughput .reading")).to_be_hidden()


def test_pressing_a_name_in_the_legend_hides_its_lines_and_shows_them_again(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    simulation.show(page, scenarios.two(0), scenarios.two(1))
    entry = page.locator("#legend").get_by_role("button", name="long-0")
    expect(entry).to_have_attribute("aria-pressed", "true")
    entry.click()
    expect(entry).to_have_attribute("aria-pressed", "false")
    expect(line(page, "throughput", "long-0", "rate")).to_have_count(0)
    expect(line(page, "throughput", "short-0", "rate")).to_have_count(1)
    simulation.push(scenarios.two(2))
    expect(line(page, "throughput", "short-0", "rate")).to_have_attribute("d", re.compile(r"^M[^ML]+(L[^ML]+){2}$"))
    expect(line(page, "throughput", "long-0", "rate")).to_have_count(0)
    entry.click()
    expect(line(page, "throughput", "long-0", "rate")).to_have_count(1)


def test_an_instance_keeps_its_colour_when_others_come_and_go(page: Page, simulation: Any, scenarios: Any) -> None:
    alone = scenarios.two(1)
    del alone.instances[0]
    simulation.show(page, scenarios.two(0), alone)
    expect(page.locator("#legend li")).to_have_text(["long-0"])
    expect(line(page, "throughput", "long-0", "rate")).to_have_class(re.compile("slot-1"))
    simulation.push(scenarios.two(2))
    expect(page.locator("#legend li")).to_have_text(["short-0", "long-0"])
    expect(line(page, "throughput", "long-0", "rate")).to_have_class(re.compile("slot-1"))
    expect(line(page, "throughput", "short-0", "rate")).to_have_class(re.compile("slot-0"))


def test_the_head_names_model_engine_policy_endpoint_and_uptime(page: Page, simulation: Any, scenarios: Any) -> None:
    simulation.show(page, scenarios.two(0))
    expect(page.locator("#state")).to_have_text("● ready")
    expect(page.locator("#facts > div")).to_have_text(
        [
            "modelsentence-transformers/all-MiniLM-L6-v2",
            "engineonnxruntime fp32",
            "longest256 tokens",
            "policyby-seqlen",
            "endpointhttp://127.0.0.1:8080",
            "up10 min 0 s",
            "version0.1.0",
        ]
    )
    expect(page).to_have_title("ready · sentence-transformers/all-MiniLM-L6-v2 · orchestrator")


def test_the_totals_add_up_the_instances(page: Page, simulation: Any, scenarios: Any) -> None:
    status = scenarios.two(0)
    for one, (rate, tokens) in zip(status.instances, ((600.0, 9000.0), (50.0, 8000.0)), strict=True):
        one.sequences_per_second, one.tokens_per_second = rate, tokens
    status.gateways[0].latency_ms = Quantiles(p50=4.25, p95=20.0, p99=61.0)
    status.router.queued, status.router.in_flight = 17, 5
    simulation.show(page, status)
    expect(page.locator("#figures dd")).to_have_text(["650", "17,000", "4.3", "61", "17", "5", "0"])


def test_with_several_gateways_the_latency_is_that_of_the_slowest_and_says_so(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    status = scenarios.two(0)
    slow = scenarios.two(0).gateways[0]
    slow.name, slow.latency_ms = "gateway-1", Quantiles(p50=9.0, p95=50.0, p99=700.0)
    status.gateways.append(slow)
    simulation.show(page, status)
    figure = page.locator("#figures > div", has_text="p99 ms of the slowest gateway")
    expect(figure.locator("dd")).to_have_text("700")
    expect(page.locator("#processes article")).to_have_count(3)


def test_the_table_has_a_row_per_instance_with_its_placement_and_figures(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    status = scenarios.two(0)
    one = status.instances[0]
    one.sequences_per_second, one.tokens_per_second = 600.0, 9000.0
    one.latency_ms, one.queue_depth = Quantiles(p50=2.0, p95=3.5, p99=6.25), 12
    simulation.show(page, status)
    row = page.locator('#instances-table tbody[data-instance="short-0"] > tr').first
    expect(row.locator("th")).to_have_text("short-0")
    expect(row.locator("td")).to_have_text(
        [
            "● ready",
            "4000",
            "1–64",
            "0",
            "0",
            "✔ bind node 0",
            "600",
            "9,000",
            "2",
            "3.5",
            "6.3",
            "12",
            "83 %",
            "3.4",
            "6.2 %",
            "312 MiB",
            "0",
        ]
    )
    expect(page.get_by_role("columnheader")).to_have_count(18 + 4)
    expect(page.get_by_role("rowheader", name="long-0")).to_have_count(1)


def test_a_bucket_with_replicas_never_fills_its_bar_while_another_waits_longer(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    status = scenarios.large(0)
    for one in status.instances:
        one.bucket, one.queue_depth = Bucket(min=1, max=32), 10
    status.instances[0].bucket, status.instances[0].queue_depth = Bucket(min=33, max=512), 35
    simulation.show(page, status)
    fills = page.locator("#queues .fill")
    expect(fills.nth(0)).to_have_attribute("style", re.compile("width: 100%"))
    expect(fills.nth(1)).to_have_attribute("style", re.compile("width: 50%"))


def test_a_queue_bar_grows_with_the_queue_on_one_scale_for_all(page: Page, simulation: Any, scenarios: Any) -> None:
    status = scenarios.two(0)
    status.instances[0].queue_depth, status.instances[1].queue_depth = 200, 50
    simulation.show(page, status)
    fills = page.locator("#instances-table .fill")
    expect(fills.nth(0)).to_have_attribute("style", re.compile(r"width: 100"))
    expect(fills.nth(1)).to_have_attribute("style", re.compile(r"width: 25"))
    expect(page.locator("#queues tbody tr").nth(0)).to_contain_text("1–64short-0200")


def test_replicas_of_a_bucket_share_a_row_of_the_queue_table_in_order_of_length(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    status = scenarios.large(0)
    status.instances.reverse()
    for one in status.instances:
        one.bucket, one.queue_depth, one.oldest_wait_ms = Bucket(min=1, max=32), 2, 7.0
    status.instances[0].bucket = Bucket(min=33, max=512)
    simulation.show(page, status)
    rows = page.locator("#queues tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0).locator("th")).to_have_text("1–32")
    expect(rows.nth(0).locator("td").nth(1)).to_have_text("14")
    expect(rows.nth(1).locator("th")).to_have_text("33–512")
    expect(rows.nth(1).locator("td").nth(1)).to_have_text("2")


def test_details_of_an_instance_open_by_keyboard_and_stay_open_over_updates(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    simulation.show(page, scenarios.two(0))
    name = page.locator("#instances-table").get_by_role("button", name="short-0")
    detail = page.locator('#instances-table tbody[data-instance="short-0"] .detail')
    expect(detail).to_be_hidden()
    name.focus()
    page.keyboard.press("Enter")
    expect(detail).to_contain_text("Why here1 cores of node 0")
    simulation.push(scenarios.two(1, short={"reasons": ["moved for a test"]}))
    expect(detail).to_contain_text("Why heremoved for a test")
    expect(name).to_have_attribute("aria-expanded", "true")
    expect(name).to_be_focused()


def test_a_failed_instance_is_told_first_with_its_error_and_what_to_do(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    failed = {"state": "failed", "last_error": "mbind refused on node 0", "verified": None, "pid": None}
    simulation.show(page, scenarios.two(0, short=failed, state="degraded", warnings=["2 cores only"]))
    expect(page.locator("#summary")).to_have_text("1 problem: 1 of 2 instances ready.")
    expect(page.locator("#problems li")).to_have_count(2)
    expect(page.locator("#problems li").nth(0)).to_have_text(
        "✖short-0 failed: mbind refused on node 0Next: orchestrator logs short-0, then orchestrator restart short-0"
    )
    expect(page.locator("#problems li").nth(1)).to_contain_text("2 cores only")
    expect(page.locator("body")).to_have_attribute("data-level", "bad")
    body = page.locator('#instances-table tbody[data-instance="short-0"]')
    expect(body.locator(".error")).to_have_text("Last error: mbind refused on node 0")
    expect(body.locator(".verified")).to_have_text("not running")
    expect(page.locator('#map .run[data-owner="short-0"]')).to_contain_text("✖ failed")
    expect(page).to_have_title(re.compile("^✖ degraded"))


@pytest.mark.parametrize("state", ["backoff", "failed"])
def test_what_the_orchestrator_says_of_a_state_in_words_too_is_told_once(
    page: Page, simulation: Any, scenarios: Any, state: str
) -> None:
    verified = Verified([1], [0], "bind", 4, matches_plan=False, notes=["on CPU 1"])
    said = [f"short-0 is in {state}: SIGKILL", "short-0 is not where it was planned: on CPU 1", "2 cores only"]
    down = {"state": state, "last_error": "SIGKILL", "verified": verified}
    simulation.show(page, scenarios.two(0, short=down, warnings=said))
    expect(page.locator("#problems li")).to_have_count(3)
    expect(page.locator("#problems li").nth(2)).to_contain_text("2 cores only")


def test_a_stream_that_ends_while_draining_is_said_to_have_stopped_as_asked(
    page: Page, simulation: Any, scenarios: Any, console: Any
) -> None:
    console.expect("/api/")
    simulation.show(page, scenarios.two(0, state="draining"))
    simulation.break_stream()
    expect(page.locator("#banner")).to_contain_text(
        "It was draining, so it has most likely stopped as it was asked to."
    )


def test_an_instance_that_recovered_takes_its_problem_away(page: Page, simulation: Any, scenarios: Any) -> None:
    simulation.show(page, scenarios.two(0, short={"state": "backoff", "last_error": "exit 139"}))
    expect(page.locator("#problems")).to_contain_text("short-0 is in backoff: exit 139")
    simulation.push(scenarios.two(1, short={"last_error": "exit 139"}))
    expect(page.locator("#problems li")).to_have_count(0)
    expect(page.locator("#summary")).to_have_text("All is well: 2 of 2 instances ready.")
    expect(page.locator('#instances-table tbody[data-instance="short-0"] .detail')).to_be_hidden()


def test_a_drained_instance_is_no_well_being_and_names_the_way_back(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    simulation.show(page, scenarios.two(0, state="degraded", short={"state": "drained"}))
    expect(page.locator("#summary")).to_have_text("1 problem: 1 of 2 instances ready.")
    expect(page.locator("#problems")).to_contain_text("short-0 is drained")
    expect(page.locator("#problems")).to_contain_text("orchestrator resume short-0")


def test_an_instance_that_runs_elsewhere_than_planned_says_where_the_kernel_has_it(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    verified = Verified([0, 1], [0], "default", 4, matches_plan=False, notes=["thread 7 may run on CPU 1"])
    simulation.show(page, scenarios.two(0, short={"verified": verified}))
    row = page.locator('#instances-table tbody[data-instance="short-0"]')
    expect(row.locator(".verified")).to_have_text("✖ no: thread 7 may run on CPU 1")
    expect(page.locator("#problems")).to_contain_text("short-0 is not where it was planned: thread 7 may run")


def test_draining_is_said_with_what_it_means(page: Page, simulation: Any, scenarios: Any) -> None:
    simulation.show(page, scenarios.two(0, state="draining"))
    expect(page.locator("#state")).to_have_text("◐ draining")
    expect(page.locator("#problems")).to_contain_text("Draining: New requests are refused with 503")


def test_without_any_ready_instance_the_page_says_that_requests_are_refused(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    status = scenarios.two(0, state="degraded")
    for one in status.instances:
        one.state = "backoff"
    simulation.show(page, status)
    expect(page.locator("#problems li").nth(0)).to_contain_text("No instance is ready: Requests are refused with 503")


def test_only_refusals_and_restarts_of_the_last_minutes_are_problems(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    def status(second: int, refused: int, restarts: int) -> Status:
        router = RouterStatus(state="ready", rejected={"queue_full": refused})
        made: Status = scenarios.two(second, short={"restarts": restarts}, router=router)
        return made

    simulation.show(page, status(0, 40, 2), status(1, 40, 2))
    expect(page.locator("#facts")).to_contain_text("10 min 1 s")
    expect(page.locator("#problems li")).to_have_count(0)
    simulation.push(status(2, 52, 3))
    expect(page.locator("#problems li")).to_have_count(2)
    expect(page.locator("#problems")).to_contain_text("refused in the last 5 minutes: queue_full 12")
    expect(page.locator("#problems")).to_contain_text("Restarts in the last 5 minutes: short-0 1")
    simulation.push(status(3, 5, 3))  # the router began anew and has refused five since
    expect(page.locator("#problems")).to_contain_text("queue_full 17")
    for second in range(4, 310):
        simulation.push(status(second, 5, 3))
    expect(page.locator("#problems li")).to_have_count(0)


def test_the_end_of_the_stream_makes_the_page_stale_and_its_return_live(
    page: Page, simulation: Any, scenarios: Any, console: Any
) -> None:
    console.expect("/api/")  # the browser reports a refused request as an error, whatever the page does with it
    stop_the_clock(page)
    simulation.show(page, scenarios.two(0), scenarios.two(1))
    expect(page.locator("#banner")).to_be_hidden()
    simulation.break_stream(503, b'{"error": "the supervisor is gone", "error_type": "unavailable"}')
    expect(page.locator("#banner")).to_be_visible()
    expect(page.locator("#banner")).to_contain_text(re.compile(r"Stale since \d\d:\d\d:\d\d\."))
    expect(page.locator("#banner")).to_contain_text("What follows is from then: the stream broke. Trying again.")
    page.clock.run_for(1_000)
    expect(page.locator("#banner")).to_contain_text("503: the supervisor is gone. Trying again.")
    expect(page.locator("body")).to_have_attribute("data-feed", "stale")
    expect(page.locator("#summary")).to_have_text("When last heard of: All is well: 2 of 2 instances ready.")
    expect(page.locator("main")).to_have_css("filter", "grayscale(1)")
    expect(page).to_have_title(re.compile("^stale"))
    simulation.mend()
    page.clock.run_for(2_000)
    simulation.wait_for_viewer(2)
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("body")).to_have_attribute("data-feed", "live")
    expect(page.locator("#summary")).to_have_text("All is well: 2 of 2 instances ready.")
    expect(page.locator("main")).to_have_css("filter", "none")


def test_a_stream_that_falls_silent_without_ending_is_stale_after_five_seconds_and_opened_anew_after_fifteen(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    stop_the_clock(page)
    simulation.show(page, scenarios.two(0))
    page.clock.run_for(5_000)
    expect(page.locator("body")).to_have_attribute("data-feed", "live")
    page.clock.run_for(1_000)
    expect(page.locator("body")).to_have_attribute("data-feed", "stale")
    expect(page.locator("#banner")).to_contain_text("the stream fell silent")
    expect(page.locator("#banner-age")).to_have_text("6 s ago")
    simulation.push(scenarios.two(1))
    expect(page.locator("body")).to_have_attribute("data-feed", "live")
    page.clock.run_for(18_000)
    simulation.wait_for_viewer(2)
    expect(page.locator("body")).to_have_attribute("data-feed", "live")


def test_before_the_first_document_the_page_says_what_it_waits_for(
    page: Page, simulation: Any, scenarios: Any, console: Any
) -> None:
    console.expect("/api/state")
    page.goto(f"{simulation.url}/dashboard")
    expect(page.locator("#banner")).to_have_text(
        re.compile(r"No data yet\. Waiting: the orchestrator answered 503: no state yet\. Trying again\.")
    )
    expect(page.locator("body")).to_have_attribute("data-feed", "connecting")
    expect(page.locator("#throughput .chart-empty")).to_have_text("No data yet")
    simulation.push(scenarios.two(0))
    expect(page.locator("body")).to_have_attribute("data-feed", "live")
    expect(page.locator("#banner")).to_be_hidden()


@pytest.mark.parametrize(
    ("sent", "said"),
    [(b"{", "cannot be read"), (b"null", 'no usable "time_unix"'), (b'{"time_unix": 1}', 'no usable "uptime_seconds"')],
)
def test_a_document_that_cannot_be_read_is_reported_and_the_last_good_one_kept(
    page: Page, simulation: Any, scenarios: Any, sent: bytes, said: str
) -> None:
    simulation.show(page, scenarios.two(0))
    simulation.push_text(sent)
    expect(page.locator("#banner")).to_contain_text(said)
    expect(page.locator("#map .core")).to_have_count(2)
    simulation.push(scenarios.two(1))
    expect(page.locator("body")).to_have_attribute("data-feed", "live")


def test_the_map_shows_who_runs_on_each_of_192_cpus(page: Page, simulation: Any, scenarios: Any) -> None:
    status = scenarios.large(0)
    simulation.show(page, status)
    expect(page.locator("#map .package")).to_have_count(2)
    expect(page.locator("#map .node")).to_have_count(4)
    drawn = page.locator("#map .pu").evaluate_all(
        "cells => cells.map(cell => [Number(cell.dataset.cpu), cell.dataset.kind, cell.dataset.owner ?? null])"
    )
    wanted = []
    for cpu in status.machine.cpus:
        if not cpu.online:
            kind, owner = "offline", None
        elif cpu.used_by == "housekeeping":
            kind, owner = "housekeeping", None
        elif cpu.used_by is not None:
            kind, owner = "instance", cpu.used_by
        elif cpu.sibling_of is not None:
            kind, owner = "sibling", cpu.sibling_of
        else:
            kind, owner = ("idle" if cpu.allowed else "barred"), None
        wanted.append([cpu.cpu, kind, owner])
    assert sorted(drawn) == wanted
    assert {kind for _, kind, _ in drawn} == {"instance", "sibling", "housekeeping", "idle", "barred", "offline"}


def test_every_node_of_the_map_holds_its_own_cpus_and_a_core_its_siblings(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    simulation.show(page, scenarios.large(0))
    node = page.locator('#map .node[data-node="2"]')
    cells = node.locator(".pu").evaluate_all("cells => cells.map(cell => Number(cell.dataset.cpu))")
    assert sorted(cells) == [*range(48, 72), *range(144, 168)]
    core = page.locator('#map .core[data-core="50"] .pu')
    expect(core).to_have_text(["50", "146"])
    title = node.locator('.run[data-owner="len192-0"][data-kind="instance"] .run-title')
    expect(title.locator("strong")).to_have_text("len192-0")
    expect(title.locator(".note")).to_have_text("8 cores, CPU 49–56")


def test_the_uses_of_a_cpu_differ_in_pattern_or_border_and_not_only_in_colour(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    simulation.show(page, scenarios.large(0))
    looks = page.evaluate(
        """() => ["instance", "sibling", "housekeeping", "idle", "barred", "offline"].map((kind) => {
            const look = getComputedStyle(document.querySelector(`#map .pu[data-kind="${kind}"]`));
            const gradients = look.backgroundImage.split("repeating-linear-gradient").length - 1;
            return [look.borderTopStyle, look.textDecorationLine, look.fontWeight, gradients].join(" ");
        })"""
    )
    assert len(set(looks)) == 6, looks


def test_the_map_is_walked_by_keyboard_and_tells_each_core_in_words(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    simulation.show(page, scenarios.large(0))
    assert page.locator('#map .core[tabindex="0"]').count() == 1
    page.locator('#map .core[tabindex="0"]').focus()
    tip = page.locator("#tip")
    expect(tip).to_contain_text("CPU 0 (thread 0): housekeeping")
    page.keyboard.press("ArrowRight")
    expect(tip).to_contain_text("Core 1, node 0, package 0, cache 0")
    expect(tip).to_contain_text("CPU 1 (thread 0): runs len16-0, ready, pid 4001")
    expect(tip).to_contain_text("CPU 97 (thread 1): kept idle beside len16-0")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#map .core:focus")).to_have_attribute("data-core", "9")
    page.keyboard.press("End")
    expect(tip).to_contain_text("CPU 191: offline")
    simulation.push(scenarios.large(1, housekeeping_cpus=[0]))
    expect(page.locator("#facts")).to_contain_text("10 min 1 s")
    expect(page.locator("#map .core:focus")).to_have_attribute("data-core", "191")
    expect(tip).to_contain_text("CPU 191: offline")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    simulation.push(scenarios.large(2, housekeeping_cpus=[0, 24]))
    expect(page.locator("#facts")).to_contain_text("10 min 2 s")
    expect(page.locator("#map .core:focus")).to_have_attribute("data-core", "191")
    expect(tip).to_be_hidden()


def test_cpus_of_unknown_place_are_shown_as_such(page: Page, simulation: Any, scenarios: Any) -> None:
    status = scenarios.two(0)
    raw = status.machine.cpus
    raw[1] = msgspec.structs.replace(raw[1], package=None, node=None, core=None, llc=None, online=False, used_by=None)
    simulation.show(page, status)
    unknown = page.locator("#map .package").nth(1)
    expect(unknown.locator("h3")).to_have_text("Package unknown")
    expect(unknown.locator(".node h4")).to_contain_text("Node unknown")
    expect(unknown.locator(".pu")).to_have_text("1")


def test_a_cpu_whose_user_is_no_instance_of_the_document_has_the_colour_of_none(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    status = scenarios.two(0)
    status.machine.cpus[1] = msgspec.structs.replace(status.machine.cpus[1], used_by="gone-0")
    simulation.show(page, status)
    expect(page.locator('#map .run[data-owner="gone-0"]')).to_contain_text("● unknown")
    expect(page.locator('#map .pu[data-cpu="1"]')).to_have_class("pu")


def test_hostile_names_stay_text(page: Page, simulation: Any, scenarios: Any) -> None:
    hostile = "<img src=x onerror=\"document.title='taken'\"><script>window.taken = 1</script>"
    status = scenarios.two(0, warnings=[hostile], endpoint=f"javascript:{hostile}")
    status.model = msgspec.structs.replace(status.model, id=hostile)
    one = status.instances[0]
    one.name, one.state, one.last_error, one.reasons = hostile, "failed", hostile, [hostile]
    status.machine.cpus[0] = msgspec.structs.replace(status.machine.cpus[0], used_by=hostile)
    status.gateways[0].name = status.router.state = hostile
    status.router.rejected = {hostile: 1}
    later = msgspec.structs.replace(status, time_unix=status.time_unix + 1, uptime_seconds=status.uptime_seconds + 1)
    simulation.show(page, status, later)
    expect(page.locator("#facts")).to_contain_text(hostile)
    expect(page.locator("#problems")).to_contain_text(hostile)
    expect(page.locator("#legend li").nth(0)).to_have_text(hostile)
    expect(page.locator("#map .run-title strong").nth(0)).to_have_text(hostile)
    page.locator("#instances-table").get_by_role("button").first.click()
    page.locator("#map .core").first.hover()
    page.locator("#throughput .chart-area").hover()
    assert page.evaluate("[window.taken ?? null, document.images.length, document.scripts.length]") == [None, 0, 1]


def test_a_name_of_a_property_of_every_object_is_an_instance_like_any_other(
    page: Page, simulation: Any, scenarios: Any
) -> None:
    statuses = [scenarios.two(second) for second in range(2)]
    for status in statuses:
        status.instances[0].name, status.instances[1].name = "__proto__", "constructor"
    simulation.show(page, *statuses)
    expect(page.locator("#legend li")).to_have_text(["__proto__", "constructor"])
    expect(line(page, "throughput", "__proto__", "rate")).to_have_attribute("d", re.compile("^M.*L"))


def test_the_policy_refuses_inline_script_and_parsed_markup(
    page: Page, simulation: Any, scenarios: Any, console: Any
) -> None:
    console.expect("Content Security Policy")
    console.expect("requires 'TrustedScript' assignment")
    console.expect("requires 'TrustedHTML' assignment")
    simulation.show(page, scenarios.two(0))
    outcome = page.evaluate(
        """() => {
            const script = document.createElement("script");
            try { script.textContent = "window.taken = 1"; document.body.append(script); } catch { /* refused earlier */ }
            try { document.body.innerHTML = "<b>taken</b>"; return "parsed"; } catch (error) { return error.name + (window.taken ?? ""); }
        }"""
    )
    assert outcome == "TypeError"


def test_the_page_works_behind_a_proxy_that_adds_a_prefix(page: Page, simulation: Any, scenarios: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    simulation.push(scenarios.two(0))
    page.goto(f"{simulation.url}/behind/a/proxy/dashboard")
    expect(page.locator("body")).to_have_attribute("data-feed", "live")
    assert [url for url in asked if not url.startswith(f"{simulation.url}/behind/a/proxy/")] == []


def test_a_fault_of_the_page_itself_is_shown_and_does_not_look_like_a_quiet_system(
    page: Page, simulation: Any, scenarios: Any, console: Any
) -> None:
    console.expect("TypeError")
    simulation.show(page, scenarios.two(0))
    strange = msgspec.json.decode(msgspec.json.encode(scenarios.two(1)))
    del strange["instances"][0]["latency_ms"]
    simulation.push_text(msgspec.json.encode(strange))
    expect(page.locator("#banner")).to_contain_text("This page failed to draw the state.")
    simulation.push(scenarios.two(2))
    expect(page.locator("#banner")).to_be_hidden()


@pytest.mark.parametrize("width", [360, 390, 768, 1024, 1600])
@pytest.mark.parametrize("machine", ["two", "large"])
def test_nothing_sticks_out_sideways(
    open_page: Callable[..., Page], simulation: Any, scenarios: Any, width: int, machine: str
) -> None:
    page = open_page(viewport={"width": width, "height": 900})
    make = getattr(scenarios, machine)
    long = "sentence-transformers/" + "a" * 90
    simulation.show(page, make(0, warnings=[long], policy=long), make(1, warnings=[long], policy=long))
    expect(page.locator("#problems")).to_contain_text(long)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_on_a_phone_every_figure_of_an_instance_is_labelled_and_still_a_table(
    open_page: Callable[..., Page], simulation: Any, scenarios: Any
) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True)
    simulation.show(page, scenarios.two(0))
    cell = page.locator('#instances-table tbody[data-instance="long-0"] td[data-label="p99 ms"]')
    assert cell.evaluate("cell => getComputedStyle(cell, '::before').content") == '"p99 ms"'
    expect(cell).to_be_visible()
    expect(page.get_by_role("table", name="Every instance")).to_have_count(1)
    expect(page.locator("#instances-table").get_by_role("row")).to_have_count(3)


CONTRAST = """() => {
    const light = (rgb) => rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const paint = (colours) => {
        canvas.clearRect(0, 0, 1, 1);
        for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const low = [];
    let checked = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        const said = walker.currentNode.data.trim();
        if (!said || !element.getClientRects().length) continue;
        if (element.closest("[hidden], .visually-hidden, noscript, .skip")) continue;
        const behind = [];
        for (let at = element; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
        const look = getComputedStyle(element);
        const colour = element instanceof SVGElement ? look.fill : look.color;
        const [a, b] = [light(paint([...behind, colour])), light(paint(behind))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        checked += 1;
        if (ratio < 4.5) low.push(`${ratio.toFixed(2)} ${element.tagName} ${element.className} "${said}"`);
    }
    return { checked, low: [...new Set(low)] };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", ["well", "troubled", "stale"])
def test_all_text_has_the_contrast_that_wcag_aa_asks_for(
    open_page: Callable[..., Page], simulation: Any, scenarios: Any, console: Any, scheme: str, state: str
) -> None:
    console.expect("/api/")
    page = open_page(color_scheme=scheme)
    troubled = scenarios.large(1, warnings=["a note"], state="degraded")
    troubled.instances[0].state, troubled.instances[0].last_error = "failed", "an error"
    troubled.instances[1].state = "backoff"
    troubled.instances[2].state = "starting"
    troubled.instances[3].verified = Verified([1], [1], "default", 4, matches_plan=False, notes=["elsewhere"])
    simulation.show(page, scenarios.large(0), troubled if state == "troubled" else scenarios.large(1))
    verdict = "3 problems: 5 of 8 instances ready." if state == "troubled" else "All is well: 8 of 8 instances ready."
    expect(page.locator("#summary")).to_have_text(verdict)
    if state == "stale":
        simulation.break_stream()
        expect(page.locator("#banner")).to_be_visible()
    found = page.evaluate(CONTRAST)
    assert found["checked"] > 300
    assert found["low"] == []


def test_nothing_moves_where_reduced_motion_is_asked_for(
    open_page: Callable[..., Page], simulation: Any, scenarios: Any
) -> None:
    pulse = "getComputedStyle(document.getElementById('feed'), '::before').animationName"
    for preference, animation in (("no-preference", "pulse"), ("reduce", "none")):
        page = open_page(reduced_motion=preference)
        simulation.push(scenarios.two(0))
        page.goto(f"{simulation.url}/dashboard")
        expect(page.locator("body")).to_have_attribute("data-feed", "live")
        assert page.evaluate(pulse) == animation


def test_the_page_asks_nobody_but_its_own_origin(page: Page, simulation: Any, scenarios: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    simulation.show(page, scenarios.two(0))
    paths = {url.removeprefix(simulation.url) for url in asked}
    assert {"/dashboard/main.js", "/dashboard/style.css", "/api/state", "/api/stream"} <= paths
    assert [url for url in asked if not url.startswith(f"{simulation.url}/")] == []


def test_round_numbers_and_ranges_are_made_as_documented(page: Page, simulation: Any, scenarios: Any) -> None:
    simulation.show(page, scenarios.two(0))
    assert page.evaluate(
        """async () => {
            const { ranges, number, duration, effort, bytes, percent } = await import("/dashboard/view.js");
            const { linearTicks, logTicks, pathData, spread } = await import("/dashboard/charts.js");
            return {
                ranges: [[], [3], [0, 1, 2, 48], [5, 4, 9, 10]].map(ranges),
                number: [null, NaN, 0, 7, 0.4213, 7.06, 99.94, 128.4, 12345.6].map(number),
                effort: [0.04, 59.9, 63, null].map(effort),
                duration: [0, 59.9, 61, 3661, 90061, null].map(duration),
                bytes: [null, 512, 1536, 327155712, 5e12].map(bytes),
                percent: [0, 0.062, 0.5, 1].map(percent),
                linear: [0.3, 7, 100, 730].map((top) => linearTicks(top)),
                log: [logTicks(2, 30), logTicks(5, 5), logTicks(0.4, 9000)],
                path: pathData([[0, 1], [1, 2], [9, 3], [10, null], [11, 4]], 3),
                spread: spread([{ y: 10 }, { y: 11 }, { y: 99 }], 0, 100, 12).map(({ y }) => y).sort((a, b) => a - b),
            };
        }"""
    ) == {
        "ranges": ["–", "3", "0–2, 48", "4–5, 9–10"],
        "number": ["–", "–", "0", "7", "0.42", "7.1", "99.9", "128", "12,346"],
        "duration": ["0 s", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h", "–"],
        "effort": ["0.0 s", "59.9 s", "1 min 3 s", "–"],
        "bytes": ["–", "512 B", "1.5 KiB", "312 MiB", "4.5 TiB"],
        "percent": ["0 %", "6.2 %", "50 %", "100 %"],
        "linear": [
            [[0, 0.1, 0.2, 0.3], pytest.approx(0.3)],
            [[0, 2, 4, 6, 8], 8],
            [[0, 25, 50, 75, 100], 100],
            [[0, 200, 400, 600, 800], 800],
        ],
        "log": [
            [[2, 5, 10, 20, 50], 2, 50],
            [[5, 10], 5, 10],
            [[1, 10, 100, 1000, 10000], 0.2, 10000],
        ],
        "path": "M0.0 1.0L1.0 2.0M9.0 3.0h0M11.0 4.0h0",
        "spread": [10, 22, 99],
    }
