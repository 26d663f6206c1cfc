"""What a declaration of a table is: logical types, columns, keys, and how a frame is made to conform.

What belongs here: the language of declarations. What does not: any one table (the modules beside this one).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Final, Literal

import polars as pl


class ColumnType(Enum):
    """A logical type, with its form in a Polars frame and in Postgres.

    Exact numbers (`NUMERIC`, `WEI`) travel through frames as decimal text: no Arrow decimal holds the 78 digits
    of a uint256, and a float would round.
    """

    TEXT = "text"
    FLOAT = "double precision"
    INT = "bigint"
    BOOL = "boolean"
    TIME = "timestamp with time zone"
    DATE = "date"
    NUMERIC = "numeric"
    WEI = "numeric(78,0)"
    JSON = "jsonb"
    TEXT_LIST = "text[]"

    @property
    def polars(self) -> pl.DataType:
        """The type of the column in a frame."""
        return _POLARS[self]

    @property
    def postgres(self) -> str:
        """The type of the column in Postgres, as `format_type` spells it."""
        return self.value

    @property
    def staged(self) -> str:
        """The type in the staging table of a COPY: what the frame's type encodes to."""
        return {"numeric": "text", "numeric(78,0)": "text", "jsonb": "text"}.get(self.value, self.value)


_POLARS: Final[Mapping[ColumnType, pl.DataType]] = {
    ColumnType.TEXT: pl.String(),
    ColumnType.FLOAT: pl.Float64(),
    ColumnType.INT: pl.Int64(),
    ColumnType.BOOL: pl.Boolean(),
    ColumnType.TIME: pl.Datetime("us", "UTC"),
    ColumnType.DATE: pl.Date(),
    ColumnType.NUMERIC: pl.String(),
    ColumnType.WEI: pl.String(),
    ColumnType.JSON: pl.String(),
    ColumnType.TEXT_LIST: pl.List(pl.String()),
}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: its name, with the unit where that is not obvious.
        type: the logical type.
        description: what a reader of the UI should know.
        nullable: whether unknown is allowed; unknown is NULL, never 0.
        provenance: says when and by whom a row was written. Two rows that differ in provenance alone are the
            same row, so writing the second changes nothing.
    """

    name: str
    type: ColumnType
    description: str
    nullable: bool = False
    provenance: bool = False


@dataclass(frozen=True)
class Chart:
    """What the web interface draws of a table.

    Attributes:
        column: a number, drawn over the table's time.
        span: how much is drawn, back from the newest row.
    """

    column: str
    span: timedelta


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: schema and table, also the asset key and the lake folder.
        key: the natural key that storage enforces.
        columns: in order, key first.
        time_column: the column that partitions are cut by; None where the table has no time.
        store: where rows are written first. Rows of a `postgres` table may move to the lake later.
        write: `replace` makes a partition's window equal to what was computed; `merge` adds and corrects but
            never removes, for rows that come from outside.
        revisions: the table that keeps previous versions of corrected rows, if any.
        partition: how long the native partitions of the hot table are, in UTC; None for one table without.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    description: str
    time_column: str | None = None
    store: Literal["postgres", "lake"] = "postgres"
    write: Literal["replace", "merge"] = "replace"
    revisions: str | None = None
    partition: Literal["day", "month", "year"] | None = None
    chart: Chart | None = None
    column_by_name: Mapping[str, Column] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the columns and refuse a key or time column that is not declared."""
        object.__setattr__(self, "column_by_name", {column.name: column for column in self.columns})
        drawn = self.chart.column if self.chart else None
        named = {*self.key, *(name for name in (self.time_column, drawn) if name)}
        undeclared = named - set(self.column_by_name)
        if undeclared:
            raise ValueError(f"{self.name}: {sorted(undeclared)} are not declared columns")
        if self.partition and self.time_column not in self.key:
            raise ValueError(f"{self.name}: a table is partitioned by a time that is part of its key")

    @property
    def schema(self) -> str:
        """The Postgres schema."""
        return self.name.split(".")[0]

    @property
    def table(self) -> str:
        """The name within its schema."""
        return self.name.split(".")[1]

    @property
    def polars_schema(self) -> pl.Schema:
        """Column names and types of a frame of this table."""
        return pl.Schema({column.name: column.type.polars for column in self.columns})

    @property
    def compared(self) -> tuple[str, ...]:
        """The columns that decide whether a stored row has changed: all but the key, provenance, revision."""
        return tuple(
            column.name
            for column in self.columns
            if column.name not in self.key and not column.provenance and column.name != "revision"
        )

    def conform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return `frame` with exactly the declared columns in order and type, sorted by key.

        Nullable columns that are absent are added as NULL; columns not declared are refused.

        Raises:
            ValueError: a column is unknown, a required column is absent, or a type does not cast exactly.
        """
        unknown = set(frame.columns) - set(self.column_by_name)
        absent = [c.name for c in self.columns if c.name not in frame.columns and not c.nullable]
        if unknown or absent:
            raise ValueError(f"{self.name}: unknown columns {sorted(unknown)}, absent columns {absent}")
        inexact = [
            f"{c.name} is {frame.schema[c.name]}, not {c.type.polars}"
            for c in self.columns
            if c.name in frame.columns and not _casts_exactly(frame.schema[c.name], c.type.polars)
        ]
        if inexact:
            raise ValueError(f"{self.name}: columns without their declared type: {', '.join(inexact)}")
        columns = [
            (pl.col(c.name) if c.name in frame.columns else pl.lit(None)).cast(c.type.polars).alias(c.name)
            for c in self.columns
        ]
        return frame.select(columns).sort(self.key)


def _casts_exactly(given: pl.DataType, declared: pl.DataType) -> bool:
    """Whether no value can change in the cast. A time without zone has no exact meaning, so it is refused."""
    if given in (declared, pl.Null):
        return True
    if isinstance(declared, pl.Datetime):
        return isinstance(given, pl.Datetime) and given.time_zone is not None
    if isinstance(declared, pl.String):
        return isinstance(given, (pl.Categorical, pl.Enum))
    if isinstance(declared, pl.List):
        return given == pl.List(pl.Null)
    if isinstance(declared, pl.Float64):
        return given == pl.Float32 or given.is_integer()
    return isinstance(declared, pl.Int64) and given.is_integer()


T = ColumnType

VENUE: Final = Column("venue", T.TEXT, "ccxt exchange id")
SYMBOL: Final = Column("symbol", T.TEXT, "ccxt unified symbol, such as BTC/USDT")
RUN_ID: Final = Column("run_id", T.TEXT, "Dagster run that wrote the row", provenance=True)
