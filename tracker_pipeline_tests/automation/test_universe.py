"""A new version of the watched addresses is read at once, and once."""

from datetime import UTC, datetime

import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.automation.universe import versions_to_read
from tracker_pipeline.domain import schemas
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.writing import write_window

NOW = datetime(2026, 3, 2, 7, 20, tzinfo=UTC)


def store_version(version: str) -> None:
    row = {
        "network": "ethereum", "version": version, "whale_address": f"0x{1:040x}", "category": "whale",
        "excluded": False, "source": "list",
    }  # fmt: skip
    with connect() as connection:
        write_window(connection, schemas.WHALE_UNIVERSE, pl.DataFrame([row]), None, run_id="r")


def test_only_a_version_that_comes_after_the_first_asks_for_the_newest_hour(own_database):
    empty = versions_to_read(None, NOW)
    store_version("a")
    first = versions_to_read(empty.cursor, NOW)
    assert not first.run_requests
    store_version("b")
    second = versions_to_read(first.cursor, NOW)
    (request,) = second.run_requests
    assert request.partition_key == "2026-03-02-07:00"
    assert request.asset_selection == [
        keys.WHALE_BALANCE_SNAPSHOTS,
        keys.STETH_RATES,
        keys.ACCUMULATION_SCORES,
    ]
    assert versions_to_read(first.cursor, NOW).run_requests[0].run_key == request.run_key
    assert not versions_to_read(second.cursor, NOW).run_requests
