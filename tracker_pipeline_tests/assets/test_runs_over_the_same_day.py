"""Two runs that make the same day end in the order in which they began to read."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event
from time import monotonic, sleep

import dagster as dg
import polars as pl
import pytest

from tracker_pipeline.assets import regimes as assets
from tracker_pipeline.domain.schemas import BARS, REGIMES, SETUPS
from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.day_locks import only_maker
from tracker_pipeline.storage.io_managers import ParquetIOManager, PostgresIOManager
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars

START = datetime(2024, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
RESOURCES = {"postgres": PostgresIOManager(), "parquet": ParquetIOManager()}


def write(frame: pl.DataFrame) -> None:
    with connect() as connection:
        write_window(connection, BARS["15m"], frame, (START, START + 4 * DAY), run_id="r")


def judge_the_third_day() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([assets.regimes], partition_key="2024-05-03", resources=RESOURCES, instance=instance)


def waits_for_a_lock() -> bool:
    with connect() as connection:
        found = connection.execute(
            "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            " WHERE locktype = 'advisory' AND NOT granted AND datname = current_database())"
        ).fetchone()
    return bool(found and found[0])


def until(holds: Callable[[], bool]) -> None:
    end = monotonic() + 20
    while not holds():
        assert monotonic() < end
        sleep(0.02)


def test_what_was_read_before_a_correction_never_replaces_what_was_read_after_it(own_database, monkeypatch):
    frame = bars(count=96 * 3)
    write(frame)
    has_read, may_go_on = Event(), Event()
    reference_bars = assets.reference_bars

    def slow_at_first(timeframe: str, start: datetime, end: datetime) -> pl.DataFrame:
        found = reference_bars(timeframe, start, end)
        if timeframe == "15m" and not has_read.is_set():
            has_read.set()
            assert may_go_on.wait(20)
        return found

    monkeypatch.setattr(assets, "reference_bars", slow_at_first)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(judge_the_third_day)
        assert has_read.wait(20)
        write(frame.with_columns(close=pl.when(pl.int_range(pl.len()) == 250).then(300.5).otherwise("close")))
        fast = pool.submit(judge_the_third_day)
        until(lambda: fast.done() or waits_for_a_lock())
        may_go_on.set()
        slow.result()
        fast.result()
    found = scan(REGIMES.name).filter(pl.col("ts") == START + 250 * timedelta(minutes=15)).collect()
    assert found.item(0, "change_1h_pct") == pytest.approx(100 * (300.5 / 347 - 1))


def test_days_that_overlap_wait_and_other_days_and_tables_do_not(own_database):
    def make(first: datetime, last: datetime) -> None:
        with only_maker(REGIMES, first, last):
            pass

    with ThreadPoolExecutor(1) as pool:
        with only_maker(REGIMES, START, START + 2 * DAY):
            make(START + 2 * DAY, START + 3 * DAY)
            with only_maker(SETUPS, START, START + DAY):
                pass
            overlapping = pool.submit(make, START + DAY, START + 4 * DAY)
            until(waits_for_a_lock)
            assert not overlapping.done()
        overlapping.result(20)


def test_a_lock_that_was_lost_meanwhile_is_said(own_database):
    with (
        pytest.raises(TransientError, match="these days are made again"),
        only_maker(REGIMES, START, START + DAY),
        connect() as connection,
    ):
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
