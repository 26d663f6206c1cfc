"""Work on the database that fills no asset: the partitions of the coming days, before their rows come."""

from datetime import UTC, datetime
from typing import Final

import dagster as dg

from tracker_pipeline.resources.failures import RETRIES, classified
from tracker_pipeline.storage.hot_partitions import create_partitions_ahead

# Far from midnight, when a new day's rows begin to come, and from the daily moves to the archive.
_DAILY: Final = "20 12 * * *"


@dg.op(retry_policy=RETRIES)
def create_hot_partitions(context: dg.OpExecutionContext) -> None:
    """Make the partitions of the hot tables for the coming days, where they are not there yet."""
    with classified():
        made = create_partitions_ahead(datetime.now(UTC))
    for table, count in made.items():
        context.log.info(f"{table}: {count} partitions made")
    context.add_output_metadata(made)


@dg.job(description="The partitions of the hot tables for the coming days; a writer makes what is missing.")
def hot_partitions() -> None:
    """Make partitions ahead."""
    create_hot_partitions()


hot_partitions_daily: Final = dg.ScheduleDefinition(
    name="hot_partitions_daily",
    job=hot_partitions,
    cron_schedule=_DAILY,
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Make the partitions of the coming days.",
)

JOBS: Final = [hot_partitions]
SCHEDULES: Final = [hot_partitions_daily]
