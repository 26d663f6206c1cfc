"""Tables that other programs fill are archived by policy, read as one, changed in their columns, and restored."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest

from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import archive, scan
from tracker_pipeline.storage.compaction import compact_days
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.query import run_query
from tracker_pipeline.storage.restore import restore_days
from tracker_pipeline_tests.conftest import forget_settings

NAME = "desk.Fills"
AFTER = datetime(2024, 6, 1, tzinfo=UTC)
DAY = date(2024, 5, 1)
ROWS = [
    (
        1,
        "2024-05-01 00:00:00",
        "BTC",
        "0.10000000",
        '{"a": [1, 1e400, 0.1000]}',
        "{x,NULL}",
        r"\x00ff",
        "12:30",
    ),
    (2, "2024-05-01 23:59:59.999999", 'it\'s "q"', "-123456789012.12345678", "null", "{}", r"\x", None),
    (9007199254740993, "2024-05-01 12:00:00", None, None, None, None, None, "1 mon -3 days"),
    (4, "2024-05-02 00:00:00", "BTC", "99999999999.00000001", "[]", '{"a b"}', r"\x01", "00:00"),
]


@pytest.fixture
def fills(own_database, each_store, monkeypatch, tmp_path):
    """A table with a mixed-case name, words of SQL for columns, and times without a zone."""
    (tmp_path / "policies.yaml").write_text(
        'archived:\n  desk.Fills: {time_column: "timestamp", retention: 24 h, sort: [short, id]}\n'
        "never_archived:\n  desk.limits: configuration\n"
    )
    (tmp_path / "config.yaml").write_text("archive: {policies: [policies.yaml]}\n")
    monkeypatch.setenv("TRACKER_CONFIG", str(tmp_path / "config.yaml"))
    forget_settings()
    with connect() as connection:
        connection.execute("CREATE SCHEMA desk")
        connection.execute("CREATE TABLE desk.limits (name text PRIMARY KEY, most numeric)")
        connection.execute("INSERT INTO desk.limits VALUES ('BTC', 1.50)")
        connection.execute(
            'CREATE TABLE desk."Fills" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "timestamp" timestamp,'
            " short varchar(20), value numeric(20,8), payload jsonb, tags text[], raw bytea, took interval,"
            " doubled numeric GENERATED ALWAYS AS (value * 2) STORED)"
        )
        with connection.cursor() as cursor:
            cursor.executemany(
                'INSERT INTO desk."Fills" (id, "timestamp", short, value, payload, tags, raw, took)'
                " OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                ROWS,
            )


def texts() -> list[str]:
    with connect() as connection:
        return [row[0] for row in connection.execute('SELECT f::text FROM desk."Fills" f ORDER BY id')]


def move(day: date = DAY):
    return archive.move_day(NAME, day, cut=AFTER, run_id="r")


def test_hot_and_cold_rows_are_one_table_in_their_own_types(fills):
    before = scan(NAME).sort("id").collect()
    assert before.schema["value"] == pl.Decimal(20, 8)
    assert before.schema["timestamp"] == pl.Datetime("us")
    assert before["value"].to_list()[0] == Decimal("0.10000000")
    assert before["id"].to_list()[-1] == 9007199254740993
    assert move().rows_moved == 3
    assert scan(NAME).sort("id").collect().equals(before)
    window = scan(NAME, datetime(2024, 5, 1, 12, tzinfo=UTC), datetime(2024, 5, 2, 1, tzinfo=UTC)).collect()
    assert sorted(window["id"]) == [2, 4, 9007199254740993]


def test_sql_sees_foreign_tables_whole_and_with_filters(fills):
    move()
    found = run_query(
        'SELECT f.id, l.most FROM desk."Fills" f JOIN desk.limits l ON l.name = f.short'
        " WHERE f.short = 'BTC' AND f.\"timestamp\" < TIMESTAMP '2024-05-03' ORDER BY 1"
    )
    assert found.rows() == [(1, "1.50"), (4, "1.50")]
    assert run_query('SELECT count(*) FROM desk."Fills"').item() == 4


def test_a_restored_row_is_the_row_that_was_archived_to_the_letter(fills):
    before = texts()
    move()
    (done,) = restore_days(NAME, DAY, DAY, run_id="r")
    assert (done.inserted, done.outcome) == (3, "restored")
    assert texts() == before


def test_parts_from_before_and_after_a_change_of_columns_read_as_one(fills):
    move()
    with connect() as connection:
        connection.execute("ALTER TABLE desk.\"Fills\" ADD venue text DEFAULT 'bybit'")
        connection.execute('ALTER TABLE desk."Fills" DROP COLUMN took')
        connection.execute('ALTER TABLE desk."Fills" DROP COLUMN doubled')
        connection.execute('ALTER TABLE desk."Fills" ALTER value TYPE text')
    move(DAY + timedelta(days=1))
    rows = scan(NAME).sort("id").collect()
    assert rows["venue"].to_list() == [None, None, "bybit", None]
    assert rows["value"].to_list() == ["0.10000000", "-123456789012.12345678", "99999999999.00000001", None]
    assert rows["took"].to_list() == ["12:30:00", None, None, "1 mon -3 days"]
    with pytest.raises(
        PermanentError, match=r"has 2 values of the column took, which desk\.Fills has no longer"
    ):
        restore_days(NAME, DAY, DAY, run_id="r")


def test_a_reused_key_with_other_content_stays_two_rows_and_is_not_restored_over(fills):
    before = scan(NAME).collect().height
    move()
    with connect() as connection:
        connection.execute(
            'INSERT INTO desk."Fills" (id, "timestamp", short) OVERRIDING SYSTEM VALUE'
            " VALUES (1, '2024-05-01 05:00', 'ETH')"
        )
    assert scan(NAME).collect().height == before + 1
    with pytest.raises(PermanentError, match="holds 1 of the keys with other content"):
        restore_days(NAME, DAY, DAY, run_id="r")
    assert scan(NAME).collect().height == before + 1


def test_late_parts_of_a_foreign_table_become_one(fills):
    move()
    with connect() as connection:
        connection.execute(
            "INSERT INTO desk.\"Fills\" (\"timestamp\", short) VALUES ('2024-05-01 07:00', 'late')"
        )
    move()
    before = scan(NAME).sort("id", "timestamp").collect()
    (done,) = compact_days(NAME, run_id="r")
    assert (done.parts, done.rows) == (2, 4)
    assert scan(NAME).sort("id", "timestamp").collect().equals(before)


def test_a_table_that_is_gone_can_still_be_read_from_its_files(fills):
    move()
    with connect() as connection:
        connection.execute('DROP TABLE desk."Fills"')
    assert sorted(scan(NAME).collect()["id"]) == [1, 2, 9007199254740993]


def test_a_table_that_nobody_knows_is_named(fills):
    with pytest.raises(KeyError, match=r"desk\.other"):
        scan("desk.other")
