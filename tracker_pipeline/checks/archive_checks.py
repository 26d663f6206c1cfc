"""The archive proves its parts: each file is there, unaltered, and holds what the manifest says."""

from typing import Any

import dagster as dg
import polars as pl
import pyarrow.parquet as pq

from tracker_pipeline import keys
from tracker_pipeline.checks.row_checks import check_window
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


@dg.asset_check(
    asset=keys.ARCHIVE_AUDIT,
    name="no_row_is_lost",
    blocking=True,
    description="The audit found every live file there and unaltered, and no key twice.",
)
def no_row_is_lost(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Judge the audit that has just been made."""
    figures = _latest_figures(context, keys.ARCHIVE_AUDIT)
    losses = figures["losses"]
    return dg.AssetCheckResult(
        passed=losses == 0,
        metadata={"losses": losses, "problems": figures["problems"]},
        description=f"{losses} files are missing, altered or share keys: see tracker archive audit"
        if losses
        else None,
    )


@dg.asset_check(
    asset=keys.ARCHIVE_RESTORE_DRILL,
    name="every_row_came_back",
    blocking=True,
    description="The drill read back as many rows as were archived, with the hashes they were archived with.",
)
def every_row_came_back(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Judge the drill that has just been made; one whose hashes differ does not get here."""
    figures = _latest_figures(context, keys.ARCHIVE_RESTORE_DRILL)
    return dg.AssetCheckResult(
        passed=figures["rows"] == figures["rows_archived"],
        metadata={"rows": figures["rows"], "rows_archived": figures["rows_archived"]},
    )


def _latest_figures(context: dg.AssetCheckExecutionContext, key: dg.AssetKey) -> dict[str, Any]:
    event = context.instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        raise dg.Failure(f"{key.to_user_string()} has not been materialized yet")
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}
