"""No row leaves its place for a file that does not hold it: whatever a writer does wrong is found before."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import psycopg
import pyarrow as pa
import pytest

from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.storage import compaction, part_copy, part_merge, scan, sweeping
from tracker_pipeline.storage.archive import archive_tables, move_day
from tracker_pipeline.storage.archive_locks import only_runner
from tracker_pipeline.storage.archive_policy import Policies, get_policies
from tracker_pipeline.storage.compaction import compact_days
from tracker_pipeline.storage.restore import restore_days
from tracker_pipeline.storage.s3_store import S3Store
from tracker_pipeline_tests.storage.foreign import use_policies
from tracker_pipeline_tests.stores import lake_files

pytestmark = pytest.mark.usefixtures("each_store")
CUT = datetime(2024, 6, 1, tzinfo=UTC)
DAY = date(2024, 5, 1)
POLICY = "archived: {public.one: {time_column: at, retention: 24 h, same_key: correct}}\n"


def changed(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.when(pl.col("id") == 7).then(pl.lit("v8")).otherwise("v").alias("v"))


def swapped(rows: pl.DataFrame) -> pl.DataFrame:
    """The same values in each column, two of them in each other's row."""
    other = pl.when(pl.col("id") == 7).then(8).when(pl.col("id") == 8).then(7).otherwise(pl.col("id"))
    return rows.with_columns(other.alias("id").cast(pl.Int64))


def without_value(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.when(pl.col("id") != 7).then("v").alias("v"))


WRONGS: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "a value changed": changed,
    "two rows swapped": swapped,
    "a value lost": without_value,
    "a row lost": lambda rows: rows.filter(pl.col("id") != 7),
    "a row doubled": lambda rows: pl.concat([rows, rows.filter(pl.col("id") == 7)]),
    "all rows lost": lambda rows: rows.clear(),
}
wrongs = pytest.mark.parametrize("wrong", WRONGS.values(), ids=WRONGS)


@pytest.fixture
def database(own_database, monkeypatch, tmp_path):
    use_policies(monkeypatch, tmp_path, text=POLICY)
    with psycopg.connect(own_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE one (id bigint PRIMARY KEY, at timestamptz NOT NULL, v text)")
        connection.execute(
            "INSERT INTO one SELECT i, '2024-05-01 06:00Z', 'v' || i FROM generate_series(0, 99) AS i"
        )
        yield connection


def write_wrongly(
    patch: pytest.MonkeyPatch, module: object, wrong: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    class Wrong(part_copy.PartWriter):
        def write(self, batch: pa.RecordBatch) -> None:
            rows = wrong(pl.DataFrame(batch)).to_arrow(compat_level=pl.CompatLevel.oldest())
            for one in rows.cast(batch.schema).to_batches():
                super().write(one)

    patch.setattr(module, "PartWriter", Wrong)


def content() -> list[tuple[object, ...]]:
    return scan("public.one").select("id", "v").sort("id").collect().rows()


@wrongs
def test_rows_stay_in_postgres_where_the_file_would_not_hold_them(database, monkeypatch, wrong):
    before = content()
    with monkeypatch.context() as patch:
        write_wrongly(patch, part_copy, wrong)
        with pytest.raises(TransientError, match="the file differs from the database"):
            move_day("public.one", DAY, cut=CUT, run_id="r")
    assert (database.execute("SELECT count(*) FROM one").fetchone(), lake_files()) == ((100,), [])
    assert move_day("public.one", DAY, cut=CUT, run_id="r").rows_moved == 100
    assert content() == before


@wrongs
def test_parts_stay_where_the_merged_one_would_not_hold_their_rows(database, monkeypatch, wrong):
    archive_tables(cut=CUT, run_id="r")
    database.execute("INSERT INTO one VALUES (500, '2024-05-01 06:00Z', 'late')")
    archive_tables(cut=CUT, run_id="r")
    before, files = content(), lake_files()
    with monkeypatch.context() as patch:
        write_wrongly(patch, compaction, wrong)
        (done,) = compact_days("public.one", run_id="r")
    assert (done.outcome, "the merged file is not its sources" in done.note) == ("failed", True)
    assert (content(), lake_files()) == (before, files)


@wrongs
def test_a_correction_stays_in_postgres_where_the_merged_part_would_not_hold_the_others(
    database, monkeypatch, wrong
):
    archive_tables(cut=CUT, run_id="r")
    database.execute("INSERT INTO one VALUES (5, '2024-05-01 06:00Z', 'corrected')")
    before, files = content(), lake_files()
    with monkeypatch.context() as patch:
        write_wrongly(patch, part_merge, wrong)
        with pytest.raises(TransientError, match="the merged file differs from its sources"):
            move_day("public.one", DAY, cut=CUT, run_id="r")
    assert (content(), lake_files()) == (before, files)
    assert database.execute("SELECT v FROM one").fetchall() == [("corrected",)]


def test_rows_that_a_rule_keeps_from_being_deleted_are_not_entered_as_moved(database):
    database.execute("CREATE RULE keep AS ON DELETE TO one WHERE OLD.id = 7 DO INSTEAD NOTHING")
    with pytest.raises(TransientError, match="100 rows were copied and 99 would go, so nothing was moved"):
        move_day("public.one", DAY, cut=CUT, run_id="r")
    assert (database.execute("SELECT count(*) FROM one").fetchone(), lake_files()) == ((100,), [])


def test_nobody_restores_merges_or_lets_go_while_another_run_is_at_the_table(database, monkeypatch):
    archive_tables(cut=CUT, run_id="r")
    database.execute("INSERT INTO one VALUES (500, '2024-05-01 06:00Z', 'late')")
    archive_tables(cut=CUT, run_id="r")
    before, files = content(), lake_files()
    policy = get_policies().of("public.one").model_copy(update={"cold_retention": timedelta(days=30)})
    monkeypatch.setattr(sweeping, "get_policies", lambda: Policies({"public.one": policy}))
    with only_runner("public.one"):
        assert [one.outcome for one in restore_days("public.one", DAY, DAY, run_id="r")] == ["skipped"]
        assert [one.outcome for one in compact_days("public.one", run_id="r")] == ["skipped"]
        assert sweeping.expire() == []
    assert (content(), lake_files()) == (before, files)
    assert [one.parts for one in sweeping.expire()] == [2]


def test_parts_that_ended_meanwhile_are_not_replaced_by_their_merger(database):
    archive_tables(cut=CUT, run_id="r")
    database.execute("INSERT INTO one VALUES (500, '2024-05-01 06:00Z', 'late')")
    archive_tables(cut=CUT, run_id="r")
    files = lake_files()

    def end_a_part(step: str) -> None:
        if step == "after rename":
            database.execute("UPDATE archive.batches SET state = 'retired', ended_at = now() WHERE rows = 1")

    (done,) = compact_days("public.one", run_id="r", step=end_a_part)
    assert (done.outcome, "its parts changed, so nothing was compacted" in done.note) == ("failed", True)
    assert (len(content()), lake_files()) == (100, files)


def test_an_object_that_the_bucket_does_not_hold_as_it_was_put_is_not_relied_on(
    database, each_store, monkeypatch
):
    if each_store != "s3":
        pytest.skip("a folder has no put")
    whole = S3Store._upload

    def upload(store: S3Store, file: Path, path: str) -> None:
        shorter = file.with_suffix(".cut")
        shorter.write_bytes(file.read_bytes()[:-1])
        whole(store, shorter, path)
        shorter.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(S3Store, "_upload", upload)
        with pytest.raises(TransientError, match="the object read back differs from the file that was put"):
            move_day("public.one", DAY, cut=CUT, run_id="r")
    assert (database.execute("SELECT count(*) FROM one").fetchone(), lake_files()) == ((100,), [])
