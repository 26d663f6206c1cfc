"""A restore brings rows back as they were archived, or says why that table cannot have them and changes nothing."""

from datetime import UTC, date, datetime

import polars as pl
import psycopg
import pytest

from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.archive import archive_tables
from tracker_pipeline.storage.restore import restore_days
from tracker_pipeline_tests.storage.foreign import all_text, use_policies

CUT = datetime(2024, 6, 1, tzinfo=UTC)
DAY = date(2024, 5, 1)
POLICY = """
archived:
  public.one: {time_column: at, retention: 24 h}
  public.parted: {time_column: at, retention: 24 h, mode: partition}
never_archived: {public.child: refers to the others}
"""
MAKE = """
CREATE TABLE one (id bigint PRIMARY KEY, at timestamptz, v varchar(10) NOT NULL);
INSERT INTO one SELECT i, '2024-05-01Z'::timestamptz + i * interval '15 min', 'value ' || i
FROM generate_series(0, 191) AS i
"""


@pytest.fixture
def database(own_database, monkeypatch, tmp_path):
    """A table of two archived days."""
    use_policies(monkeypatch, tmp_path, text=POLICY)
    with psycopg.connect(own_database, autocommit=True) as connection:
        connection.execute(MAKE)
        (report,) = archive_tables(["public.one"], cut=CUT, run_id="r")
        assert [day.rows_moved for day in report.days] == [96, 96]
        yield connection


def restore(**options):
    return restore_days("public.one", DAY, date(2024, 5, 2), run_id="r", **options)


def hot(database) -> int:
    return database.execute("SELECT count(*) FROM one").fetchone()[0]


def refused(database, match: str, **options) -> None:
    """The restore fails with these words, and all rows are where they were."""
    before = hot(database)
    with pytest.raises(PermanentError, match=match):
        restore(**options)
    assert (hot(database), scan("public.one").select(pl.len()).collect().item()) == (before, 192 + before)


def test_overwriting_a_row_does_not_take_rows_of_other_tables_along(database):
    database.execute("CREATE TABLE child (id int PRIMARY KEY, one bigint REFERENCES one ON DELETE CASCADE)")
    database.execute("INSERT INTO one VALUES (5, '2024-05-01 12:00Z', 'other')")
    database.execute("INSERT INTO child VALUES (1, 5)")
    refused(database, "remove or change 1 rows of child by a foreign key", on_conflict="overwrite")
    assert database.execute("SELECT count(*) FROM child").fetchone() == (1,)
    assert restore(on_conflict="keep")[0].conflicting == 1


@pytest.mark.parametrize("does", ["RETURN CASE WHEN NEW.id <> 7 THEN NEW END", "NEW.v = 'now'; RETURN NEW"])
def test_rows_that_a_trigger_would_leave_out_or_change_are_not_taken_for_restored(database, does):
    database.execute(
        f"CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {does}; END $$;"
        "CREATE TRIGGER noted BEFORE INSERT ON one FOR EACH ROW EXECUTE FUNCTION note()"
    )
    refused(database, r"has (95|0) of 96 rows as they were archived.*trigger or a rule on INSERT")
    database.execute("ALTER TABLE one DISABLE TRIGGER noted")
    assert [day.inserted for day in restore()] == [96, 96]


def test_values_that_the_type_of_their_column_would_change_now_are_not_restored(database):
    database.execute("ALTER TABLE one ALTER v TYPE varchar(7)")
    refused(database, r"has 86 values of the column v that would change: they were character varying\(10\)")
    database.execute("ALTER TABLE one ALTER v TYPE text")
    assert [day.inserted for day in restore()] == [96, 96]


def test_rows_from_before_a_column_of_the_key_come_back_with_its_default(database):
    database.execute("ALTER TABLE one ADD half int NOT NULL DEFAULT 1, DROP CONSTRAINT one_pkey")
    database.execute("ALTER TABLE one ADD PRIMARY KEY (id, half)")
    assert [day.inserted for day in restore()] == [96, 96]
    assert database.execute("SELECT count(*), min(half) FROM one").fetchone() == (192, 1)


def test_a_failure_says_how_many_days_came_back_before_it(database):
    database.execute("INSERT INTO one VALUES (100, '2024-05-02 12:00Z', 'other')")
    with pytest.raises(
        PermanentError, match=r"holds 1 of the keys with other content.*; 1 earlier days were restored"
    ):
        restore()
    assert hot(database) == 97


def test_a_partition_of_a_table_with_an_identity_is_made_anew(database):
    database.execute(
        "CREATE TABLE parted (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz, PRIMARY KEY (id, at))"
        " PARTITION BY RANGE (at);"
        "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2024-05-01Z') TO ('2024-05-02Z');"
        "INSERT INTO parted (at) SELECT '2024-05-01Z'::timestamptz + i * interval '1 h' FROM generate_series(0, 23) i"
    )
    before = all_text(database, "parted")
    archive_tables(["public.parted"], cut=CUT, run_id="r")
    assert all_text(database, "parted") == []
    restore_days("public.parted", DAY, DAY, run_id="r")
    assert all_text(database, "parted") == before
