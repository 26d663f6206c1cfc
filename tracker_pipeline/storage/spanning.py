"""One table out of hot rows in Postgres and cold rows in the lake, each row once.

The hot rows and the manifest are read in one snapshot of the database, so a move from one to the other that
commits meanwhile is seen either wholly or not at all. A hot row stands before a cold row of the same key: it is a
correction that the archive has not taken yet.

What belongs here: reads over both. What does not: moving rows (`archive`), SQL for people (`query`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from tracker_pipeline.domain.schemas import TABLES, ColumnType, Table
from tracker_pipeline.storage import lake
from tracker_pipeline.storage.database import arrow_connect

_AS_TEXT = {ColumnType.NUMERIC, ColumnType.WEI, ColumnType.JSON}

Cursor = Any  # adbc gives its cursor no useful type


def scan(
    table: str,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    columns: Sequence[str] | None = None,
    predicate: pl.Expr | None = None,
) -> pl.LazyFrame:
    """Rows of `table` in [start, end), hot and cold as one, each key once.

    Args:
        table: schema and table, such as `market.ohlc_15m`.
        start: earliest moment, aware; None reads from the beginning.
        end: first moment that is not read, aware; None reads to the end.
        columns: what to keep, in this order; None keeps all declared columns.
        predicate: further filter on the rows.

    Returns:
        A lazy frame in the declared schema. The hot rows are read now, the files when it is collected.

    Raises:
        KeyError: no such table.
        ValueError: a bound is given for a table without time, or has no time zone.
    """
    declared = TABLES[table]
    _refuse_bad_bounds(declared, start, end)
    with snapshot() as cursor:
        rows = read_in_snapshot(cursor, declared, start, end)
    if predicate is not None:
        rows = rows.filter(predicate)
    return rows.select(columns) if columns is not None else rows


@contextmanager
def snapshot() -> Iterator[Cursor]:
    """A cursor whose every read sees the database as of one moment."""
    with arrow_connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield cursor


def read_in_snapshot(
    cursor: Cursor, table: Table, start: datetime | None, end: datetime | None
) -> pl.LazyFrame:
    """Rows of `table` in [start, end) as the cursor's snapshot sees them."""
    paths = _live_paths(cursor, table, start, end)
    cold = lake.scan_parts(table, paths)
    if table.time_column and paths:
        cold = cold.filter(_within(table.time_column, start, end))
    if table.store == "lake":
        return cold
    hot = _hot_rows(cursor, table, start, end)
    if not paths:
        return hot.lazy()
    return pl.concat([_not_corrected(cold, hot, table), hot.lazy()])


def _not_corrected(cold: pl.LazyFrame, hot: pl.DataFrame, table: Table) -> pl.LazyFrame:
    return cold.join(hot.lazy().select(table.key), on=table.key, how="anti") if hot.height else cold


def _live_paths(cursor: Cursor, table: Table, start: datetime | None, end: datetime | None) -> list[str]:
    first = start.date() if start else date.min
    last = (end - timedelta(microseconds=1)).date() if end else date.max
    cursor.execute(
        "SELECT path FROM archive.batches WHERE table_name = $1 AND state = 'live'"
        " AND data_day BETWEEN $2 AND $3 ORDER BY data_day",
        (table.name, first, last),
    )
    return [row[0] for row in cursor.fetchall()]


def _hot_rows(cursor: Cursor, table: Table, start: datetime | None, end: datetime | None) -> pl.DataFrame:
    selected = ", ".join(
        f'"{column.name}"::text AS "{column.name}"' if column.type in _AS_TEXT else f'"{column.name}"'
        for column in table.columns
    )
    bounds = [(">=", start), ("<", end)]
    given = [(operator, moment) for operator, moment in bounds if moment is not None]
    where = " AND ".join(f'"{table.time_column}" {op} ${i}' for i, (op, _) in enumerate(given, start=1))
    statement = f'SELECT {selected} FROM "{table.schema}"."{table.table}"'  # noqa: S608  # names of ours
    cursor.execute(
        statement + (f" WHERE {where}" if where else ""), tuple(moment for _, moment in given) or None
    )
    return table.conform(pl.DataFrame(cursor.fetch_arrow_table()))


def _within(column: str, start: datetime | None, end: datetime | None) -> pl.Expr:
    condition = pl.lit(value=True)
    if start is not None:
        condition &= pl.col(column) >= start.astimezone(UTC)
    if end is not None:
        condition &= pl.col(column) < end.astimezone(UTC)
    return condition


def _refuse_bad_bounds(table: Table, start: datetime | None, end: datetime | None) -> None:
    for bound in (start, end):
        if bound is None:
            continue
        if table.time_column is None:
            raise ValueError(f"{table.name} has no time, so it is read whole")
        if bound.tzinfo is None:
            raise ValueError(f"{bound!r} has no time zone: bounds are aware")
