"""Dagster's own records, kept small."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl

from tracker_pipeline.assets.declaration import table_asset
from tracker_pipeline.domain import schemas
from tracker_pipeline.operations.retention import prune
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.settings import get_config, get_settings
from tracker_pipeline.storage.database import connect


@table_asset(
    schemas.INSTANCE_RETENTION,
    kinds={"dagster"},
    command="tracker doctor",
    description="Runs that ended long ago go, with their events and what they printed; the newest materialization of"
    " every asset and partition stays, so the UI shows what it showed. What went and what is left is a row a day.",
)
def instance_retention(context: dg.AssetExecutionContext) -> pl.DataFrame:
    """Remove what is older than `operations.keep_run_days`."""
    now = datetime.now(UTC)
    before = now - timedelta(days=get_config().operations.keep_run_days)
    logs = get_settings().state_folder / "dagster" / "compute_logs"
    with classified(), connect() as connection:
        removed = prune(connection, before=before, now=now, logs=logs)
    context.add_output_metadata(
        {
            "runs deleted": removed.runs_deleted,
            "events deleted": removed.events_deleted,
            "ticks deleted": removed.ticks_deleted,
            "events kept": removed.events,
            "database MiB": round(removed.database_bytes / 2**20, 1),
            "logs MiB": round(removed.log_bytes / 2**20, 1),
        }
    )
    return pl.DataFrame([{"day": now.date(), **asdict(removed), "run_id": context.run.run_id}])
