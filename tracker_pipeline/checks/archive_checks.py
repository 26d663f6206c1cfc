"""The archive proves its parts: each file is there, unaltered, and holds what the manifest says."""

import dagster as dg
import polars as pl
import pyarrow.parquet as pq

from tracker_pipeline.checks.schema_checks import check_window
from tracker_pipeline.keys import archive_key_of
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.lake_store import lake_store, sha256_of


def archive_check(table: str) -> dg.AssetChecksDefinition:
    """The blocking check of a table's archive."""

    @dg.asset_check(
        asset=archive_key_of(table),
        name="parts_are_intact",
        blocking=True,
        description=f"Every part of {table} that the manifest lists for these days exists,"
        " has its SHA-256 and its number of rows.",
    )
    def parts_are_intact(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with classified():
            start, end = check_window(context)
            live = scan("archive.batches").filter(pl.col("table_name") == table, pl.col("state") == "live")
            if start is not None and end is not None:
                live = live.filter(pl.col("data_day").is_between(start.date(), end.date(), closed="left"))
            parts = live.collect()
            broken = [part["path"] for part in parts.iter_rows(named=True) if not _is_intact(part)]
        return dg.AssetCheckResult(
            passed=not broken,
            metadata={
                "parts": parts.height,
                "rows": int(parts.get_column("rows").sum()),
                "broken": broken[:10],
            },
            description=f"{len(broken)} parts are missing or altered" if broken else None,
        )

    return parts_are_intact


def _is_intact(part: dict[str, object]) -> bool:
    store, path = lake_store(), str(part["path"])
    if store.size(path) is None or sha256_of(store, path) != part["sha256"]:
        return False
    with store.open(path) as source:
        rows: int = pq.ParquetFile(source).metadata.num_rows
    return rows == part["rows"]
