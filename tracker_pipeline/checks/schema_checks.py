"""One blocking check for each asset: what is stored for the run's partitions is what the schema declares.

What belongs here: columns, types, keys and NULLs, generated from `domain.schemas`. What does not: whether values
make sense, which is for checks of their own.
"""

from datetime import UTC, datetime
from typing import Final

import dagster as dg
import polars as pl

from tracker_pipeline.domain.schemas import Table
from tracker_pipeline.keys import key_of
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.lake_store import lake_store

CHECK_NAME: Final = "stored_as_declared"

_COLUMNS_OF_TABLE: Final = (
    "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
    " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
)


def schema_check(table: Table) -> dg.AssetChecksDefinition:
    """The blocking check of a table's asset."""

    @dg.asset_check(
        asset=key_of(table),
        name=CHECK_NAME,
        blocking=True,
        description=f"Columns and types of {table.name} are the declared ones; the key {', '.join(table.key)} stands"
        " once over hot and cold rows; no value is unknown that must be known.",
    )
    def stored_as_declared(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with classified():
            start, end = check_window(context, table)
            rows = scan(table.name, start, end).collect()
            problems = {**_wrong_columns(table, start, end), **wrong_rows(table, rows)}
        return dg.AssetCheckResult(
            passed=not problems,
            metadata={"rows": rows.height, "problems": problems},
            description="; ".join(f"{what}: {count}" for what, count in problems.items()) or None,
        )

    return stored_as_declared


def check_window(
    context: dg.AssetCheckExecutionContext, table: Table | None = None
) -> tuple[datetime, datetime] | tuple[None, None]:
    """[start, end) of the run's partitions; (None, None) reads a table without time whole."""
    partitioned = context.has_partition_key or context.has_partition_key_range
    if (table is not None and table.time_column is None) or not partitioned:
        return None, None
    window = context.partition_time_window
    start, end = (datetime.fromtimestamp(edge.timestamp(), UTC) for edge in (window.start, window.end))
    return start, end


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
