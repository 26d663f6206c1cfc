"""Tables that other programs fill are archived by policy, read as one, changed in their columns, and restored."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
import yaml

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import archive, scan
from tracker_pipeline.storage.compaction import compact_days
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.lake_store import lake_store
from tracker_pipeline.storage.query import run_query
from tracker_pipeline.storage.restore import restore_days
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.conftest import forget_settings
from tracker_pipeline_tests.frames import bars
from tracker_pipeline_tests.storage.foreign import use_policies
from tracker_pipeline_tests.stores import lake_files, plant_file, read_file

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


def change(*statements: str) -> None:
    with connect() as connection:
        for statement in statements:
            connection.execute(statement)


def test_parts_of_the_same_names_in_other_types_read_as_one(fills):
    before = scan(NAME).sort("id").collect()
    move()
    change('ALTER TABLE desk."Fills" ALTER id DROP IDENTITY')
    change('ALTER TABLE desk."Fills" ALTER id TYPE numeric(20,0)')
    change('INSERT INTO desk."Fills" (id, "timestamp") VALUES (7, \'2024-05-01 07:00\')')
    move()
    rows = scan(NAME).sort("id").collect()
    assert rows["id"].to_list() == [1, 2, 4, 7, 9007199254740993]
    assert rows.filter(pl.col("id") != 7)["value"].equals(before["value"])
    assert run_query('SELECT max(id) FROM desk."Fills"').item() == 9007199254740993


def test_a_value_that_the_new_type_of_its_column_cannot_have_fails_reads_of_that_column_alone(fills):
    move()
    change('ALTER TABLE desk."Fills" DROP doubled, ALTER short TYPE int USING 5')
    assert run_query('SELECT count(id), count(value) FROM desk."Fills"').rows() == [(4, 3)]
    with pytest.raises(
        PermanentError, match=r"rows of desk\.Fills cannot be read in the types .*column 'short'"
    ):
        run_query('SELECT max(short) FROM desk."Fills"')


def test_a_time_column_that_was_renamed_finds_the_rows_from_before_by_their_time(
    fills, monkeypatch, tmp_path
):
    window = (datetime(2024, 5, 1, 11, tzinfo=UTC), datetime(2024, 5, 2, 1, tzinfo=UTC))
    move()
    change('ALTER TABLE desk."Fills" RENAME "timestamp" TO moment')
    with pytest.raises(PermanentError, match=r"desk\.Fills has no time timestamp: correct time_column"):
        scan(NAME, *window)
    policies = tmp_path / "policies.yaml"
    policies.write_text(policies.read_text().replace('"timestamp"', "moment"))
    forget_settings()
    assert sorted(scan(NAME, *window).collect()["id"]) == [2, 4, 9007199254740993]
    assert scan(NAME).collect()["moment"].null_count() == 0


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize(
    ("column", "text", "ids"),
    [
        ("payload", "null", [2]),
        ("payload", "{no json", []),
        ("took", "12:30:00", [1]),
        ("took", "12:30", []),
        ("short", 'it\'s "q"', [2]),
        ("place", "(1,2)", [1]),
        ("mood", "gay", [2]),
        ("mood", "no such mood", []),
    ],
)
def test_a_text_is_compared_as_text_whatever_its_type_in_postgres(fills, cold, column, text, ids):
    change(
        "CREATE TYPE desk.mood AS ENUM ('sad', 'gay')",
        'ALTER TABLE desk."Fills" ADD place point, ADD mood desk.mood',
        "UPDATE desk.\"Fills\" SET place = '(1,2)', mood = 'sad' WHERE id = 1",
        "UPDATE desk.\"Fills\" SET mood = 'gay' WHERE id = 2",
    )
    if cold:
        move()
    found = scan(NAME, predicate=pl.col(column) == text).collect()
    assert found["id"].to_list() == ids
    quoted = text.replace("'", "''")
    assert run_query(f"SELECT id FROM desk.\"Fills\" WHERE {column} = '{quoted}'")["id"].to_list() == ids


def test_a_column_that_only_parts_have_can_be_asked_for(fills):
    move()
    change('ALTER TABLE desk."Fills" DROP took')
    assert run_query("SELECT id FROM desk.\"Fills\" WHERE took = '12:30:00'")["id"].to_list() == [1]


def test_a_broken_file_is_named_as_such(fills):
    move()
    (path,) = lake_files()
    content = read_file(path)
    plant_file(path, content[:100])
    with pytest.raises(
        PermanentError, match=r"a file of desk\.Fills in .* is broken .*: run tracker archive audit"
    ):
        scan(NAME)
    plant_file(path, content[:40] + b"broken" + content[46:])
    with pytest.raises(PermanentError, match=r"a file of desk\.Fills in .* is broken"):
        run_query('SELECT * FROM desk."Fills"')


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


@pytest.mark.parametrize("name", ["a b", "st*r [1]?", "p%20q#x", "quo'te \\", 'dou"ble', "münze 🐐"])
def test_a_table_may_be_called_anything(own_database, each_store, monkeypatch, tmp_path, name):
    text = yaml.safe_dump({"archived": {f"desk.{name}": {"time_column": "at", "retention": "24 h"}}})
    use_policies(monkeypatch, tmp_path, text=text)
    quoted = 'desk."' + name.replace('"', '""') + '"'
    change("CREATE SCHEMA desk", f"CREATE TABLE {quoted} (id int PRIMARY KEY, at timestamptz)")
    change(f"INSERT INTO {quoted} VALUES (1, '2024-05-01 01:00Z'), (2, '2024-05-01 02:00Z')")
    archive.move_day(f"desk.{name}", DAY, cut=AFTER, run_id="r")
    assert scan(f"desk.{name}").collect().height == 2
    assert run_query(f"SELECT count(*) FROM {quoted} WHERE id > 1").item() == 1
    assert restore_days(f"desk.{name}", DAY, DAY, run_id="r")[0].inserted == 2


def test_a_lake_may_lie_in_a_folder_of_any_name(own_database, monkeypatch, tmp_path):
    monkeypatch.setenv("TRACKER_LAKE_URI", str(tmp_path / "my [lake] *1?"))
    forget_settings()
    frame = bars(count=96)
    with connect() as connection:
        write_window(connection, BARS["15m"], frame, (AFTER - timedelta(days=31), AFTER), run_id="w")
    archive.move_day(BARS["15m"], DAY, cut=AFTER, run_id="r")
    assert scan("market.ohlc_15m").collect().height == 96


@pytest.mark.parametrize(
    ("uri", "why"), [("s3://", "names no bucket"), ("gs://b/x", "a gs store, which is not")]
)
def test_a_lake_of_no_kind_is_refused(monkeypatch, uri, why):
    monkeypatch.setenv("TRACKER_LAKE_URI", uri)
    forget_settings()
    with pytest.raises(PermanentError, match=why):
        lake_store()


def test_a_window_of_a_table_whose_policy_names_no_time_is_refused(fills, monkeypatch, tmp_path):
    policies = tmp_path / "policies.yaml"
    policies.write_text(policies.read_text().replace('"timestamp"', "payload"))
    forget_settings()
    with pytest.raises(
        PermanentError, match=r"desk\.Fills has no time payload: correct time_column in its policy"
    ):
        scan(NAME, AFTER)


def test_a_table_that_nobody_knows_is_named(fills):
    with pytest.raises(KeyError, match=r"desk\.other"):
        scan("desk.other")
