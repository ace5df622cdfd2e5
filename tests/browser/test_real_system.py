"""Does the dashboard of a real system, under real load, show both instances at work?"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.timeout(180)


def line(page: Page, chart: str, instance: str) -> str:
    path = page.locator(f'#{chart} path[data-instance="{instance}"]').first
    return path.get_attribute("d") or ""


def test_the_lines_of_both_instances_move_under_load_and_the_page_has_no_complaint(
    page: Page, shared_system: Any, load_on: Callable[[Any], Any]
) -> None:
    load = load_on(shared_system)
    load.start(8)
    load.until_answered(10)
    page.goto(f"http://127.0.0.1:{shared_system.port}/dashboard")
    expect(page.locator("body")).to_have_attribute("data-feed", "live")
    for instance in ("short-0", "long-0"):
        for chart in ("throughput", "latency"):
            page.wait_for_function(
                """([chart, instance]) => {
                    const path = document.querySelector(`#${chart} path[data-instance="${instance}"]`);
                    return path && (path.getAttribute("d") || "").includes("L");
                }""",
                arg=[chart, instance],
            )
        before = line(page, "throughput", instance)
        page.wait_for_function(
            """([instance, before]) =>
                document.querySelector(`#throughput path[data-instance="${instance}"]`).getAttribute("d") !== before""",
            arg=[instance, before],
        )
        row = page.locator(f'#instances-table tbody[data-instance="{instance}"]')
        expect(row.locator(".verified")).to_contain_text("✔ bind")
    expect(page.locator("#map")).to_contain_text("short-0")
    expect(page.locator("#map")).to_contain_text("long-0")
    remembered = json.loads(shared_system.get("/api/history")[1])["points"]
    shown = [at for at in remembered if at > remembered[-1] - 240]  # of five minutes, which go on meanwhile
    page.reload()
    page.wait_for_function(
        """wanted => {
            const path = document.querySelector('#throughput path[data-instance="short-0"]');
            return path && ((path.getAttribute("d") || "").match(/[ML]/g) || []).length >= wanted;
        }""",
        arg=len(shown),
    )
    expect(page.locator("#charts-note")).to_have_text("")
    expect(page.locator("#events li").filter(has_text="short-0 starting → ready")).to_have_count(1)
    load.stop()
    assert [outcome for outcome in load.outcomes if outcome.code != 200 or outcome.wrong] == []
