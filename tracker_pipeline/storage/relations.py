"""Tables as readers see them: columns with their Polars types, how a hot row is read, what a cold file lacks.

A table that we declare has the declared columns. Of any other that is archived, the columns are those of the database
now, with those that only older parts have after them; of a part from before the time column was renamed, its own one
stands for it. Values without a form in Polars (an infinite time, NaN of a
numeric, an array with bounds of its own) read as NULL there; files, restores and `row::text` have them.

What belongs here: what the reader must know of a table. What does not: reading (`spanning`), tables as they are
declared (`domain.schemas`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Final

import polars as pl
import pyarrow as pa

from tracker_pipeline.domain.schemas import BARS, TABLES, ColumnType, Table
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import lake
from tracker_pipeline.storage.archive_policy import get_policies
from tracker_pipeline.storage.catalogue import LiveColumn, LiveTable, live_table
from tracker_pipeline.storage.column_forms import Field, Kind, can_be_special, fields_of, special_values
from tracker_pipeline.storage.database import Connection, connect
from tracker_pipeline.storage.lake_store import lake_store
from tracker_pipeline.storage.pushdown import quoted

_NOTHING: Final = "NULL"  # what hot rows have of a column that only older parts have
_AS_TEXT = {ColumnType.NUMERIC, ColumnType.WEI, ColumnType.JSON}
# Views over hot bars of all timeframes, which Postgres answers.
_BAR_VIEWS: Final = ("market.ohlc_today", "market.ohlc_recent", "market.latest_bars")


@dataclass(frozen=True)
class Relation:
    """One table.

    Attributes:
        name: schema and table.
        columns: name and Polars type, in order.
        hot: SQL that reads each column; empty where the table is in the lake only.
        key: its key, if it has one.
        time_column: the column that days are cut by; None where it has none, so no rows are cold.
        corrects: whether a hot row with the key of a cold one is its correction and stands before it.
        declared: the declaration, None for a table that is only archived here.
    """

    name: str
    columns: Mapping[str, pl.DataType]
    hot: Mapping[str, str]
    key: tuple[str, ...]
    time_column: str | None
    corrects: bool
    declared: Table | None = None

    @property
    def has_time_column(self) -> bool:
        """Whether hot rows have the time column; not so where it was renamed and the policy does not know it yet."""
        name = self.time_column or ""
        is_time = isinstance(self.columns.get(name), pl.Datetime | pl.Date)
        return is_time and self.hot.get(name) != _NOTHING

    @property
    def qualified(self) -> tuple[str, str]:
        """Schema and name within it."""
        schema, _, table = self.name.partition(".")
        return schema, table

    def cold(self, paths: Sequence[str]) -> pl.LazyFrame:
        """The rows of some parts, in these columns.

        Raises:
            PermanentError: a file is missing.
        """
        if self.declared is not None:
            return lake.scan_parts(self.declared, paths)
        lake.refuse_missing(self.name, paths)
        described = sorted(((_described(self.name, path), path) for path in paths), key=itemgetter(0))
        versions = [
            self._version(columns, [path for _, path in group])
            for columns, group in groupby(described, key=itemgetter(0))
        ]
        return pl.concat(versions)

    def compared(self, name: str) -> str:
        """SQL of a column where it is compared: as text where readers have it as text, whose equality is another."""
        former = self.hot.get(name) == _NOTHING
        return self.hot[name] if former or self.columns[name] == pl.String() else quoted(name)

    def _version(self, described: "_Described", paths: Sequence[str]) -> pl.LazyFrame:
        """Parts of one version of the schema, with what they lack as NULL and the rest in the present types."""
        store = lake_store()
        rows = pl.scan_parquet(
            store.locations(paths),
            storage_options=dict(store.storage_options or {}),
            hive_partitioning=False,
            glob=False,
        )
        names, own_time = {name for name, _ in described[0]}, described[1]

        def source(name: str) -> pl.Expr:
            if name in names:
                return pl.col(name)
            return pl.col(own_time) if name == self.time_column and own_time in names else pl.lit(None)

        return rows.select(source(name).cast(kind).alias(name) for name, kind in self.columns.items())


_Described = tuple[tuple[tuple[str, str], ...], str]
"""Name and type of each column of a file, and its time column."""


@cache
def _described(table: str, path: str) -> _Described:
    """What a file says of itself does not change, so it is read once.

    Raises:
        PermanentError: it is broken.
    """
    import pyarrow.parquet as pq  # 0.3 s

    with lake_store().open(path) as source:
        try:
            schema = pq.read_schema(source)
        except pa.ArrowInvalid as error:
            raise lake.broken(table, error) from error
    told = json.loads((schema.metadata or {}).get(b"tracker", b"{}"))
    return tuple((field.name, str(field.type)) for field in schema), str(told.get("time_column", ""))


@cache
def _declared(name: str) -> Relation:
    table = TABLES[name]
    hot = {
        column.name: f"{quoted(column.name)}::text" if column.type in _AS_TEXT else quoted(column.name)
        for column in table.columns
    }
    return Relation(
        name=name,
        columns={column.name: column.type.polars for column in table.columns},
        hot=hot if table.store == "postgres" else {},
        key=table.key,
        time_column=table.time_column,
        corrects=True,
        declared=table,
    )


def relation_of(name: str) -> Relation:
    """The table of that name: a declared one, a view of recent bars, or one that the archive's policies name.

    Raises:
        KeyError: there is none.
    """
    if name in _BAR_VIEWS:
        return _bar_view(name)
    return _declared(name) if name in TABLES else _foreign(name)


@cache
def _bar_view(name: str) -> Relation:
    columns = dict(BARS["1m"].polars_schema) | {"timeframe": pl.String()}
    return Relation(
        name=name,
        columns=columns,
        hot={column: quoted(column) for column in columns},
        key=(),
        time_column=None,
        corrects=False,
    )


def known_tables() -> list[str]:
    """Names of all tables that can be read."""
    policies = get_policies()
    return [*TABLES, *_BAR_VIEWS, *sorted({*policies.archived, *policies.never} - set(TABLES))]


def _foreign(name: str) -> Relation:
    policies = get_policies()
    if name not in policies.archived and name not in policies.never:
        raise KeyError(f"{name} is neither declared nor named by an archive policy")
    policy = policies.archived.get(name)
    with connect() as connection:
        table = _table_if_any(connection, name)
        former = _only_in_parts(connection, name, {c.name for c in table.columns} if table else set())
    if table is None and not former:
        raise KeyError(f"{name} does not exist")
    columns, hot = {}, {}
    if table is not None:
        for column, field in zip(table.columns, fields_of(table), strict=True):
            columns[column.name] = _polars_type(column, field)
            hot[column.name] = _hot_value(column, field)
        hot |= dict.fromkeys(former, _NOTHING)
    return Relation(
        name=name,
        columns={**columns, **former},
        hot=hot,
        key=table.key if table else (),
        time_column=policy.time_column if policy else None,
        corrects=bool(policy and policy.same_key == "correct" and table and table.key),
    )


def _table_if_any(connection: Connection, name: str) -> LiveTable | None:
    try:
        return live_table(connection, name)
    except PermanentError:
        return None


def _only_in_parts(connection: Connection, name: str, present: set[str]) -> dict[str, pl.DataType]:
    """Columns that the table has no longer, with the type they had when they were last archived."""
    rows = connection.execute(
        "SELECT DISTINCT ON (c->>'name') c->>'name', b.path FROM archive.batches b,"
        " jsonb_array_elements("
        "CASE jsonb_typeof(b.schema->'columns') WHEN 'array' THEN b.schema->'columns' ELSE '[]' END) AS c"
        " WHERE b.table_name = %s AND b.state = 'live' ORDER BY c->>'name', b.batch_id DESC",
        [name],
    ).fetchall()
    found = {}
    for column, path in rows:
        if column not in present:
            with lake_store().open(path) as source:
                found[column] = pl.read_parquet_schema(source)[column]
    return found


def _polars_type(column: LiveColumn, field: Field) -> pl.DataType:
    if field.kind is Kind.SCALED and column.precision_and_scale:
        return pl.Decimal(*column.precision_and_scale)
    kind: pl.DataType = pl.Series(pa.array([], field.arrow)).dtype
    return kind


def _hot_value(column: LiveColumn, field: Field) -> str:
    """SQL of a value in a form that the driver gives to Polars unchanged."""
    value = quoted(column.name)
    if field.kind is Kind.SCALED:
        return f"(CASE WHEN {value} <> 'NaN' THEN {value} END)::text"
    if can_be_special(column):
        return field.select.replace(value, f"(CASE WHEN NOT ({special_values(column)}) THEN {value} END)")
    return field.select
