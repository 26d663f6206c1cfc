"""What is stored of rows that are about to be written, and where the two differ.

The stored rows are read as Arrow and compared here, in columns. Sending the new rows to the server and joining there
costs a temporary table, whose catalogue rows alone are 100 kB of write-ahead log, and five times the time where
nothing has changed, which is the usual case: feeds are asked again with overlap, and runs are repeated.

What belongs here: reading and comparing. What does not: writing (`writing`), reads for assets (`spanning`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import polars as pl
from psycopg import sql

from tracker_pipeline.domain.schemas import Column, ColumnType, Table
from tracker_pipeline.storage import lake, manifest
from tracker_pipeline.storage.database import Connection, arrow_connect, identifier

_AS_TEXT: Final = {ColumnType.NUMERIC, ColumnType.WEI, ColumnType.JSON}
# A key column with few values, such as the symbol, narrows what is read; one with many would only lengthen the query.
_MOST_VALUES: Final = 200
_LARGEST: Final = 2**62

Window = tuple[datetime, datetime]
Series = Mapping[str, list[str]]


@dataclass(frozen=True)
class Difference:
    """In what rows differ from what is stored.

    Attributes:
        new: rows whose key is nowhere stored.
        changed: rows whose hot row has other values. Exact numbers and JSON are compared as text here, so Postgres
            has the last word on them.
        corrected: rows whose row in the lake has other values, with the next revision where the table has revisions.
        former: what the lake holds of `corrected`.
        gone: keys of hot rows of the window that are not among the rows; none for a merged table.
        gone_cold: how many rows of the lake are not among the rows; 0 for a merged table.
    """

    new: pl.DataFrame
    changed: pl.DataFrame
    corrected: pl.DataFrame
    former: pl.DataFrame
    gone: pl.DataFrame
    gone_cold: int = 0


def difference(connection: Connection, table: Table, rows: pl.DataFrame, window: Window | None) -> Difference:
    """Compare rows with what is stored. The caller holds the table's lock, so what is read here stays true.

    Args:
        connection: to the database of `ready_url`, for the manifest.
        table: the declaration.
        rows: conforming rows, sorted by key.
        window: [start, end) that a replaced table is compared in; None for a table without time.
    """
    span = _span(table, rows, window)
    series = _series(table, rows)
    hot = _hot(table, span, series)
    cold = _cold(connection, table, span, series)
    place = _place(table, span, series)
    if cold.is_empty() and _same(table, rows, hot, place):
        nothing = rows.clear()
        return Difference(nothing, nothing, nothing, nothing, nothing)
    return _differ(table, rows, hot, cold.join(hot, on=table.key, how="anti"), place)


def _place(table: Table, span: Window | None, series: Series) -> pl.Expr:
    """The key of a row as one value that sorts like it: a number where possible, which sorts ten times faster.

    It is where the row lies in a grid of series by microseconds.
    """
    texts = [name for name in table.key if name in series]
    if span is None or table.time_column is None or table.key != (*texts, table.time_column):
        return pl.struct(table.key)
    number = pl.lit(0, pl.Int64)
    size = 1
    for name in texts:
        codes = pl.Enum(sorted(series[name]))
        number = number * len(series[name]) + pl.col(name).cast(codes).to_physical().cast(pl.Int64)
        size *= len(series[name])
    width = (span[1] - span[0]) // timedelta(microseconds=1)
    if size * width >= _LARGEST:
        return pl.struct(table.key)
    since = (
        pl.col(table.time_column).dt.epoch("us") - int(span[0].timestamp()) * 1_000_000 - span[0].microsecond
    )
    return number * width + since


def _same(table: Table, rows: pl.DataFrame, hot: pl.DataFrame, place: pl.Expr) -> bool:
    if rows.height != hot.height:
        return False
    order = hot.select(place.arg_sort()).to_series()
    columns = [*table.key, *table.compared]
    return rows.select(columns).equals(hot.select(columns)[order])


def _differ(
    table: Table, rows: pl.DataFrame, hot: pl.DataFrame, cold: pl.DataFrame, place: pl.Expr
) -> Difference:
    parts = [(hot, False), (cold, True)]
    stored = pl.concat(
        [part.select(_kept(table)).with_columns(is_cold=pl.lit(value)) for part, value in parts]
    )
    joined = rows.with_columns(place=place).join(
        stored.with_columns(place=place), on="place", how="left", suffix=" stored", maintain_order="left"
    )
    is_new = pl.col("is_cold").is_null()
    differs = pl.any_horizontal(
        pl.lit(value=False), *(pl.col(name).ne_missing(pl.col(f"{name} stored")) for name in table.compared)
    )
    columns = list(table.column_by_name)
    corrected = joined.filter(pl.col("is_cold") & differs)
    if table.revisions:
        corrected = corrected.with_columns(revision=pl.col("revision stored") + 1)
    gone = stored.clear() if table.write == "merge" else stored.join(rows, on=table.key, how="anti")
    return Difference(
        new=joined.filter(is_new).select(columns),
        changed=joined.filter(~pl.col("is_cold") & differs).select(columns),
        corrected=corrected.select(columns),
        former=cold.join(corrected, on=table.key, how="semi"),
        gone=gone.filter(~pl.col("is_cold")).select(table.key),
        gone_cold=gone.filter("is_cold").height,
    )


def _kept(table: Table) -> list[str]:
    return [*table.key, *table.compared, *(["revision"] if table.revisions else [])]


def _span(table: Table, rows: pl.DataFrame, window: Window | None) -> Window | None:
    """[start, end) in which stored rows can matter: the window that is replaced, or the times that are merged."""
    if table.time_column is None or table.write == "replace":
        return window
    times = rows.get_column(table.time_column)
    return times.min(), times.max() + timedelta(microseconds=1)  # type: ignore[operator,return-value]


def _series(table: Table, rows: pl.DataFrame) -> Series:
    """Key columns of text with few values among the rows, and those; nothing where other rows matter too."""
    if table.write == "replace":
        return {}
    texts = [name for name in table.key if table.column_by_name[name].type is ColumnType.TEXT]
    values = {name: rows.get_column(name).unique().to_list() for name in texts}
    return {name: found for name, found in values.items() if len(found) <= _MOST_VALUES}


def _hot(table: Table, span: Window | None, series: Series) -> pl.DataFrame:
    columns = [table.column_by_name[name] for name in _kept(table)]
    statement = sql.SQL("SELECT {} FROM {} WHERE {}").format(
        sql.SQL(", ").join(_selected(column) for column in columns),
        identifier(table),
        _conditions(table, span, series),
    )
    with arrow_connect() as connection, connection.cursor() as cursor:
        cursor.execute(statement.as_string())
        return pl.DataFrame(cursor.fetch_arrow_table()).cast({c.name: c.type.polars for c in columns})


def _conditions(table: Table, span: Window | None, series: Series) -> sql.Composed:
    conditions: list[sql.Composable] = [sql.SQL("true")]
    if span is not None:
        time = sql.Identifier(table.time_column or "")
        bounds = [sql.Literal(moment) for moment in span]
        conditions.append(sql.SQL("{0} >= {1} AND {0} < {2}").format(time, *bounds))
    conditions += [
        sql.SQL("{} = ANY({})").format(sql.Identifier(name), sql.Literal(values))
        for name, values in series.items()
    ]
    return sql.SQL(" AND ").join(conditions)


def _selected(column: Column) -> sql.Composed:
    cast = "::text" if column.type in _AS_TEXT else ""
    return sql.SQL("{0}{1} AS {0}").format(sql.Identifier(column.name), sql.SQL(cast))


def _cold(connection: Connection, table: Table, span: Window | None, series: Series) -> pl.DataFrame:
    batches = manifest.live_batches(connection, table, *(span or (None, None))) if table.time_column else []
    if not batches:
        return pl.DataFrame(schema=table.polars_schema)
    cold = lake.scan_parts(table, [batch.path for batch in batches])
    if span is not None:
        cold = cold.filter(pl.col(table.time_column or "").is_between(*span, closed="left"))
    return cold.filter(*(pl.col(name).is_in(values) for name, values in series.items())).collect()
