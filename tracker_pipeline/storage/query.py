"""SQL for people: DuckDB over every table, hot and cold rows as one relation, each row once.

What belongs here: how a query finds its tables. What does not: reads for assets (`spanning`).
"""

import re

import duckdb
import polars as pl

from tracker_pipeline.domain.schemas import TABLES, ColumnType, Table
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage.spanning import read_in_snapshot, snapshot

# DuckDB's widest exact types. A balance beyond 2^127 fails the query rather than being rounded.
_CASTS = {ColumnType.WEI: "HUGEINT", ColumnType.NUMERIC: "DECIMAL(38, 10)"}


def run_query(statement: str) -> duckdb.DuckDBPyRelation:
    """Run one SELECT over our tables and return its result as a relation, not yet fetched.

    All tables of the statement are read in one snapshot of the database.

    Raises:
        PermanentError: the statement is not valid, or names a table that does not exist.
    """
    try:
        connection = _closed_off()
        _refuse_other_than_select(connection, statement)
        wanted = _tables_of(statement)
        with snapshot() as cursor:
            for table in wanted:
                _offer(connection, table, read_in_snapshot(cursor, table, None, None).collect())
        return connection.sql(statement)
    except duckdb.Error as error:
        raise PermanentError(f"the query failed: {' '.join(str(error).split())}") from error


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


def _tables_of(statement: str) -> list[Table]:
    """Tables whose qualified name stands anywhere in a statement; one too many is only read in vain.

    DuckDB's own list of a statement's tables fails on joins by USING.
    """
    return [table for table in TABLES.values() if _name_pattern(table).search(statement)]


def _name_pattern(table: Table) -> re.Pattern[str]:
    return re.compile(rf'(?<![\w."])"?{table.schema}"?\s*\.\s*"?{table.table}(?!\w)', re.IGNORECASE)


def _offer(connection: duckdb.DuckDBPyConnection, table: Table, rows: pl.DataFrame) -> None:
    connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{table.schema}"')
    source = f"rows_of_{table.schema}_{table.table}"
    connection.register(source, rows)
    columns = ", ".join(
        f'CAST("{c.name}" AS {_CASTS[c.type]}) AS "{c.name}"' if c.type in _CASTS else f'"{c.name}"'
        for c in table.columns
    )
    connection.execute(f'CREATE VIEW "{table.schema}"."{table.table}" AS SELECT {columns} FROM {source}')  # noqa: S608
