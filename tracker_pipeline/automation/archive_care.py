"""When the archive looks after itself: upkeep and audit every night, a restore for practice every week.

What belongs here: times, and the upkeep, which fills no asset. What does not: the assets (`assets.archive_care`).
"""

from typing import Any, Final

import dagster as dg

from tracker_pipeline import keys
from tracker_pipeline.resources.failures import RETRIES, classified

_RUNNING: Final = dg.DefaultScheduleStatus.RUNNING


@dg.op(retry_policy=RETRIES, pool="archive")
def tidy_archive(context: dg.OpExecutionContext) -> None:
    """Merge the parts that late rows made of a day, let go what cold retention lets go, remove unneeded files.

    A day that cannot be merged fails the run once all else is done.
    """
    from tracker_pipeline.resources.errors import PermanentError
    from tracker_pipeline.storage.archive_policy import get_policies
    from tracker_pipeline.storage.compaction import compact_days
    from tracker_pipeline.storage.sweeping import expire, sweep

    with classified():
        merged = [
            one for table in get_policies().archived for one in compact_days(table, run_id=context.run_id)
        ]
        let_go = expire()
        swept = sweep()
    context.add_output_metadata(
        {
            "days_compacted": sum(one.outcome == "compacted" for one in merged),
            "parts_merged": sum(one.parts for one in merged if one.outcome == "compacted"),
            "rows_let_go": sum(one.rows for one in let_go),
            "files_removed": len(swept.replaced) + len(swept.leftover),
            "bytes_removed": swept.bytes,
        }
    )
    failed = [one for one in merged if one.outcome == "failed"]
    if failed:
        with classified():
            raise PermanentError(f"{len(failed)} days could not be compacted, the first is {failed[0].note}")


@dg.job(description="Small parts become one, what may go goes; by default no row does.")
def archive_upkeep() -> None:
    """Keep the lake tidy."""
    tidy_archive()


archive_audit: Final = dg.define_asset_job(
    "archive_audit",
    selection=dg.AssetSelection.assets(keys.ARCHIVE_AUDIT),
    description="Every file of the lake is compared with the manifest.",
)
archive_restore_drill: Final = dg.define_asset_job(
    "archive_restore_drill",
    selection=dg.AssetSelection.assets(keys.ARCHIVE_RESTORE_DRILL),
    description="A random archived day is restored for practice.",
)

JOBS: Final[list[Any]] = [archive_upkeep, archive_audit, archive_restore_drill]
# Between the daily work of the chains and the hourly moves. The audit reads every file, so it comes once the upkeep
# has made them few.
SCHEDULES: Final = [
    dg.ScheduleDefinition(
        name=f"{job.name}_schedule",
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=_RUNNING,
        description=job.description,
    )
    for job, cron in (
        (archive_upkeep, "10 4 * * *"),
        (archive_audit, "40 4 * * *"),
        (archive_restore_drill, "25 5 * * 6"),
    )
]
