"""The views of recent bars answer from the rows as they are, and open only the partitions that can hold an answer."""

import re
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tracker_pipeline.domain.schemas import BARS, INSTRUMENTS
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.hot_partitions import ensure_partitions
from tracker_pipeline.storage.query import run_query
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars

NOW = datetime.now(UTC)


def write(frame: pl.DataFrame, timeframe: str = "15m") -> None:
    times = frame.get_column("ts")
    window = (times.min(), times.max() + timedelta(days=1))
    instruments = frame.select("venue", "symbol").unique()
    listed = instruments.with_columns(
        base=pl.lit("B"),
        quote=pl.lit("Q"),
        native_symbol=pl.lit("N"),
        market_type=pl.lit("spot"),
        tier=pl.lit("t"),
    )
    with connect() as connection:
        write_window(connection, BARS[timeframe], frame, window, run_id="r")
        write_window(connection, INSTRUMENTS, listed, None, run_id="r")


def quarters(age: timedelta, count: int, **more) -> pl.DataFrame:
    start = datetime.now(UTC) - age
    return bars(
        start=start - (start - datetime.min.replace(tzinfo=UTC)) % timedelta(minutes=15), count=count, **more
    )


def rows(statement: str) -> list[tuple]:
    with connect() as connection:
        return connection.execute(statement).fetchall()


def plan(statement: str) -> str:
    return "\n".join(row[0] for row in rows(f"EXPLAIN (COSTS OFF) {statement}"))


@pytest.mark.parametrize(
    ("view", "age"), [("ohlc_today", timedelta(hours=24)), ("ohlc_recent", timedelta(days=7))]
)
def test_a_view_of_recent_bars_holds_exactly_those_of_its_window(own_database, view, age):
    frame = quarters(age + timedelta(hours=2), 12)
    write(frame)
    write(bars("1h", start=frame.item(0, "ts").replace(minute=0), count=4), "1h")
    found = rows(f"SELECT timeframe, ts FROM market.{view} ORDER BY 1, 2")
    with connect() as connection:
        (edge,) = connection.execute("SELECT now() - %s", [age]).fetchone()
    assert found
    assert {timeframe for timeframe, _ in found} == {"15m", "1h"}
    quarter_times = [ts for timeframe, ts in found if timeframe == "15m"]
    assert quarter_times == [ts for ts in frame.get_column("ts") if ts >= edge]


def test_the_latest_bar_is_the_newest_of_each_instrument_however_old_and_as_it_is_now(own_database):
    write(quarters(timedelta(hours=3), 8, symbol="BTC/USDT"))
    write(quarters(timedelta(days=90), 8, symbol="STOPPED/USDT"))
    write(bars("1d", start=datetime(2020, 1, 1, tzinfo=UTC), count=3, symbol="STOPPED/USDT"), "1d")
    latest = rows("SELECT symbol, timeframe, ts, close FROM market.latest_bars ORDER BY 1, 2")
    assert [(symbol, timeframe) for symbol, timeframe, *_ in latest] == [
        ("BTC/USDT", "15m"),
        ("STOPPED/USDT", "15m"),
        ("STOPPED/USDT", "1d"),
    ]
    assert latest[2][2] == datetime(2020, 1, 3, tzinfo=UTC)
    newest = quarters(timedelta(hours=3), 8).tail(1)
    assert latest[0][2:] == newest.select("ts", "close").row(0)
    write(newest.with_columns(close=pl.lit(108.5)))
    assert rows("SELECT close, revision FROM market.latest_bars WHERE symbol = 'BTC/USDT'") == [(108.5, 2)]


def test_the_views_are_there_in_sql_beside_the_tables(own_database):
    write(quarters(timedelta(hours=3), 8))
    latest = run_query("SELECT symbol, close, timeframe FROM market.latest_bars WHERE timeframe = '15m'")
    assert latest.rows() == [("BTC/USDT", 108.0, "15m")]
    today = run_query(
        "SELECT count(*) FROM market.ohlc_today t JOIN market.ohlc_15m b USING (venue, symbol, ts)"
    )
    assert today.item() == 8


@pytest.mark.parametrize(
    ("statement", "lookback_days", "ahead"),
    [
        (
            "SELECT * FROM market.ohlc_today WHERE timeframe = '15m' AND venue = 'bybit' AND symbol = 'BTC/USDT'",
            2,
            timedelta(days=1),
        ),
        (
            "SELECT * FROM market.ohlc_recent WHERE timeframe = '15m' AND symbol = 'BTC/USDT'",
            8,
            timedelta(days=1),
        ),
        ("SELECT * FROM market.latest_bars WHERE timeframe = '15m'", 2, timedelta(hours=1)),
    ],
)
def test_a_plan_opens_only_the_partitions_that_can_hold_an_answer(
    own_database, statement, lookback_days, ahead
):
    write(quarters(timedelta(hours=3), 8))
    with connect() as connection, connection.transaction():
        made = ensure_partitions(connection, BARS["15m"], NOW - timedelta(days=60), NOW + timedelta(days=1))
    assert len(made) >= 59
    first = datetime.now(UTC) - timedelta(days=lookback_days)
    opened = set(re.findall(r"market_ohlc_\w+?(?=_pkey|\s)", plan(statement)))
    last = datetime.now(UTC) + ahead
    days = [first + timedelta(days=day) for day in range((last.date() - first.date()).days + 1)]
    assert opened
    assert opened <= {f"market_ohlc_15m_{day:%Y_%m_%d}" for day in days}


def test_a_plan_that_is_kept_gives_no_row_that_has_grown_too_old(own_database):
    # Planned now, used later: the condition on the time of planning is then a day too generous, the other is exact.
    write(quarters(timedelta(hours=30), 40))
    with connect() as connection:
        statement = "SELECT count(*), min(ts) >= now() - interval '24 hours' FROM market.ohlc_today"
        answers = [connection.execute(statement, prepare=True).fetchone() for _ in range(7)]
    (answer,) = set(answers)
    assert answer[0] in (15, 16)
    assert answer[1]
