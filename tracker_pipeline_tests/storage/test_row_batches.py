"""Rows that Postgres sends in its binary form arrive value by value, however they are cut on the way."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from tracker_pipeline.domain.copy_binary import NOTHING_ODD, OTHER_FIELDS, TEXT, take_rows
from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.storage import copy_out, row_batches, snapshot_reader
from tracker_pipeline.storage.catalogue import live_table
from tracker_pipeline.storage.column_forms import DoesNotFitError, Field, fields_of
from tracker_pipeline.storage.database import Connection, connect

LONG = "long é" * 100_000  # more than the buffer of the reader holds


@contextmanager
def reading(meanwhile: str = "") -> Iterator[tuple[Connection, str, list[Field]]]:
    """A connection, its snapshot of the table, and the fields as they were before something else happened."""
    with connect() as connection:
        fields = fields_of(live_table(connection, "public.kept"))
        if meanwhile:
            connection.execute(meanwhile)
        connection.commit()
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        yield connection, snapshot_reader.begin_exact(connection), fields


def rows_of() -> pa.Table:
    with reading() as (_, snapshot, fields):
        asked = ", ".join(f"{field.select} AS {field.name}" for field in fields)
        with snapshot_reader.stream(snapshot, f"SELECT {asked} FROM public.kept", fields) as batches:
            table = pa.Table.from_batches(list(batches), pa.schema([(f.name, f.arrow) for f in fields]))
    table.validate(full=True)
    return table


def make(columns: str, rows: str) -> None:
    with connect() as connection:
        connection.execute(f"CREATE TABLE public.kept ({columns}); INSERT INTO public.kept {rows}")


@pytest.mark.parametrize("by_libpq", [False, True])
def test_rows_of_all_sizes_arrive_whole(own_database, monkeypatch, by_libpq):
    if by_libpq:  # as over an encrypted connection
        monkeypatch.setattr(copy_out, "_is_plain", lambda _: False)
    make(
        "id int, at timestamptz, t text",
        f"SELECT i, '2026-01-05'::timestamptz + i * interval '1 s', CASE WHEN i % 5000 = 7 THEN '{LONG}'"
        " WHEN i % 3 = 0 THEN NULL ELSE repeat('x', i % 300) END FROM generate_series(0, 19999) AS i",
    )
    found = rows_of().sort_by("id")
    assert found.column("id").to_pylist() == list(range(20_000))
    assert found.column("at")[19_999].as_py() == datetime(2026, 1, 5, 5, 33, 19, tzinfo=UTC)
    texts = [LONG if i % 5_000 == 7 else None if i % 3 == 0 else "x" * (i % 300) for i in range(20_000)]
    assert found.column("t").to_pylist() == texts


def test_no_row_makes_no_batch(own_database):
    make("id int", "SELECT 1 WHERE false")
    assert rows_of().num_rows == 0


def test_exact_numbers_of_every_length_and_scale(own_database):
    texts = [
        "0",
        "-0.01",
        "0.09",
        "1",
        "-1",
        "9999",
        "10000",
        "10000.01",
        "123456.78",
        "-99999999.99",
        "100000000",
        "0.1",
    ]
    make("a numeric(18,2), b numeric(18,0), c numeric(18,9)", f"""SELECT v::numeric, v::numeric, v::numeric
         FROM unnest('{{{",".join(texts)},NULL}}'::text[]) AS v""")  # fmt: skip
    found = rows_of()
    with connect() as connection:
        stored = connection.execute("SELECT * FROM public.kept").fetchall()
    assert list(zip(*(found.column(name).to_pylist() for name in "abc"), strict=True)) == stored
    assert found.column("a")[2].as_py() == Decimal("0.09")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("numeric(18,2)", "NaN"),
        ("numeric(30,2)", "1234567890123456789.12"),
        ("numeric(30,8)", "12345678901.00000001"),
        ("timestamptz", "infinity"),
        ("timestamp", "-infinity"),
        ("timestamp", "294276-12-31"),
        ("date", "0044-03-15 BC"),
        ("text[]", "[0:1]={a,b}"),
        ("text[]", "{{a},{b}}"),
    ],
)
def test_a_value_without_the_usual_form_is_refused_by_the_name_of_its_column(own_database, kind, value):
    make(f"id int, odd {kind}", f"VALUES (1, NULL), (2, '{value}')")
    with pytest.raises(DoesNotFitError, match="odd"):
        rows_of()


def test_a_server_that_refuses_is_quoted(own_database):
    make("id int", "VALUES (1), (0)")
    with reading() as (_, snapshot, fields):
        with (
            pytest.raises(TransientError, match="could not open file"),
            snapshot_reader.stream(snapshot, "SELECT pg_read_file('/none')::int FROM kept", fields) as rows,
        ):
            list(rows)
        with (
            pytest.raises(DoesNotFitError, match="division by zero"),
            snapshot_reader.stream(snapshot, "SELECT 1 / id FROM public.kept", fields) as rows,
        ):
            list(rows)


def test_a_connection_that_ends_in_the_middle_is_said_in_one_sentence(own_database):
    make("id int, t text", "SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) AS i")
    with reading() as (connection, snapshot, fields):

        def cut_off() -> None:
            with snapshot_reader.stream(snapshot, "SELECT id, t FROM public.kept", fields) as rows:
                next(rows)
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT id, t%'"
                )
                list(rows)

        with pytest.raises(TransientError, match="reading the rows broke off"):
            cut_off()


def test_whoever_stops_in_the_middle_does_not_disturb_the_next_one(own_database):
    make("id int, t text", "SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) AS i")
    with (
        reading() as (_, snapshot, fields),
        snapshot_reader.stream(snapshot, "SELECT id, t FROM public.kept", fields) as rows,
    ):
        next(rows)
    for _ in range(2):
        assert rows_of().num_rows == 20_000


def test_messages_are_taken_apart_wherever_they_are_cut():
    row = b"\0\2" + b"\0\0\0\4" + b"abcd" + b"\xff\xff\xff\xff"
    head = b"PGCOPY\n\xff\r\n\0" + bytes(8)
    sent = b"".join(b"d" + (len(m) + 4).to_bytes(4, "big") + m for m in (head + row, row, b"\xff\xff"))
    data = np.frombuffer(sent, np.uint8)
    of_fields = np.array([TEXT, 4]), np.zeros(2, np.uint64), np.array([0, 5])
    for cut in range(len(data) + 1):
        numbers, texts, ends = np.full((1, 9), 7), np.zeros(99, np.uint8), np.zeros((1, 10), np.int32)
        present, missing = np.zeros((2, 9), bool), np.zeros(2, np.int64)
        filled = *of_fields, numbers, texts, np.array([0, 99]), ends, present, missing, np.zeros(1, np.int64)
        found, at, odd = take_rows(data, 0, cut, 0, 9, *filled)
        rows, end, still = take_rows(data, at, len(data), found, 9, *filled)
        assert (rows, end, odd, still) == (2, len(data), NOTHING_ODD, NOTHING_ODD)
        assert (texts[:8].tobytes(), ends[0, :3].tolist()) == (b"abcdabcd", [0, 4, 8])
        assert (numbers[0, :2].tolist(), present[:, :2].tolist()) == ([0, 0], [[True] * 2, [False] * 2])
        assert missing.tolist() == [0, 2]
    one = tuple(array[:1] for array in filled)
    assert take_rows(data, 0, len(data), 0, 9, *one)[2] == OTHER_FIELDS


def test_a_long_text_makes_room_in_its_own_column_only(own_database, monkeypatch):
    rooms = []
    make_room = row_batches._Batch._make_room

    def noted(batch):
        make_room(batch)
        rooms.append(np.diff(batch._begins).tolist())

    monkeypatch.setattr(row_batches._Batch, "_make_room", noted)
    names = [f"t{n}" for n in range(30)]
    long_ones = {3: 2, 14: 3, 29: 4}  # of which row the long text of a column is
    values = ", ".join(
        f"CASE WHEN i = {long_ones.get(n, -1)} THEN repeat('{n % 10}', 300000) ELSE i::text END"
        for n in range(30)
    )
    make(", ".join(f"{name} text" for name in names), f"SELECT {values} FROM generate_series(1, 5) AS i")
    found = rows_of()
    for n, name in enumerate(names):
        expected = [str(n % 10) * 300_000 if i == long_ones.get(n) else str(i) for i in range(1, 6)]
        assert sorted(found.column(name).to_pylist()) == sorted(expected)
    small = {room for n, room in enumerate(rooms[-1]) if n not in long_ones}
    assert len(small) == 1
    assert small.pop() < 300_000 <= min(rooms[-1][n] for n in long_ones)


@pytest.mark.parametrize(
    ("before", "after"),
    [("int", "bigint"), ("float8", "real"), ("smallint", "text"), ("numeric(9,2)", "text")],
)
def test_a_column_that_got_another_type_meanwhile_is_refused_by_its_name(own_database, before, after):
    make(f"id int, changed {before}", "VALUES (1, 12345)")
    with (
        reading(f"ALTER TABLE public.kept ALTER COLUMN changed TYPE {after}") as (_, snapshot, fields),
        pytest.raises(DoesNotFitError, match="changed"),
        snapshot_reader.stream(snapshot, "SELECT id, changed FROM public.kept", fields) as rows,
    ):
        list(rows)


def test_batches_of_wide_rows_are_cut_by_their_bytes(own_database):
    make("t text", "SELECT repeat('x', 10000) FROM generate_series(1, 2000)")
    found = rows_of()
    sizes = [chunk.nbytes for chunk in found.column("t").chunks]
    assert len(sizes) > 3
    assert max(sizes) < 2 * row_batches._BATCH_BYTES
