"""Old rows move from Postgres to the lake: one asset for each policy, partitioned by the day of the data."""

from datetime import date, datetime
from typing import Any, Final

import dagster as dg
from pydantic import Field

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import OWNER, column_schema, further_reading
from tracker_pipeline.domain.schemas import TABLES
from tracker_pipeline.keys import archive_key_of, key_of
from tracker_pipeline.partitions import DAILY
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.resources.failures import RETRIES, classified
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage.archive_policy import Policy, get_policies

# Tables that an asset makes: `keys` names every one. Those that other programs fill are archived all the same.
_MADE = frozenset(key for key in vars(keys).values() if isinstance(key, dg.AssetKey))

_EXAMPLE: Final = "write it as 2026-01-31T00:00:00+00:00"


class ArchiveRunConfig(dg.Config):
    """What counts as old."""

    cut: str | None = Field(
        default=None,
        description="Rows before this ISO time are moved. If not given: the table's retention before now.",
    )


def _archive_asset(table: str, policy: Policy) -> dg.AssetsDefinition:
    declared = TABLES.get(table)
    days = policy.retention.total_seconds() / 86_400

    @dg.asset(
        key=archive_key_of(table),
        description=f"Rows of {table} older than {days:,g} days that cannot change any more, moved from Postgres to"
        " Parquet files exactly once. Queries see hot and cold rows as one table throughout.",
        group_name="archive",
        owners=[OWNER],
        kinds={"parquet", "postgres"},
        tags={"archive/group": policy.group, "archive/mode": policy.mode},
        metadata={
            "dagster/table_name": table,
            **({"dagster/column_schema": column_schema(declared)} if declared else {}),
            **further_reading("archive.md", "tracker archive status"),
        },
        partitions_def=DAILY,
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRIES,
        deps=[key_of(declared)] if declared and key_of(declared) in _MADE else [],
        pool="archive",
    )
    def archive(context: dg.AssetExecutionContext, config: ArchiveRunConfig) -> None:
        """Move the rows of each day of the run that are due; those from before the first partition come with it."""
        from tracker_pipeline.storage.archive import archive_tables
        from tracker_pipeline.storage.sweeping import sweep

        days = list(context.partition_keys)
        first, last = (date.fromisoformat(day) for day in (days[0], days[-1]))
        with classified():
            (report,) = archive_tables(
                [table],
                first=None if first == get_config().history_start else first,
                last=last,
                cut=_cut(config),
                run_id=context.run.run_id,
            )
            for key, told in _described(report, days).items():
                if not report.failures:
                    context.add_asset_metadata(told, partition_key=key)
                elif told["rows moved"]:  # a step that fails drops its own events
                    event = dg.AssetMaterialization(archive_key_of(table), partition=key, metadata=told)
                    context.instance.report_runless_asset_event(event)
            report.raise_failure()
            sweep()

    return archive


def _described(report: Any, partitions: list[str]) -> dict[str, dict[str, Any]]:
    """What became of each partition, for the UI."""
    from tracker_pipeline.storage.database import connect
    from tracker_pipeline.storage.manifest import cold_rows

    first, last = (date.fromisoformat(key) for key in (partitions[0], partitions[-1]))
    with connect() as connection:
        cold = cold_rows(connection, report.table, first, last)
    moved = {f"{day.day}": day for day in report.days}
    nothing = "another run is at this table" if report.outcome == "skipped" else "nothing was due"
    earlier = [day for day in report.days if day.day < first and day.rows_moved]
    described = {}
    for key in partitions:
        day = moved.get(key)
        what = (day.reason or "moved") if day else nothing
        metadata: dict[str, Any] = {
            "dagster/partition_row_count": cold.get(date.fromisoformat(key), 0),
            "rows moved": day.rows_moved if day else 0,
            "what happened": what,
            "rows before this move": f"{report.cut:%Y-%m-%d %H:%M} UTC",
        }
        if day and day.bytes:
            metadata |= {"bytes of the file": day.bytes, "content hash": day.content_hash}
        if day and day.compression:
            metadata["times smaller than in Postgres"] = day.compression
        if earlier and key == partitions[0]:
            rows = sum(day.rows_moved for day in earlier)
            metadata["before the first partition"] = f"{rows:,} rows of {len(earlier)} days moved as well"
        if left := str(report.left_behind):
            metadata["stays in Postgres"] = left
        described[key] = metadata
    return described


def _cut(config: ArchiveRunConfig) -> datetime | None:
    if config.cut is None:
        return None
    try:
        cut = datetime.fromisoformat(config.cut)
    except ValueError:
        raise PermanentError(f"the cut {config.cut} is no time: {_EXAMPLE}") from None
    if cut.tzinfo is None:
        raise PermanentError(f"the cut {config.cut} has no time zone: {_EXAMPLE}")
    return cut


archives = [_archive_asset(table, policy) for table, policy in get_policies().archived.items()]
