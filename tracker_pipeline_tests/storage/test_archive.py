"""Rows move to the lake exactly once, and a reader sees each of them once at any moment."""

import json
import threading
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from tracker_pipeline.domain.schemas import BARS, ML_FEATURES_15M
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.storage import archive, scan
from tracker_pipeline.storage.catalogue import live_table
from tracker_pipeline.storage.column_forms import fields_of
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.lake_store import lake_store
from tracker_pipeline.storage.part_proof import file_proof
from tracker_pipeline.storage.query import run_query
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars
from tracker_pipeline_tests.stores import lake_files, plant_file, read_file

DAY = date(2024, 5, 1)
START = datetime(2024, 5, 1, tzinfo=UTC)
AFTER = datetime(2024, 6, 1, tzinfo=UTC)
TABLE = BARS["15m"]


@pytest.fixture
def two_days(own_database, each_store):
    frame = bars(count=192)
    with connect() as connection:
        write_window(connection, TABLE, frame, (START, START + timedelta(days=2)), run_id="run-1")
    return frame


def hot_count() -> int:
    with connect() as connection:
        return connection.execute("SELECT count(*) FROM market.ohlc_15m").fetchone()[0]


def test_a_closed_day_moves_and_the_table_reads_as_before(two_days):
    moved = archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    assert (moved.rows_moved, moved.rows_cold) == (96, 96)
    assert hot_count() == 96
    assert scan(TABLE.name).collect().sort(TABLE.key).equals(two_days)


def test_moving_a_day_again_does_nothing(two_days):
    archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    again = archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    assert (again.rows_moved, again.rows_cold, again.reason) == (0, 96, "no hot rows")
    assert len(lake_files()) == 1


def test_a_day_that_is_not_over_at_the_cut_stays(two_days):
    moved = archive.move_day(TABLE, DAY, cut=START + timedelta(hours=23), run_id="r")
    assert moved.rows_moved == 0
    assert "not over" in moved.reason
    assert hot_count() == 192


def test_the_manifest_describes_the_file(two_days, tmp_path):
    archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    row = scan("archive.batches").collect().row(0, named=True)
    content = read_file(row["path"])
    assert row["path"].startswith("market/ohlc_15m/day=2024-05-01/part-")
    assert (row["rows"], row["bytes"], row["state"]) == (96, len(content), "live")
    with connect() as connection:
        live = live_table(connection, TABLE.name)
    (tmp_path / "part.parquet").write_bytes(content)
    found = file_proof(tmp_path / "part.parquet", fields_of(live), live.key, "ts")
    assert (row["content_hash"], json.loads(row["column_hashes"])) == (
        found.content_hash,
        found.column_hashes,
    )
    assert (row["min_ts"], row["max_ts"]) == (START, START + timedelta(hours=23, minutes=45))


@pytest.mark.parametrize("step", ["before write", "before publishing", "after publishing", "before commit"])
def test_a_run_that_breaks_off_loses_and_doubles_nothing(two_days, step):
    def breaks(name: str) -> None:
        if name == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive.move_day(TABLE, DAY, cut=AFTER, run_id="r", step=breaks)
    assert not [path for path in lake_files() if path.endswith(".unfinished")]
    assert scan(TABLE.name).collect().sort(TABLE.key).equals(two_days)
    archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    assert scan(TABLE.name).collect().sort(TABLE.key).equals(two_days)
    assert hot_count() == 96


def test_a_lake_that_cannot_be_written_to_leaves_the_rows_hot(two_days, monkeypatch, tmp_path):
    from tracker_pipeline_tests.conftest import forget_settings

    (tmp_path / "a_file").write_text("not a folder")
    monkeypatch.setenv("TRACKER_LAKE_URI", str(tmp_path / "a_file" / "lake"))
    forget_settings()
    with pytest.raises(TransientError, match="cannot be written to"):
        archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    assert hot_count() == 192


def test_a_missing_file_is_an_error_and_not_an_empty_day(two_days):
    archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    lake_store().delete(lake_files()[0])
    with pytest.raises(
        PermanentError, match=r"1 files of market\.ohlc_15m that the manifest lists are missing"
    ):
        scan(TABLE.name)


def test_a_file_that_the_manifest_does_not_list_is_not_read(two_days):
    archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    file = lake_files()[0]
    plant_file(f"{file.rsplit('/', 1)[0]}/part-stray.parquet", read_file(file))
    assert scan(TABLE.name).collect().height == 192


def test_a_lake_table_has_no_rows_to_move(own_database):
    with pytest.raises(PermanentError, match="nothing to archive"):
        archive.move_day(ML_FEATURES_15M, DAY, cut=AFTER, run_id="r")


def test_a_reader_counts_every_row_once_while_days_move_and_two_runners_compete(two_days):
    wrong: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            count = scan(TABLE.name).select(pl.len()).collect().item()
            if count != 192:
                wrong.append(count)

    def move() -> None:
        for day in (DAY, DAY + timedelta(days=1)):
            archive.move_day(TABLE, day, cut=AFTER, run_id="r")

    reader = threading.Thread(target=read)
    runners = [threading.Thread(target=move) for _ in range(2)]
    for thread in (reader, *runners):
        thread.start()
    for thread in runners:
        thread.join()
    stop.set()
    reader.join()
    assert wrong == []
    assert hot_count() == 0
    assert scan(TABLE.name).collect().sort(TABLE.key).equals(two_days)


def test_sql_sees_hot_and_cold_rows_as_one_table(two_days):
    archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    result = run_query(
        "SELECT count(*), count(DISTINCT ts), min(ts), max(close) FROM market.ohlc_15m WHERE venue = 'bybit'"
    ).rows()
    assert result[0][:2] == (192, 192)
    assert result[0][3] == two_days.get_column("close").max()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM market.ohlc_15m b WHERE b.close > 0",
        'SELECT count(*) FROM "market"."ohlc_15m" AS b',
        "SELECT count(*) FROM market.OHLC_15M JOIN market.ohlc_15m AS other USING (venue, symbol, ts)",
        "WITH b AS (SELECT * FROM market.ohlc_15m) SELECT count(*) FROM b",
        "SELECT (SELECT count(*) FROM market.ohlc_15m)",
        "SELECT count(*) FROM market.ohlc_15m LEFT JOIN market.instruments i USING (venue, symbol)",
        "SELECT count(*) FROM market.ohlc_15m a ASOF JOIN market.ohlc_15m b USING (symbol, ts)",
    ],
)
def test_sql_may_name_its_tables_in_any_way(two_days, statement):
    archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    assert run_query(statement).rows() == [(192,)]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELECT * FROM market.no_such_table", "no_such_table"),
        ("SELEC 1", "syntax error"),
        ("CREATE TABLE x (a int)", "give one SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled"),
    ],
)
def test_a_query_that_cannot_run_says_why_in_one_sentence(own_database, statement, message):
    with pytest.raises(PermanentError, match=message):
        run_query(statement)


def test_a_scan_reads_only_its_window_and_columns(two_days):
    archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    window = scan(
        TABLE.name, START + timedelta(hours=23), START + timedelta(hours=25), columns=["ts", "close"]
    ).collect()
    assert window.columns == ["ts", "close"]
    assert window.height == 8
    assert window.get_column("ts").max() == START + timedelta(hours=24, minutes=45)


def test_a_bound_without_time_zone_is_refused(own_database):
    with pytest.raises(ValueError, match="has no time zone"):
        scan(TABLE.name, datetime(2024, 5, 1))  # noqa: DTZ001
