"""Archived days come back exactly, once, and stay; parts of a day become one; readers notice neither."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import archive, scan
from tracker_pipeline.storage.compaction import compact_days
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.restore import restore_days
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars
from tracker_pipeline_tests.stores import lake_files, plant_file, read_file

DAY = date(2024, 5, 1)
START = datetime(2024, 5, 1, tzinfo=UTC)
AFTER = datetime(2024, 6, 1, tzinfo=UTC)
TABLE = BARS["15m"]


def write(frame: pl.DataFrame) -> None:
    with connect() as connection:
        write_window(connection, TABLE, frame, (START, START + timedelta(days=2)), run_id="run-1")


def restore(**options):
    return restore_days(TABLE.name, DAY, DAY, run_id="r", **options)


def count(statement: str) -> int:
    with connect() as connection:
        return connection.execute(statement).fetchone()[0]


def hot_rows() -> int:
    return count("SELECT count(*) FROM market.ohlc_15m")


@pytest.fixture
def cold_day(own_database, each_store):
    """Two days, the first of which is archived."""
    frame = bars(count=192)
    write(frame)
    archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    return frame


def everything() -> pl.DataFrame:
    return scan(TABLE.name).collect().sort(TABLE.key)


def test_a_restored_day_is_hot_and_reads_as_before(cold_day):
    (done,) = restore()
    assert (done.outcome, done.rows, done.inserted) == ("restored", 96, 96)
    assert hot_rows() == 192
    assert everything().equals(cold_day)
    assert count("SELECT count(*) FROM archive.batches WHERE state = 'live'") == 0


def test_restoring_again_does_nothing(cold_day):
    restore()
    assert restore() == []
    assert hot_rows() == 192


def test_a_dry_run_says_what_it_would_do_and_does_nothing(cold_day):
    (planned,) = restore(dry_run=True)
    assert (planned.outcome, planned.rows) == ("would restore", 96)
    assert hot_rows() == 96
    assert count("SELECT count(*) FROM archive.holds") == 0


def test_a_restored_day_is_held_back_and_archived_without_loss_once_released(cold_day):
    restore()
    assert "held back" in archive.move_day(TABLE, DAY, cut=AFTER, run_id="r").reason
    with connect() as connection:
        connection.execute("UPDATE archive.holds SET held_until = now() - interval '1 s'")
    assert archive.move_day(TABLE, DAY, cut=AFTER, run_id="r").rows_moved == 96
    assert everything().equals(cold_day)


CORRECTION = {"close": 999.0, "high": 1_000.0}


@pytest.mark.parametrize(("choice", "close"), [("keep", 999.0), ("overwrite", 101.0)])
def test_rows_that_conflict_are_settled_as_told(cold_day, choice, close):
    write(cold_day.head(1).with_columns(**{name: pl.lit(value) for name, value in CORRECTION.items()}))
    with pytest.raises(PermanentError, match=r"holds 1 of the keys with other content.*BTC/USDT"):
        restore()
    assert hot_rows() == 97
    (done,) = restore(on_conflict=choice)
    assert (done.inserted, done.conflicting) == (96 if choice == "overwrite" else 95, 1)
    assert everything().item(0, "close") == close
    assert hot_rows() == 192


def test_an_altered_file_is_not_restored(cold_day):
    (path,) = lake_files()
    plant_file(path, read_file(path) + b"x")
    with pytest.raises(PermanentError, match="is not the file that was archived"):
        restore()
    assert hot_rows() == 96


def late_parts(frame: pl.DataFrame) -> None:
    """The day in three parts."""
    for number in range(3):
        write(frame.head(96).gather_every(3, number))
        archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")


def test_the_parts_of_a_day_become_one_and_readers_of_the_old_ones_go_on(own_database, each_store):
    frame = bars(count=96)
    late_parts(frame)
    before = scan(TABLE.name)
    (planned,) = compact_days(TABLE.name, dry_run=True, run_id="r")
    assert (planned.parts, planned.rows, planned.outcome) == (3, 96, "would compact")
    (done,) = compact_days(TABLE.name, run_id="r")
    assert (done.parts, done.rows, done.outcome) == (3, 96, "compacted")
    assert before.collect().sort(TABLE.key).equals(frame)
    assert everything().equals(frame)
    assert count("SELECT count(*) FROM archive.batches WHERE state = 'live'") == 1
    assert compact_days(TABLE.name, run_id="r") == []
    restore()
    assert everything().equals(frame)
