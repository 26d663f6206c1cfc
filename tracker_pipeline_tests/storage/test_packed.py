"""Columns come out of one row of bytes as they are in the database, by one message."""

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import psycopg
import pytest

from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage.packed import Column, Packing
from tracker_pipeline.storage.round_trip import ask

BARS = ("market", "ohlc_15m")
VALUES = {
    "price": (pl.Float64(), "float8", [1.5, -0.0, None, float("inf"), 5e-324]),
    "count": (pl.Int64(), "bigint", [None, 2**63 - 1, -(2**63), 0, None]),
    "known": (pl.Boolean(), "boolean", [True, None, False, None, True]),
    "day": (pl.Date(), "date", [date(2024, 2, 29), date(1969, 12, 31), None, None, date(1, 1, 1)]),
    "at": (
        pl.Datetime("us", "UTC"),
        "timestamptz",
        [
            None,
            datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC),
            datetime(9999, 1, 1, tzinfo=UTC),
            None,
            None,
        ],
    ),
    "text": (pl.String(), "text", ["", None, "naïve ⟂ 語", "O'\"D\\", "\n\t"]),
}


def read(columns: list[Column], source: str) -> pl.DataFrame:
    packing = Packing(columns)
    (rows,) = ask(BARS, (f"SELECT {', '.join(packing.asked)} FROM {source}", ()))
    return packing.unpack(rows[0])


@pytest.fixture
def source(own_database):
    """A table of every type."""
    frame = pl.DataFrame({name: pl.Series(values, dtype=kind) for name, (kind, _, values) in VALUES.items()})
    with psycopg.connect(own_database) as connection:
        columns = ", ".join(f"{name} {kind}" for name, (_, kind, _) in VALUES.items())
        connection.execute(f"CREATE TABLE public.of_every_type ({columns})")
        connection.cursor().executemany(
            "INSERT INTO public.of_every_type VALUES (%s, %s, %s, %s, %s, %s)", frame.rows()
        )
    return frame


@pytest.mark.parametrize("chosen", ["true", "false", "price > 0", "text IS NULL", "at IS NULL"])
def test_values_of_every_type_come_back_as_they_are_with_and_without_null(source, chosen):
    columns = [Column(name, f'"{name}"', kind, nullable=True) for name, (kind, _, _) in VALUES.items()]
    found = read(columns, f"public.of_every_type WHERE {chosen}")
    assert found.equals(pl.SQLContext(t=source).execute(f"SELECT * FROM t WHERE {chosen}", eager=True))
    assert found.schema == source.schema


def test_columns_that_cannot_be_null_need_no_more_than_their_values(source):
    columns = [
        Column(name, f'"{name}"', kind, nullable=False)
        for name, (kind, _, _) in VALUES.items()
        if name in ("price", "text")
    ]
    chosen = source.select("price", "text").drop_nulls()
    assert read(columns, "public.of_every_type WHERE price IS NOT NULL AND text IS NOT NULL").equals(chosen)
    with pytest.raises(PermanentError, match="one of price, known is NULL"):
        read([columns[0], Column("known", "known", pl.Boolean(), nullable=False)], "public.of_every_type")


@pytest.mark.parametrize("count", range(1, 10))
def test_any_number_of_floats_side_by_side_come_back_bit_by_bit(own_database, count):
    values = ["-0", "NaN", "Infinity", "-Infinity", "5e-324", "1.7976931348623157e308", "0.1", "1", "-2"]
    names = [f"n{place}" for place in range(count)]
    asked = ", ".join(f"'{value}'::float8 AS {name}" for name, value in zip(names, values, strict=False))
    found = read([Column(n, n, pl.Float64(), nullable=False) for n in names], f"(SELECT {asked}) AS one")
    expected = np.array([float(value) for value in values[:count]])
    assert found.columns == names
    assert np.array(found.row(0)).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("kind", "value"), [(pl.Datetime("us", "UTC"), "timestamptz"), (pl.Date(), "date")], ids=["time", "day"]
)
@pytest.mark.parametrize("sign", ["", "-"])
def test_an_infinite_time_is_refused_by_name(own_database, kind, value, sign):
    columns = [Column("ended_at", "ended_at", kind, nullable=False)]
    with pytest.raises(PermanentError, match="a time in ended_at is infinite"):
        read(columns, f"(SELECT '{sign}infinity'::{value} AS ended_at) AS one")


def test_all_statements_see_one_moment_and_a_failing_one_leaves_the_next_reads_well(own_database):
    same = ("SELECT txid_current_snapshot()::text, now()::text", ())
    first, second = ask(BARS, same, same)
    assert first == second
    with pytest.raises(PermanentError, match="does not exist"):
        ask(BARS, ("SELECT 1", ()), ("SELECT no_such_column FROM market.ohlc_15m", ()), ("SELECT 2", ()))
    assert ask(BARS, ("SELECT $1::text", ["x"])) == [[(b"x",)]]


def test_more_statements_than_the_server_is_to_remember_are_answered_all_the_same(own_database):
    for number in [*range(150), *range(150)]:
        assert ask(BARS, (f"SELECT '{number}'", ())) == [[(str(number).encode(),)]]
