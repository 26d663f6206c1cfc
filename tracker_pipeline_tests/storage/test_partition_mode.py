"""Closed partitions move whole: copied, proven, recorded and dropped in one transaction."""

import threading
import time
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

import polars as pl
import psycopg
import pytest

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.storage import drafts, partition_mode, scan
from tracker_pipeline.storage.archive import archive_tables, move_day
from tracker_pipeline.storage.catalogue import live_partitions, live_table
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.restore import restore_days
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars
from tracker_pipeline_tests.storage.foreign import use_policies
from tracker_pipeline_tests.stores import lake_files

pytestmark = pytest.mark.usefixtures("each_store")
START = datetime(2024, 5, 1, tzinfo=UTC)
DAY = date(2024, 5, 1)
AFTER = datetime(2024, 6, 1, tzinfo=UTC)
TABLE = BARS["15m"]


@pytest.fixture
def three_days(own_database):
    frame = bars(count=288)
    write(frame)
    return frame


def write(frame: pl.DataFrame, day: datetime = START) -> None:
    with connect() as connection:
        write_window(connection, TABLE, frame, (day, day + timedelta(days=3)), run_id="w")


def partitions() -> list[str]:
    with connect() as connection:
        return [p.name for p in live_partitions(connection, live_table(connection, TABLE.name))]


def live_parts() -> int:
    return scan("archive.batches").filter(pl.col("state") == "live").select(pl.len()).collect().item()


def test_a_partition_goes_with_its_table_and_the_rows_read_as_before(three_days):
    before = partitions()
    move_day(TABLE, DAY, cut=AFTER, run_id="r")
    assert set(before) - set(partitions()) == {"hot.market_ohlc_15m_2024_05_01"}
    assert scan(TABLE.name).collect().sort(TABLE.key).equals(three_days)


def test_a_partition_that_is_not_over_at_the_cut_stays(three_days):
    (report,) = archive_tables([TABLE.name], cut=START + timedelta(days=1, hours=23), run_id="r")
    assert [(m.day, m.rows_moved) for m in report.days] == [(DAY, 96)]
    assert len(partitions()) == 2


def test_rows_that_come_late_make_the_partition_anew_and_become_one_more_part(three_days):
    first = three_days.head(90)
    with connect() as connection:
        connection.execute("DELETE FROM market.ohlc_15m WHERE ts >= '2024-05-01 22:30' AND ts < '2024-05-02'")
    move_day(TABLE, DAY, cut=AFTER, run_id="r")
    assert scan(TABLE.name, START, START + timedelta(days=1)).collect().sort(TABLE.key).equals(first)
    write(three_days.slice(90, 6))
    late = move_day(TABLE, DAY, cut=AFTER, run_id="r")
    assert (late.rows_moved, late.rows_cold, live_parts()) == (6, 96, 2)
    assert scan(TABLE.name).collect().sort(TABLE.key).equals(three_days)


def test_a_correction_of_an_archived_row_is_merged_with_the_part_that_holds_it(three_days):
    move_day(TABLE, DAY, cut=AFTER, run_id="r")
    corrected = three_days.with_columns(
        pl.when(pl.col("ts") == START).then(pl.col("close") + 0.5).otherwise("close").alias("close")
    )
    write(corrected)
    again = move_day(TABLE, DAY, cut=AFTER, run_id="r")
    assert (again.rows_moved, again.rows_cold, live_parts()) == (1, 96, 1)
    rows = scan(TABLE.name).collect().sort(TABLE.key)
    assert rows.get_column("close").equals(corrected.get_column("close"))
    assert rows.item(0, "revision") == 2


def test_all_due_partitions_move_in_one_run_and_a_second_run_finds_nothing(three_days):
    (report,) = archive_tables([TABLE.name], cut=AFTER, run_id="r")
    assert (report.outcome, [m.rows_moved for m in report.days]) == ("moved", [96, 96, 96])
    assert all(m.compression and m.content_hash for m in report.days)
    (again,) = archive_tables([TABLE.name], cut=AFTER, run_id="r")
    assert (again.outcome, again.days) == ("nothing", [])
    assert scan(TABLE.name).collect().sort(TABLE.key).equals(three_days)


def test_a_dry_run_says_what_would_move_and_writes_nothing(three_days):
    (report,) = archive_tables([TABLE.name], cut=AFTER, dry_run=True, run_id="r")
    assert (report.outcome, [m.rows_moved for m in report.days]) == ("would move", [96, 96, 96])
    assert (len(partitions()), lake_files(), live_parts()) == (3, [], 0)


@pytest.fixture
def parted(own_database, monkeypatch, tmp_path):
    """A foreign table with a partition of two days and a default one, which has a row of an earlier day."""
    use_policies(
        monkeypatch,
        tmp_path,
        text="archived: {public.parted: {time_column: at, retention: 24 h, mode: partition}}\n"
        "never_archived: {public.other: none}\n",
    )
    with psycopg.connect(own_database, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE parted (id int, at timestamptz, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);"
            "CREATE TABLE two_days PARTITION OF parted FOR VALUES FROM ('2024-05-01Z') TO ('2024-05-03Z');"
            "CREATE TABLE rest PARTITION OF parted DEFAULT;"
            "INSERT INTO parted VALUES (1, '2024-04-30Z'), (2, '2024-05-01Z'), (3, '2024-05-02Z'), (4, '2099-01-01Z')"
        )
        yield connection


def test_rows_in_a_partition_that_is_never_dropped_are_reported(parted):
    (report,) = archive_tables(cut=AFTER, run_id="r")
    assert [m.rows_moved for m in report.days] == [1, 1]
    assert str(report.left_behind).endswith(
        "1 rows before the cut stay in partitions without two bounds (DEFAULT)"
        " or with partitions of their own"
    )


def test_a_partition_with_a_row_that_may_still_change_stays_whole_and_fails_nothing(
    parted, monkeypatch, tmp_path
):
    text = (tmp_path / "own_policies.yaml").read_text().replace("24 h,", "24 h, may_change_while: id = 3,")
    use_policies(monkeypatch, tmp_path, text=text)
    for dry_run in (True, False):
        (report,) = archive_tables(cut=AFTER, dry_run=dry_run, run_id="r")
        assert (report.outcome, report.problem, report.days) == ("nothing", "", [])
        assert report.left_behind.may_change == 1
    assert (
        "1 rows of public.two_days may still change"
        in move_day("public.parted", DAY, cut=AFTER, run_id="r").reason
    )
    use_policies(monkeypatch, tmp_path, text=text.replace("id = 3", "id = 30"))
    assert [m.rows_moved for m in archive_tables(cut=AFTER, run_id="r")[0].days] == [1, 1]


def test_a_partition_with_a_day_that_is_held_back_would_not_move(parted):
    archive_tables(cut=AFTER, run_id="r")
    parted.execute(
        "CREATE TABLE again PARTITION OF parted FOR VALUES FROM ('2024-05-01Z') TO ('2024-05-03Z')"
    )
    restore_days("public.parted", DAY, DAY + timedelta(days=1), run_id="r")
    parted.execute("DELETE FROM archive.holds WHERE data_day <> '2024-05-02'")
    for dry_run in (True, False):
        (report,) = archive_tables(cut=AFTER, dry_run=dry_run, run_id="r")
        assert (report.outcome, [m.rows_moved for m in report.days]) == ("nothing", [0, 0])


def test_a_reader_that_does_not_end_delays_the_drop_and_loses_nothing(three_days, monkeypatch):
    monkeypatch.setattr(partition_mode, "_LOCK_TRIES", 2)
    with psycopg.connect(_url()) as reader:
        reader.execute("SELECT count(*) FROM market.ohlc_15m")
        with pytest.raises(TransientError, match=r"readers of .* do not end"):
            move_day(TABLE, DAY, cut=AFTER, run_id="r")
    assert lake_files() == []
    assert move_day(TABLE, DAY, cut=AFTER, run_id="r").rows_moved == 96
    assert scan(TABLE.name).collect().sort(TABLE.key).equals(three_days)


def test_a_foreign_writer_of_late_rows_is_never_the_one_to_give_way(three_days):
    """It holds the table and waits for the partition, which the move has locked and cannot drop without the table."""
    reached, errors = threading.Event(), []

    def late_row() -> None:
        reached.wait(10)
        try:
            with psycopg.connect(_url()) as writer:
                writer.execute(
                    "INSERT INTO market.ohlc_15m SELECT venue, 'LATE/USDT', ts, open, high, low, close, volume, vwap,"
                    " trades, n_src, source, revision, run_id, fetched_at, available_at FROM market.ohlc_15m"
                    " WHERE ts = '2024-05-01 00:00Z'"
                )
        except psycopg.Error as error:
            errors.append(error)

    def hold_on(name: str) -> None:
        if name == "after publishing" and not reached.is_set():
            reached.set()
            time.sleep(0.4)

    writer = threading.Thread(target=late_row)
    writer.start()
    moved = move_day(TABLE, DAY, cut=AFTER, run_id="r", step=hold_on)
    writer.join()
    assert errors == []
    assert moved.rows_moved == 97
    assert scan(TABLE.name).select(pl.len()).collect().item() == 289


def _url() -> str:
    from tracker_pipeline.storage.database import ready_url

    return ready_url()


def test_rows_that_come_while_a_partition_is_copied_move_with_it(three_days):
    """It is copied before it is locked: what came in between makes the copy worthless, and nothing is lost."""
    late = bars(count=1, symbol="LATE/USDT")
    steps = []
    real = drafts.drafted

    @contextmanager
    def drafted_before(*args):
        with real(*args) as draft:
            write(late)
            yield draft

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drafts, "drafted", drafted_before)
        moved = move_day(TABLE, DAY, cut=AFTER, run_id="r", step=steps.append)
    assert (moved.rows_moved, steps.count("before write"), len(lake_files())) == (97, 2, 1)
    assert scan(TABLE.name).select(pl.len()).collect().item() == 289


def test_a_partition_is_copied_once_where_no_rows_come(three_days):
    steps = []
    move_day(TABLE, DAY, cut=AFTER, run_id="r", step=steps.append)
    assert steps.count("before write") == 1
