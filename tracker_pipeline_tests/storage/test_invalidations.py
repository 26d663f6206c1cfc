"""Bars that were corrected or came late are recorded with them; bars that extend a series or repeat it are not."""

from datetime import UTC, datetime, timedelta

import polars as pl

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.storage.archive import move_day
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.invalidations import Invalidation, invalidations_after
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars

START = datetime(2024, 5, 1, tzinfo=UTC)
STEP = timedelta(minutes=15)


def write(frame: pl.DataFrame, timeframe: str = "15m") -> None:
    with connect() as connection:
        write_window(connection, BARS[timeframe], frame, (START, START + timedelta(days=3)), run_id="r")


def recorded(after: int = 0) -> list[Invalidation]:
    with connect() as connection:
        return invalidations_after(connection, after)


def corrected(frame: pl.DataFrame, *places: int) -> pl.DataFrame:
    changed = pl.int_range(pl.len()).is_in(list(places))
    return frame.with_columns(close=pl.when(changed).then(pl.col("close") + 0.5).otherwise("close"))


def test_a_series_that_grows_or_is_fetched_again_invalidates_nothing(own_database):
    write(bars(count=4))
    write(bars(count=8))
    write(bars(count=8))
    assert recorded() == []


def test_a_correction_invalidates_its_interval_and_nothing_else(own_database):
    write(bars(count=8))
    write(corrected(bars(count=8), 2, 4))
    (found,) = recorded()
    assert (found.symbol, found.timeframe) == ("BTC/USDT", "15m")
    assert (found.start, found.end) == (START + 2 * STEP, START + 5 * STEP)


def test_a_bar_that_fills_a_hole_is_late(own_database):
    whole = bars(count=8)
    write(whole.filter(pl.col("ts") != START + 3 * STEP))
    write(whole)
    (found,) = recorded()
    assert (found.start, found.end) == (START + 3 * STEP, START + 4 * STEP)


def test_minutes_are_late_where_quarters_were_there_before_them(own_database):
    write(bars("1m", count=30), "1m")
    write(bars(count=8))
    assert recorded() == []
    write(bars("1m", count=150), "1m")
    (found,) = recorded()
    assert (found.timeframe, found.start, found.end) == ("1m", START + 2 * STEP, START + 8 * STEP)
    write(bars("1m", count=200), "1m")
    assert recorded(found.transaction_id) == []


def test_symbols_do_not_concern_each_other(own_database):
    write(bars(count=8, symbol="BTC/USDT"))
    write(bars(count=4, symbol="ETH/USDT"))
    assert recorded() == []


def test_a_correction_of_an_archived_bar_is_recorded(own_database):
    write(bars(count=96))
    move_day(BARS["15m"], START.date(), cut=START + timedelta(days=9), run_id="r")
    write(corrected(bars(count=96), 10))
    (found,) = recorded()
    assert found.start == START + 10 * STEP


def test_each_day_is_recorded_by_itself_and_a_reader_goes_on_from_where_it_was(own_database):
    write(bars(count=192))
    write(corrected(bars(count=192), 5, 100))
    first, second = recorded()
    assert (first.start.date().day, second.start.date().day) == (1, 2)
    assert recorded(after=second.transaction_id) == []
    write(corrected(bars(count=192), 5, 100, 150))
    (later,) = recorded(after=second.transaction_id)
    assert (later.start, later.end) == (START + 150 * STEP, START + 151 * STEP)


def test_a_transaction_that_is_still_open_holds_back_those_after_it(own_database):
    write(bars(count=8))
    with connect() as slow:
        slow.execute("SELECT pg_current_xact_id()")
        write(corrected(bars(count=8), 2))
        assert recorded() == []
    assert len(recorded()) == 1
