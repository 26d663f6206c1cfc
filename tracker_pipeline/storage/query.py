"""SQL for people: DuckDB over every table, hot and cold rows as one relation, each row once.

DuckDB asks each table for the columns and rows that its plan needs; the question goes on to Postgres and the files.

What belongs here: how a query finds its tables. What does not: reads for assets (`spanning`).
"""

import difflib
import re
import threading
from collections.abc import Sequence
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds

from tracker_pipeline.domain.schemas import ColumnType
from tracker_pipeline.resources.errors import PermanentError, PipelineError, TransientError
from tracker_pipeline.storage import lake
from tracker_pipeline.storage.pushdown import conditions_of_arrow
from tracker_pipeline.storage.relations import Relation, known_tables, relation_of
from tracker_pipeline.storage.snapshots import Snapshot, snapshot
from tracker_pipeline.storage.spanning import hot_tables, read
from tracker_pipeline.storage.wanted import Wanted

# DuckDB's widest exact types. A balance beyond 2^127 fails the query rather than being rounded.
_CASTS = {ColumnType.WEI: "HUGEINT", ColumnType.NUMERIC: "DECIMAL(38, 10)"}


def run_query(statement: str) -> pl.DataFrame:
    """Run one SELECT over our tables and return its result.

    All tables of the statement are read in one snapshot of the database.

    Raises:
        PermanentError: the statement is not valid, or names a table that does not exist.
        TransientError: the database or the lake does not answer.
    """
    try:
        with _closed_off() as connection:
            _refuse_other_than_select(connection, statement)
            wanted = _relations_of(statement)
            with snapshot(*(table for relation in wanted for table in hot_tables(relation))) as moment:
                return _run(connection, statement, [_Source(moment, relation) for relation in wanted])
    except duckdb.Error as error:
        raise PermanentError(f"the query failed: {_words_of(error)}") from error


def _run(connection: duckdb.DuckDBPyConnection, statement: str, sources: Sequence["_Source"]) -> pl.DataFrame:
    for source in sources:
        _offer(connection, source)
    try:
        return connection.sql(statement).pl()
    except duckdb.Error as error:
        # What failed in a source comes out of DuckDB as its own, with a traceback for a text.
        raise next((source.failure for source in sources if source.failure), error) from None


class _Source(ds.InMemoryDataset):  # type: ignore[misc]  # Arrow has no type information
    """One of our tables, as DuckDB sees an Arrow dataset: asked for columns and a filter, it answers with rows."""

    def __init__(self, moment: Snapshot, relation: Relation) -> None:
        empty = pl.DataFrame(schema=dict(relation.columns)).to_arrow(compat_level=pl.CompatLevel.oldest())
        super().__init__(empty)
        self.relation = relation
        self.failure: PipelineError | None = None
        self._moment = moment

    def scanner(self, columns: list[str] | None = None, filter: Any = None, **_: Any) -> ds.Scanner:  # noqa: A002
        """The rows that pass `filter`, in `columns`. DuckDB relies on both."""
        kept = list(self.relation.columns) if columns is None else columns
        needed = [n for n in self.relation.columns if n in kept or (filter is not None and _names(filter, n))]
        wanted = Wanted(columns=needed, conditions=conditions_of_arrow(filter, self.schema))
        try:
            with _one_at_a_time:
                rows = read(self._moment, self.relation, wanted)
            table = _collected(rows, self.relation).to_arrow(compat_level=pl.CompatLevel.oldest())
        except PipelineError as error:
            self.failure = error
            raise
        return ds.dataset(table).scanner(columns=kept, filter=filter)


# A snapshot is one connection, and DuckDB may open two tables at once.
_one_at_a_time = threading.Lock()


def _collected(rows: pl.LazyFrame, relation: Relation) -> pl.DataFrame:
    """The rows; what fails from here on are files."""
    try:
        return rows.collect(engine="streaming")
    except pl.exceptions.InvalidOperationError as error:
        raise PermanentError(
            f"archived rows of {relation.name} cannot be read in the types that its columns have now:"
            f" {' '.join(str(error).split())[:300]}"
        ) from error
    except pl.exceptions.PanicException as error:  # what its reader meets in the middle of a broken file
        raise lake.broken(relation.name, error) from error
    except pl.exceptions.ComputeError as error:
        if "parquet" in str(error).lower():
            raise lake.broken(relation.name, error) from error
        raise TransientError(
            f"files of {relation.name} cannot be read: {' '.join(str(error).split())[:300]}"
        ) from error


def _names(expression: pa.compute.Expression, column: str) -> bool:
    """Whether an expression may speak of a column; it says so in words only."""
    return re.search(rf"(?<!\w){re.escape(column)}(?!\w)", str(expression)) is not None


def _closed_off() -> duckdb.DuckDBPyConnection:
    """A connection whose days are UTC days and that reads our tables only, not the disk."""
    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_external_access = false")
    return connection


def _refuse_other_than_select(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    kinds = [part.type for part in connection.extract_statements(statement)]
    if kinds != [duckdb.StatementType.SELECT]:
        raise PermanentError("give one SELECT: tables are written by materializing assets, not by SQL")


def _words_of(error: duckdb.Error) -> str:
    """What DuckDB says; of a table that does not exist, which there are."""
    unknown = re.search(r"^Catalog Error: Table with name \"?([\w.]+)\"? does not exist", str(error))
    if not unknown:
        return " ".join(str(error).split())
    names = sorted(known_tables())
    near = difflib.get_close_matches(unknown[1], names, n=3, cutoff=0.8)
    return f"there is no table {unknown[1]}; " + (
        f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
    )


def _relations_of(statement: str) -> list[Relation]:
    try:
        return [relation_of(name) for name in _tables_of(statement)]
    except KeyError as error:
        raise PermanentError(f"the query failed: {error.args[0]}") from error


def _tables_of(statement: str) -> list[str]:
    """Tables whose qualified name stands anywhere in a statement; one too many is only offered in vain.

    DuckDB's own list of a statement's tables fails on joins by USING.
    """
    return [name for name in known_tables() if _name_pattern(name).search(statement)]


def _name_pattern(name: str) -> re.Pattern[str]:
    schema, table = (re.escape(part.replace('"', '""')) for part in name.split(".", 1))
    return re.compile(rf'(?<![\w."])"?{schema}"?\s*\.\s*"?{table}(?!\w)', re.IGNORECASE)


def _offer(connection: duckdb.DuckDBPyConnection, source: _Source) -> None:
    schema, table = source.relation.qualified
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}")
    name = f"rows of {source.relation.name}"
    connection.register(name, source)
    declared = source.relation.declared
    casts = {c.name: _CASTS[c.type] for c in declared.columns if c.type in _CASTS} if declared else {}
    columns = ", ".join(
        f"CAST({_quoted(c)} AS {casts[c]}) AS {_quoted(c)}" if c in casts else _quoted(c)
        for c in source.relation.columns
    )
    view = f"{_quoted(schema)}.{_quoted(table)}"
    connection.execute(f"CREATE VIEW {view} AS SELECT {columns} FROM {_quoted(name)}")  # noqa: S608


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
