"""The hourly schedule of the archive: every day with rows that are due, however long ago, as few runs as can be.

What belongs here: from due days to run requests. What does not: what is due (`storage.eligibility`).
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Final

import dagster as dg
import psycopg

from tracker_pipeline.automation import backlog, jobs
from tracker_pipeline.domain.staleness import merged
from tracker_pipeline.keys import archive_key_of
from tracker_pipeline.partitions import DAILY
from tracker_pipeline.resources.errors import PipelineError
from tracker_pipeline.storage.archive_policy import get_policies
from tracker_pipeline.storage.database import connect

# Away from the runs of both chains at five past.
_CRON: Final = "45 * * * *"
# A day with hot rows is one range at worst; what a tick leaves the next one takes.
_MOST_RANGES: Final = 20

Range = tuple[date, date]


@dg.schedule(
    job=jobs.archiving,
    cron_schedule=_CRON,
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Moves every row that has left its table's hot window to Parquet files.",
)
def archive_hourly(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    """Move every row that has left its table's hot window; tables with the same days share a run."""
    tick = context.scheduled_execution_time
    tables_by_range: dict[Range, list[str]] = {}
    for table, ranges in due_ranges(tick).items():
        for one in ranges[:_MOST_RANGES]:
            tables_by_range.setdefault(one, []).append(table)
    requests = [
        backlog.range_request(
            f"{first}", f"{last}", f"archive-{tick:%Y-%m-%dT%H}", [archive_key_of(table) for table in tables]
        )
        for (first, last), tables in sorted(tables_by_range.items())
    ]
    return requests or dg.SkipReason("no row has left its hot window")


def due_ranges(now: datetime) -> Mapping[str, list[Range]]:
    """Ranges of days with due rows, oldest first, by table.

    Rows older than the first partition come with that one. A table that cannot be read gets yesterday, so that its
    run says what is wrong with it.
    """
    from tracker_pipeline.storage.archive import hot_days

    policies = get_policies()
    with connect() as connection:
        policies.refuse_unclassified(connection)
    first = date.fromisoformat(DAILY.get_first_partition_key() or f"{now.date()}")
    due = {}
    for table, policy in policies.archived.items():
        try:
            days = {max(day, first) for day in hot_days(table, now - policy.retention)}
        except (PipelineError, psycopg.Error):
            days = {now.date() - timedelta(days=1)}
        if days:
            due[table] = merged([(day, day) for day in days])
    return due
