"""A person at the web interface: groups, one partition made, a backfill, a schedule switched off, a failed check."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tracker_pipeline.definitions import defs
from tracker_pipeline_tests.integration.browser import CHROMIUM, IMAGES, page_of

TRACKER = Path(sys.executable).with_name("tracker")
MINUTES = 60_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


@pytest.fixture(scope="module")
def interface(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """`tracker up` on a fresh state folder, and that folder."""
    home = tmp_path_factory.mktemp("ui")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TRACKER_", "DAGSTER_"))}
    with (home / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [TRACKER, "up", "--port", str(port)],
            env={**environment, "TRACKER_HOME": str(home)},
            cwd=home,
            stdout=log,
            stderr=log,
        )
    base = f"http://127.0.0.1:{port}"
    try:
        _wait_until_served(base)
        yield base, home
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(120)


def _wait_until_served(base: str) -> None:
    deadline = time.monotonic() + 240
    query = {"query": "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }"}
    while time.monotonic() < deadline:
        try:
            answer = httpx.post(f"{base}/graphql", json=query, timeout=30).json()
            if [e["loadStatus"] for e in answer["data"]["workspaceOrError"]["locationEntries"]] == ["LOADED"]:
                return
        except (httpx.HTTPError, KeyError, ValueError):
            time.sleep(0.5)
    raise AssertionError("the web interface did not come up")


def _database_url(home: Path) -> str:
    return subprocess.run(
        [TRACKER, "db", "url"],
        env={**os.environ, "TRACKER_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def _launch(page: Any, button: Any) -> None:
    """Click, and wait for the answer: leaving the page earlier would take the request back."""
    launches = re.compile('"operationName":"Launch(Pipeline|Partition|Multiple)')
    with page.expect_response(lambda answer: launches.search(answer.request.post_data or "") is not None):
        button.click()


def test_a_person_finds_materializes_backfills_switches_off_and_sees_what_failed(interface):
    base, home = interface
    with page_of(base) as page:
        _sees_every_group(page)
        _materializes_the_universe_and_one_hour_of_balances(page)
        _looks_at_what_was_stored(page, home)
        _launches_a_backfill_of_24_hours(page)
        _switches_a_schedule_off_and_on(page)
        _sees_a_failed_check(page, home)


def _sees_every_group(page: Any) -> None:
    page.goto("/asset-groups")
    for group in {spec.group_name for spec in defs.resolve_all_asset_specs()}:
        page.get_by_text(group, exact=True).filter(visible=True).first.wait_for()


def _materializes_the_universe_and_one_hour_of_balances(page: Any) -> None:
    page.goto("/assets/onchain/whale_universe")
    _launch(page, page.get_by_role("button", name="Materialize").first)
    page.goto("/assets/onchain/whale_universe?view=checks")
    page.get_by_text("Passed", exact=True).filter(visible=True).first.wait_for(timeout=4 * MINUTES)
    page.goto("/assets/onchain/whale_balance_snapshots?view=partitions")
    page.get_by_role("button", name="Materialize…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Latest").click()
    dialog.get_by_text("1 partition", exact=True).first.wait_for()
    _launch(page, dialog.get_by_role("button", name="Launch"))
    page.goto("/assets/onchain/whale_balance_snapshots?view=partitions")
    page.get_by_text("Materialized (1)").first.wait_for(timeout=4 * MINUTES)


def _choose(dialog: Any, partitions: str) -> None:
    chosen = dialog.locator("input[placeholder]").filter(visible=True).first
    chosen.fill(partitions)
    chosen.press("Enter")


def _looks_at_what_was_stored(page: Any, home: Path) -> None:
    page.goto("/assets/onchain/whale_balance_snapshots?view=events")
    page.get_by_text("ether of all addresses").filter(visible=True).first.wait_for()
    newest = page.locator("table:has(th:text-is('whale_address'))").last
    newest.filter(visible=True).wait_for()
    assert newest.get_by_role("row").count() == 1 + 6
    page.goto("/assets/onchain/whale_balance_snapshots")
    page.get_by_text("docs/onchain.md").filter(visible=True).first.wait_for()
    page.get_by_text('tracker sql "FROM onchain.whale_balance_snapshots').filter(
        visible=True
    ).first.wait_for()
    with psycopg.connect(_database_url(home)) as connection:
        hours = connection.execute("SELECT max(snapshot_timestamp) FROM onchain.whale_balance_snapshots")
        (hour,) = hours.fetchone() or (None,)
    page.goto("/assets/onchain/steth_rates?view=partitions")
    page.get_by_role("button", name="Materialize…").click()
    dialog = page.get_by_role("dialog")
    _choose(dialog, f"{hour.astimezone(UTC):%Y-%m-%d-%H}:00")
    dialog.get_by_text("1 partition", exact=True).first.wait_for()
    _launch(page, dialog.get_by_role("button", name="Launch"))
    page.goto("/assets/onchain/steth_rates?view=partitions")
    page.get_by_text("Materialized (1)").first.wait_for(timeout=4 * MINUTES)
    page.goto("/assets/onchain/steth_rates?view=events")
    chart = page.locator("img[alt=chart]").filter(visible=True).first
    chart.wait_for()
    assert chart.evaluate("image => image.naturalWidth") == 270  # drawn, and not a broken picture


def _launches_a_backfill_of_24_hours(page: Any) -> None:
    page.goto("/assets/onchain/whale_balance_snapshots?view=partitions")
    page.get_by_role("button", name="Materialize…").click()
    dialog = page.get_by_role("dialog")
    last = datetime.now(UTC) - timedelta(hours=2)
    first = last - timedelta(hours=23)
    _choose(dialog, f"[{first:%Y-%m-%d-%H}:00...{last:%Y-%m-%d-%H}:00]")
    dialog.get_by_text("24 partitions", exact=True).first.wait_for()
    dialog.get_by_role("button", name="Launch backfill").click()
    dialog.wait_for(state="hidden")
    page.goto("/runs?view=backfills")
    page.get_by_text("24 partitions").first.wait_for()


def _switches_a_schedule_off_and_on(page: Any) -> None:
    page.goto("/locations/tracker_pipeline/schedules/labels_daily")
    switch = page.locator("label:has(input[type=checkbox])").first
    box = switch.locator("input")
    for wanted in (False, True):
        switch.click()
        page.wait_for_function(
            "([box, wanted]) => box.checked === wanted", arg=[box.element_handle(), wanted], timeout=MINUTES
        )


def _sees_a_failed_check(page: Any, home: Path) -> None:
    with psycopg.connect(_database_url(home)) as connection:
        connection.execute("ALTER TABLE onchain.whale_universe ADD COLUMN stray text")
    page.goto("/assets/onchain/whale_universe?view=checks")
    _launch(page, page.get_by_text("Execute all", exact=True).filter(visible=True).first)
    page.goto("/assets/onchain/whale_universe?view=checks")
    page.get_by_text("Failed", exact=True).filter(visible=True).first.wait_for(timeout=4 * MINUTES)


def test_the_screenshots_of_the_readme_are_small():
    images = sorted(IMAGES.glob("*.png"))
    assert images
    assert all(image.stat().st_size < 200_000 for image in images)
