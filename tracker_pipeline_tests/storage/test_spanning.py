"""Hot and cold rows read as one table: filters reach both sides, and none brings back what a correction replaced."""

from datetime import UTC, date, datetime, time, timedelta, timezone

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import archive, scan
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.lake_store import lake_store
from tracker_pipeline.storage.query import run_query
from tracker_pipeline.storage.snapshots import Snapshot
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars
from tracker_pipeline_tests.stores import lake_files, plant_file

DAY = date(2024, 5, 1)
START = datetime(2024, 5, 1, tzinfo=UTC)
AFTER = datetime(2024, 6, 1, tzinfo=UTC)
TABLE = BARS["15m"]
SYMBOLS = ("BTC/USDT", "ETH/USDT", "O\"D'D\\/USDT")


def write(frame: pl.DataFrame) -> None:
    with connect() as connection:
        write_window(connection, TABLE, frame, (START, START + timedelta(days=2)), run_id="run-1")


@pytest.fixture
def two_days(own_database):
    """Three symbols on two days: the first day is cold, the second one hot."""
    frame = pl.concat([bars(count=192, symbol=symbol, price=100.0 + i) for i, symbol in enumerate(SYMBOLS)])
    write(frame)
    archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    return frame.sort(TABLE.key)


@pytest.fixture
def fetched(monkeypatch):
    """How many rows of the table each read of Postgres brought."""
    counts: list[int] = []
    whole = Snapshot.read

    def read(self, statement):
        rows = whole(self, statement)
        if "ohlc_15m" in statement:
            counts.append(rows.height)
        return rows

    monkeypatch.setattr(Snapshot, "read", read)
    return counts


def test_a_filter_on_one_symbol_fetches_its_rows_only(two_days, fetched):
    found = scan(TABLE.name, predicate=pl.col("symbol") == "ETH/USDT").collect()
    assert found.height == 192
    assert sum(fetched) == 96


def test_a_few_days_of_one_symbol_are_its_rows_of_everything_wherever_they_are(each_store, two_days):
    hot_again = two_days.filter(symbol="BTC/USDT").slice(40, 1)
    write(hot_again.with_columns(close=pl.lit(999.0), high=pl.lit(1_000.0)))
    one = (pl.col("venue") == "bybit") & (pl.col("symbol") == "BTC/USDT")
    whole = scan(TABLE.name).collect().sort(TABLE.key).filter(one)
    assert whole.filter(close=999.0).height == 1
    hour = timedelta(hours=1)

    def all_windows_agree():
        for first, last in ((0, 24), (7, 12), (18, 30), (24, 48), (30, 31), (0, 48), (-9, -1), (5, 5)):
            start, end = START + first * hour, START + last * hour
            expected = whole.filter(pl.col("ts").is_between(start, end, closed="left"))
            for columns in (list(whole.columns), ["close", "symbol", "ts"], ["venue"]):
                found = scan(TABLE.name, start, end, columns=columns, predicate=one).collect()
                assert found.equals(expected.select(columns))
                assert found.schema == expected.select(columns).schema

    all_windows_agree()
    archive.move_day(TABLE, DAY + timedelta(days=1), cut=AFTER, run_id="r")
    all_windows_agree()
    archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    all_windows_agree()


def test_a_few_days_whose_file_is_broken_or_gone_say_so(each_store, two_days):
    one = (pl.col("venue") == "bybit") & (pl.col("symbol") == "BTC/USDT")
    plant_file(lake_files()[0], b"not what was archived")
    with pytest.raises(PermanentError, match="is broken"):
        scan(TABLE.name, START, START + timedelta(days=1), predicate=one)
    lake_store().delete(lake_files()[0])
    with pytest.raises(PermanentError, match="missing from the lake"):
        scan(TABLE.name, START, START + timedelta(days=1), predicate=one)


def test_sql_with_a_filter_fetches_matching_rows_only(two_days, fetched):
    found = run_query(
        "SELECT count(*) AS n FROM market.ohlc_15m WHERE symbol = 'ETH/USDT' AND ts >= '2024-05-02 12:00:00+00'"
    )
    assert found.item() == 48
    assert sum(fetched) == 48


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_sql_finds_a_symbol_whatever_its_characters(two_days, symbol):
    quoted = symbol.replace("'", "''")
    assert run_query(f"SELECT count(*) FROM market.ohlc_15m WHERE symbol IN ('{quoted}', 'X')").item() == 192


def test_a_correction_that_fails_the_filter_does_not_bring_back_the_old_row(two_days):
    corrected = (
        two_days.filter(symbol="BTC/USDT").head(1).with_columns(close=pl.lit(999.0), high=pl.lit(1_000.0))
    )
    write(corrected)
    old = two_days.filter(symbol="BTC/USDT").item(0, "close")
    at_start = (pl.col("ts") == START) & (pl.col("symbol") == "BTC/USDT")
    assert scan(TABLE.name, predicate=at_start & (pl.col("close") == old)).collect().is_empty()
    assert scan(TABLE.name, predicate=at_start & (pl.col("close") == 999.0)).collect().height == 1
    assert (
        run_query(f"SELECT count(*) FROM market.ohlc_15m WHERE close = {old!r} AND ts = '{START}'").item()
        == 0
    )


def test_a_frame_collected_after_its_file_was_replaced_still_has_its_rows(two_days):
    before = scan(TABLE.name)
    corrected = two_days.head(1).with_columns(close=pl.lit(999.0), high=pl.lit(1_000.0))
    write(corrected)
    archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    assert before.collect().sort(TABLE.key).equals(two_days)


ONE = (pl.col("venue") == "bybit") & (pl.col("symbol") == "BTC/USDT")
READS = {
    "all": lambda: scan(TABLE.name, predicate=pl.col("symbol") == "BTC/USDT").collect(),
    "a few days of one symbol": lambda: scan(
        TABLE.name, START, START + timedelta(days=2), predicate=ONE
    ).collect(),
    "sql": lambda: run_query("SELECT * FROM market.ohlc_15m WHERE symbol = 'BTC/USDT'"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_connections_that_the_server_ended_are_replaced(two_days, own_database, read):
    read()
    with psycopg.connect(own_database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert read().height == 192


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_read_leaves_no_transaction_open(two_days, own_database, read):
    read()
    with psycopg.connect(own_database) as connection:
        states = connection.execute(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    assert {state for (state,) in states} <= {"idle"}


def test_columns_and_the_time_of_day_are_those_asked_for_wherever_the_rows_are(own_database):
    write(bars(count=192))
    whole = scan(TABLE.name).collect()
    wanted = whole.filter(pl.col("ts").dt.time() == time(23, 45)).select("symbol", "close")
    asked = {"columns": ["symbol", "close"], "at": time(23, 45)}
    last = START + timedelta(days=1, hours=23, minutes=45)  # a window ends before its end

    def all_ways_agree():
        assert scan(TABLE.name, **asked).collect().sort("close").equals(wanted)
        for days in (2, 90, 400):
            found = scan(TABLE.name, START, START + timedelta(days=days), **asked).collect()
            assert found.sort("close").equals(wanted)
        assert scan(TABLE.name, START, last, **asked).collect().equals(wanted[:1])
        assert scan(TABLE.name, last, last + timedelta(minutes=1), **asked).collect().equals(wanted[1:])
        assert scan(TABLE.name, START, START + timedelta(hours=1), **asked).collect().is_empty()

    all_ways_agree()
    archive.move_day(TABLE, DAY, cut=START + timedelta(days=1), run_id="r")
    all_ways_agree()
    assert wanted.height == 2


@pytest.mark.parametrize("hours", [-5, 0, 2])
def test_a_window_begins_and_ends_at_its_moments_and_not_with_the_days_of_files(two_days, hours):
    archive.move_day(TABLE, DAY + timedelta(days=1), cut=AFTER, run_id="r")
    midnight = datetime(2024, 5, 2, tzinfo=timezone(timedelta(hours=hours)))
    whole = scan(TABLE.name).collect().sort(TABLE.key)
    after = scan(TABLE.name, midnight).collect().sort(TABLE.key)
    before = scan(TABLE.name, end=midnight).collect().sort(TABLE.key)
    assert after.equals(whole.filter(pl.col("ts") >= midnight))
    assert before.equals(whole.filter(pl.col("ts") < midnight))


def test_a_predicate_may_look_at_columns_that_are_not_returned(own_database):
    write(bars(count=4))
    found = scan(TABLE.name, columns=["close"], predicate=pl.col("volume") > 12).collect()
    assert found.to_dict(as_series=False) == {"close": [104.0]}


def test_an_unknown_column_is_named(own_database):
    with pytest.raises(KeyError, match="no column ticker"):
        scan(TABLE.name, columns=["ticker"])


MOMENTS = st.integers(-4, 200).map(lambda n: START + timedelta(minutes=15 * n))
CONDITIONS = st.one_of(
    st.sampled_from(SYMBOLS).map(
        lambda s: (pl.col("symbol") == s, f"symbol = '{s.replace(chr(39), 2 * chr(39))}'")
    ),
    st.sampled_from(SYMBOLS[:2]).map(lambda s: (pl.col("symbol") < s, f"symbol < '{s}'")),
    MOMENTS.map(lambda t: (pl.col("ts") >= t, f"ts >= '{t}'")),
    MOMENTS.map(lambda t: (t > pl.col("ts"), f"'{t}' > ts")),
    MOMENTS.map(
        lambda t: (
            pl.col("ts").is_between(t, t + timedelta(hours=9)),
            f"ts BETWEEN '{t}' AND '{t + timedelta(hours=9)}'",
        )
    ),
    st.floats(90, 120).map(lambda x: (pl.col("close") <= x, f"close <= {x!r}::double")),
    st.just((pl.col("vwap").is_null(), "vwap IS NULL")),
    st.just((pl.col("symbol").is_in(list(SYMBOLS[1:])), "symbol IN ('ETH/USDT', 'O\"D''D\\/USDT')")),
    st.just((pl.col("ts").dt.hour() == 3, "extract(hour FROM ts) = 3")),
    st.just((pl.col("symbol").str.ends_with("X"), "symbol LIKE '%X'")),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.lists(CONDITIONS, min_size=1, max_size=4))
def test_any_filter_finds_what_filtering_everything_finds(two_days, chosen):
    predicate, text = pl.lit(value=True), []
    for expression, condition in chosen:
        predicate = predicate & expression if text else expression
        text.append(condition)
    expected = two_days.filter(predicate)
    assert scan(TABLE.name, predicate=predicate).collect().sort(TABLE.key).equals(expected)
    count = run_query(f"SELECT count(*) FROM market.ohlc_15m WHERE {' AND '.join(text)}").item()
    assert count == expected.height
