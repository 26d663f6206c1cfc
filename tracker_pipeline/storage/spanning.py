"""One table out of hot rows in Postgres and cold rows in the lake, each row once.

The hot rows and the manifest are read in one snapshot of the database, so a move from one to the other that
commits meanwhile is seen either wholly or not at all. A hot row stands before a cold row of the same key: it is a
correction that the archive has not taken yet.

What belongs here: reads over both. What does not: moving rows (`archive`), SQL for people (`query`).
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
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
    at: time | None = None,
) -> pl.LazyFrame:
    """Rows of `table` in [start, end), hot and cold as one, each key once.

    Args:
        table: schema and table, such as `market.ohlc_15m`.
        start: earliest moment, aware; None reads from the beginning.
        end: first moment that is not read, aware; None reads to the end.
        columns: what to keep, in this order; None keeps all declared columns.
        predicate: further filter on the rows, applied after they are read.
        at: time of the UTC day; rows of other times are not read. The closing bars of a month are 1 % of its bars.

    Returns:
        A lazy frame in the declared schema. The hot rows are read now, the files when it is collected.

    Raises:
        KeyError: no such table.
        ValueError: a bound is given for a table without time, or has no time zone.
    """
    declared = TABLES[table]
    _refuse_bad_bounds(declared, start, end)
    with snapshot() as cursor:
        rows = read_in_snapshot(
            cursor, declared, start, end, only=_needed(declared, columns, predicate), at=at
        )
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
    cursor: Cursor,
    table: Table,
    start: datetime | None,
    end: datetime | None,
    *,
    only: Collection[str] = (),
    at: time | None = None,
) -> pl.LazyFrame:
    """Rows of `table` in [start, end) as the cursor's snapshot sees them.

    Args:
        cursor: of `snapshot`.
        table: the table.
        start: earliest moment.
        end: first moment that is not read.
        only: columns to read, its key among them; none given reads all.
        at: time of the UTC day, for a table that has time.
    """
    paths = _live_paths(cursor, table, start, end)
    names = [name for name in table.column_by_name if not only or name in only]
    cold = lake.scan_parts(table, paths).select(names)
    if table.time_column and paths:
        cold = cold.filter(_within(table.time_column, start, end, at))
    if table.store == "lake":
        return cold
    hot = _hot_rows(cursor, table, names, start, end, at)
    if not paths:
        return hot.lazy()
    return pl.concat([_not_corrected(cold, hot, table), hot.lazy()])


def _needed(table: Table, columns: Sequence[str] | None, predicate: pl.Expr | None) -> set[str]:
    """What must be read to return some columns; nothing for all."""
    if columns is None:
        return set()
    filtered_by = predicate.meta.root_names() if predicate is not None else []
    time_column = [table.time_column] if table.time_column else []
    return {*table.key, *time_column, *columns, *filtered_by}


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


def _hot_rows(
    cursor: Cursor,
    table: Table,
    names: Sequence[str],
    start: datetime | None,
    end: datetime | None,
    at: time | None,
) -> pl.DataFrame:
    columns = [table.column_by_name[name] for name in names]
    selected = ", ".join(
        f'"{column.name}"::text AS "{column.name}"' if column.type in _AS_TEXT else f'"{column.name}"'
        for column in columns
    )
    bounds = [(">=", start), ("<", end)]
    given = [(operator, moment) for operator, moment in bounds if moment is not None]
    conditions = [f'"{table.time_column}" {op} ${i}' for i, (op, _) in enumerate(given, start=1)]
    if at is not None:
        conditions.append(f"(\"{table.time_column}\" AT TIME ZONE 'UTC')::time = '{at.isoformat()}'")
    statement = f'SELECT {selected} FROM "{table.schema}"."{table.table}"'  # noqa: S608  # names of ours
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    cursor.execute(statement + where, tuple(moment for _, moment in given) or None)
    rows = pl.DataFrame(cursor.fetch_arrow_table())
    return rows.select(pl.col(column.name).cast(column.type.polars) for column in columns).sort(table.key)


def _within(column: str, start: datetime | None, end: datetime | None, at: time | None) -> pl.Expr:
    condition = pl.lit(value=True)
    if start is not None:
        condition &= pl.col(column) >= start.astimezone(UTC)
    if end is not None:
        condition &= pl.col(column) < end.astimezone(UTC)
    if at is not None:
        condition &= pl.col(column).dt.time() == at
    return condition


def _refuse_bad_bounds(table: Table, start: datetime | None, end: datetime | None) -> None:
    for bound in (start, end):
        if bound is None:
            continue
        if table.time_column is None:
            raise ValueError(f"{table.name} has no time, so it is read whole")
        if bound.tzinfo is None:
            raise ValueError(f"{bound!r} has no time zone: bounds are aware")
