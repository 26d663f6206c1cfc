"""Tables as readers see them: columns with their Polars types, how a hot row is read, what a cold file lacks.

What belongs here: what the reader must know of a table. What does not: reading (`spanning`), tables as they are
declared (`domain.schemas`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import polars as pl
from psycopg import sql

from tracker_pipeline.domain.schemas import TABLES, ColumnType, Table
from tracker_pipeline.storage import lake

_AS_TEXT = {ColumnType.NUMERIC, ColumnType.WEI, ColumnType.JSON}


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
    def qualified(self) -> tuple[str, str]:
        """Schema and name within it."""
        schema, _, table = self.name.partition(".")
        return schema, table

    def cold(self, paths: Sequence[str]) -> pl.LazyFrame:
        """The rows of some parts, in these columns."""
        assert self.declared is not None  # noqa: S101  # no other table has parts yet
        return lake.scan_parts(self.declared, paths)


@cache
def _declared(name: str) -> Relation:
    table = TABLES[name]
    hot = {
        column.name: f"{_quoted(column.name)}::text" if column.type in _AS_TEXT else _quoted(column.name)
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
    """The table of that name.

    Raises:
        KeyError: there is none.
    """
    return _declared(name)


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)
