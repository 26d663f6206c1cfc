"""Old rows move from Postgres to the lake: one asset for each archived table, partitioned by the day of the data."""

from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from tracker_pipeline.assets.declaration import OWNER, column_schema, day_of
from tracker_pipeline.domain.schemas import TABLES, Table
from tracker_pipeline.keys import archive_key_of, key_of
from tracker_pipeline.partitions import DAILY
from tracker_pipeline.resources.failures import RETRIES, classified
from tracker_pipeline.settings import ConfigurationError, get_config
from tracker_pipeline.storage.archive import move_day
from tracker_pipeline.storage.sweeping import sweep


class ArchiveRunConfig(dg.Config):
    """What counts as old."""

    cut: str | None = Field(
        default=None,
        description="Days that end by this ISO time are moved. If not given: the table's hot window before now.",
    )


def _archive_asset(table: Table, hot_days: int) -> dg.AssetsDefinition:
    @dg.asset(
        key=archive_key_of(table),
        description=f"Closed days of {table.name} that are older than {hot_days} days move to Parquet, exactly"
        " once; readers see hot and cold rows as one table throughout.",
        group_name="archive",
        owners=[OWNER],
        kinds={"parquet", "postgres"},
        metadata={"dagster/column_schema": column_schema(table), "dagster/table_name": table.name},
        partitions_def=DAILY,
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRIES,
        deps=[key_of(table)],
        pool="archive",
    )
    def archive(context: dg.AssetExecutionContext, config: ArchiveRunConfig) -> None:
        """Move each day of the run that lies wholly before the cut."""
        cut = _cut(config, hot_days)
        for key in context.partition_keys:
            with classified():
                moved = move_day(table, day_of(key).date(), cut=cut, run_id=context.run.run_id)
            context.add_asset_metadata(
                {
                    "dagster/partition_row_count": moved.rows_cold,
                    "moved": moved.rows_moved,
                    "cut": cut.isoformat(),
                    "note": moved.reason,
                },
                partition_key=key,
            )

        with classified():
            sweep()

    return archive


def _cut(config: ArchiveRunConfig, hot_days: int) -> datetime:
    if config.cut is None:
        return datetime.now(UTC) - timedelta(days=hot_days)
    cut = datetime.fromisoformat(config.cut)
    if cut.tzinfo is None:
        raise dg.Failure(f"the cut {config.cut} has no time zone: write it as 2026-01-31T00:00:00+00:00")
    return cut


def _archived_tables() -> dict[Table, int]:
    hot_days = get_config().archive.hot_days
    unknown = sorted(set(hot_days) - set(TABLES))
    if unknown:
        raise ConfigurationError(f"archive.hot_days names tables that do not exist: {', '.join(unknown)}")
    return {TABLES[name]: days for name, days in hot_days.items()}


archives = [_archive_asset(table, days) for table, days in _archived_tables().items()]
