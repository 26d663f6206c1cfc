"""Hot tables are partitioned by time; partitions are made ahead, and by the writer that needs one."""

import shutil
import threading
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import psycopg
import pytest

from tracker_pipeline.domain.schemas import BARS, REGIMES, TABLES, WHALE_BALANCE_SNAPSHOTS
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import migrations, scan
from tracker_pipeline.storage.archive import move_day
from tracker_pipeline.storage.database import connect, open_connection
from tracker_pipeline.storage.hot_partitions import (
    AHEAD,
    create_partitions_ahead,
    ensure_partitions,
    partition_of_day,
    partitions,
)
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars

PARTITIONED = [table for table in TABLES.values() if table.partition]
DAY = datetime(2024, 5, 1, tzinfo=UTC)


def bounds(table) -> list[tuple[datetime, datetime]]:
    with connect() as connection:
        return [(p.start, p.end) for p in partitions(connection, table)]


def write(frame, table=BARS["15m"]):
    times = frame.get_column("ts")
    window = (times.min(), times.max() + timedelta(days=1))
    with connect() as connection:
        return write_window(connection, table, frame, window, run_id="r")


def test_bar_tables_and_balances_are_partitioned():
    assert {table.name for table in PARTITIONED} == {
        *(table.name for table in BARS.values()),
        WHALE_BALANCE_SNAPSHOTS.name,
    }


@pytest.mark.parametrize("table", PARTITIONED, ids=lambda t: t.name)
def test_a_fresh_table_is_partitioned_by_its_time_and_refuses_a_row_that_no_partition_takes(
    own_database, table
):
    with connect() as connection:
        definition, rest = connection.execute(
            "SELECT pg_get_partkeydef(partrelid), partdefid FROM pg_partitioned_table"
            " WHERE partrelid = %s::regclass",
            [table.name],
        ).fetchone()
    assert definition == f"RANGE ({table.time_column})"
    assert rest == 0


def test_without_its_partition_a_row_is_refused_by_the_database(own_database):
    with connect() as connection, pytest.raises(psycopg.errors.CheckViolation, match="no partition"):
        connection.execute(
            "INSERT INTO market.ohlc_15m (venue, symbol, ts, open, high, low, close, volume, source, revision,"
            " run_id, fetched_at, available_at)"
            " VALUES ('v', 's', '2031-01-01Z', 1, 1, 1, 1, 1, 's', 1, 'r', now(), now())"
        )


@pytest.mark.parametrize(
    ("timeframe", "expected"),
    [
        ("15m", [("2024-05-31", "2024-06-01"), ("2024-06-01", "2024-06-02")]),
        ("1h", [("2024-05-01", "2024-06-01"), ("2024-06-01", "2024-07-01")]),
        ("1d", [("2024-01-01", "2025-01-01")]),
    ],
)
def test_a_writer_makes_the_partitions_its_rows_need(own_database, timeframe, expected):
    start = datetime(2024, 5, 31, tzinfo=UTC)
    step = {"15m": 96, "1h": 24, "1d": 1}[timeframe]
    frame = bars(timeframe, start=start, count=step + 1)
    write(frame, BARS[timeframe])
    found = [(f"{start:%Y-%m-%d}", f"{end:%Y-%m-%d}") for start, end in bounds(BARS[timeframe])]
    assert found == expected
    assert scan(BARS[timeframe].name).collect().equals(frame)


def test_days_between_two_far_rows_get_no_partition(own_database):
    import polars as pl

    write(pl.concat([bars(count=1), bars(start=DAY + timedelta(days=300), count=1)]))
    assert [start.date() for start, _ in bounds(BARS["15m"])] == [date(2024, 5, 1), date(2025, 2, 25)]


def test_a_partition_has_the_keys_and_checks_of_its_table(own_database):
    write(bars())
    with connect() as connection:
        kinds = connection.execute(
            "SELECT contype::text, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conrelid = 'hot.market_ohlc_15m_2024_05_01'::regclass AND contype IN ('p', 'c')"
        ).fetchall()
    assert ("p", "PRIMARY KEY (venue, symbol, ts)") in kinds
    assert any(kind == "c" and "15" in text for kind, text in kinds)


def test_rows_that_are_archived_already_bring_no_partition_back(own_database):
    write(bars())
    move_day(BARS["15m"], DAY.date(), cut=DAY + timedelta(days=30), run_id="r")
    assert bounds(BARS["15m"]) == []
    write(bars(run_id="again"))
    assert bounds(BARS["15m"]) == []
    assert scan("market.ohlc_15m").collect().height == 4


def test_the_partition_of_a_day_is_found_and_a_coarser_one_is_not_taken_for_it(own_database):
    write(bars())
    write(bars("1h"), BARS["1h"])
    with connect() as connection:
        found = partition_of_day(connection, BARS["15m"], DAY.date())
        assert found is not None
        assert (found.start, found.end) == (DAY, DAY + timedelta(days=1))
        assert connection.execute(f"SELECT count(*) FROM hot.{found.name}").fetchone() == (4,)
        assert partition_of_day(connection, BARS["15m"], date(2024, 5, 2)) is None
        assert partition_of_day(connection, BARS["1h"], DAY.date()) is None
        assert partition_of_day(connection, REGIMES, DAY.date()) is None


def test_two_writers_who_need_the_same_new_partition_both_succeed(own_database):
    failures: list[BaseException] = []

    def work(symbol: str) -> None:
        try:
            write(bars(symbol=symbol, count=50))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[f"C{i}/USDT"]) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert scan("market.ohlc_15m").collect().height == 300
    assert len(bounds(BARS["15m"])) == 1


def test_a_reader_holds_up_no_new_partition_and_no_new_partition_holds_up_a_reader(own_database):
    write(bars())
    with connect() as reader, connect() as writer, connect() as late_reader:
        reader.execute("SELECT count(*) FROM market.ohlc_15m").fetchone()
        writer.execute("SET lock_timeout = '2s'")
        late_reader.execute("SET lock_timeout = '2s'")
        later = DAY + timedelta(days=3)
        assert len(ensure_partitions(writer, BARS["15m"], later, later + timedelta(days=1))) == 1
        assert late_reader.execute("SELECT count(*) FROM market.ohlc_15m").fetchone() == (4,)


def test_a_detached_partition_is_named_in_words_rather_than_overwritten(own_database):
    write(bars())
    with connect() as connection:
        connection.execute("ALTER TABLE market.ohlc_15m DETACH PARTITION hot.market_ohlc_15m_2024_05_01")
    with pytest.raises(PermanentError, match=r"is not attached to market\.ohlc_15m"):
        write(bars())


def test_the_coming_days_are_made_ahead_once(own_database):
    now = datetime(2026, 12, 29, 13, 0, tzinfo=UTC)
    made = create_partitions_ahead(now)
    assert made["market.ohlc_1m"] == AHEAD.days + 1
    assert made["market.ohlc_1h"] == 2
    assert made["market.ohlc_1d"] == 2
    assert set(create_partitions_ahead(now).values()) == {0}
    assert bounds(BARS["1d"])[-1] == (datetime(2027, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC))


def test_a_daily_job_makes_them(own_database):
    from tracker_pipeline.definitions import defs

    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("hot_partitions").execute_in_process(instance=instance)
    assert result.success
    assert bounds(WHALE_BALANCE_SNAPSHOTS)[0][0].date() == datetime.now(UTC).date()
    schedule = defs.resolve_schedule_def("hot_partitions_daily")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING


def test_rows_of_a_database_from_before_are_still_there_after_the_migration(empty_database, tmp_path):
    former = tmp_path / "former"
    former.mkdir()
    for path in sorted((migrations.SQL_FOLDER / "migrations").glob("*.sql"))[:7]:
        shutil.copy(path, former)
    insert = (
        "INSERT INTO {} (venue, symbol, ts, open, high, low, close, volume, source, revision, run_id, fetched_at,"
        " available_at) SELECT 'v', 's', ts, 1, 2, 0.5, 1.5, 3, 'x', 2, 'r', ts, ts"
        " FROM generate_series('2023-12-31 12:00Z'::timestamptz, '2024-03-01 12:00Z', '{}') ts"
    )
    with open_connection(empty_database) as connection:
        migrations.apply(connection, former)
        connection.execute(insert.format("market.ohlc_15m", "15 minutes"))
        connection.execute(insert.format("market.ohlc_1h", "1 hour"))
        connection.commit()
        rows = connection.execute("SELECT * FROM market.ohlc_15m ORDER BY ts").fetchall()
        migrations.apply(connection)
        assert connection.execute("SELECT * FROM market.ohlc_15m ORDER BY ts").fetchall() == rows
        days = partitions(connection, BARS["15m"])
        assert len(days) == 62
        assert all(p.end - p.start == timedelta(days=1) for p in days)
        assert [p.start.month for p in partitions(connection, BARS["1h"])] == [12, 1, 2, 3]
        # The names are those that the writer looks for.
        assert ensure_partitions(connection, BARS["15m"], days[0].start, days[-1].end) == []
        assert days[0].name == "market_ohlc_15m_2023_12_31"
