"""Whether what is stored is what the schema declares, of every table.

What belongs here: columns, types, keys and NULLs, generated from `domain.schemas`. What does not: whether values
make sense, which a table's own checks judge.
"""

from datetime import datetime
from typing import Final

import polars as pl

from tracker_pipeline.checks.row_checks import RowChecks, Stored, Verdict, verdict_on
from tracker_pipeline.domain.schemas import Table
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.lake_store import lake_store

_COLUMNS_OF_TABLE: Final = (
    "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
    " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
)


def as_declared(table: Table) -> RowChecks:
    """The check of a table's schema."""

    def judge(stored: Stored) -> dict[str, Verdict]:
        problems = {**_wrong_columns(table, stored.start, stored.end), **wrong_rows(table, stored.rows)}
        return {"stored_as_declared": verdict_on(problems, rows=stored.rows.height)}

    return RowChecks(
        {
            "stored_as_declared": f"Columns and types of {table.name} are the declared ones; the key"
            f" {', '.join(table.key)} stands once over hot and cold rows; no value is unknown that must be known."
        },
        judge,
    )


def wrong_rows(table: Table, rows: pl.DataFrame) -> dict[str, int]:
    """What is wrong with rows, and how often; empty where nothing is."""
    found = {"rows that share their key with another": int(rows.select(table.key).is_duplicated().sum())}
    for column in table.columns:
        if not column.nullable:
            found[f"NULL in {column.name}"] = rows.get_column(column.name).null_count()
    return {what: count for what, count in found.items() if count}


def _wrong_columns(table: Table, start: datetime | None, end: datetime | None) -> dict[str, int]:
    if table.store == "postgres":
        declared = {(column.name, column.type.postgres) for column in table.columns}
        with connect() as connection:
            actual = set(connection.execute(_COLUMNS_OF_TABLE, [table.name]).fetchall())
        differing = declared ^ actual
        return {f"column {name} is not as declared": 1 for name, _ in sorted(differing)}
    return _wrong_file_columns(table, start, end)


def _wrong_file_columns(table: Table, start: datetime | None, end: datetime | None) -> dict[str, int]:
    batches = scan("archive.batches").filter(pl.col("table_name") == table.name, pl.col("state") == "live")
    if start is not None and end is not None:
        batches = batches.filter(pl.col("data_day").is_between(start.date(), end.date(), closed="left"))
    store = lake_store()
    wrong = [
        path
        for path in batches.collect().get_column("path")
        if pl.read_parquet_schema(store.open(path)) != dict(table.polars_schema)
    ]
    return {"files with other columns": len(wrong)} if wrong else {}
