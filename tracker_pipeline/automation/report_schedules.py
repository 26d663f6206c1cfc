"""When reports are made: morning, midday and evening each day, the weekly one on Sunday evening, by the local clock.

A tick also asks for reports of the days before that a stop has skipped; those are rendered, and sent only while they
are news.

What belongs here: times. What does not: what is in a report.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import dagster as dg
from psycopg import sql

from tracker_pipeline import keys
from tracker_pipeline.automation import jobs
from tracker_pipeline.domain.schemas import REPORTS
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage.database import connect, identifier

_CRONS: Final = {
    "morning": "0 7 * * *",
    "midday": "0 12 * * *",
    "evening": "0 19 * * *",
    "weekly": "0 19 * * 0",
}
_LOOK_BACK: Final = {"weekly": 2}  # periods; of the daily ones three


def periods_due(name: str, tick: datetime) -> list[date]:
    """The period that ends at a tick, and those shortly before it that were skipped since the first report."""
    zone = ZoneInfo(get_config().operations.report_timezone)
    day = tick.astimezone(zone).date()
    step = timedelta(days=7 if name == "weekly" else 1)
    last = day - timedelta(days=day.weekday()) if name == "weekly" else day
    reach = [last - i * step for i in range(1, 1 + _LOOK_BACK.get(name, 3))]
    statement = sql.SQL("SELECT period FROM {}").format(identifier(REPORTS[name]))
    with connect() as connection:
        made = {row[0].astimezone(UTC).date() for row in connection.execute(statement).fetchall()}
    skipped = [day for day in reach if made and min(made) < day and day not in made]
    return [*sorted(skipped), last]


def _schedule(name: str) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"report_{name}",
        job=jobs.weekly_report if name == "weekly" else jobs.daily_reports,
        cron_schedule=_CRONS[name],
        execution_timezone=get_config().operations.report_timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"The {name} report.",
    )
    def report(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        for period in periods_due(name, context.scheduled_execution_time):
            yield dg.RunRequest(
                run_key=f"report-{name}-{period}",
                partition_key=f"{period}",
                asset_selection=[keys.REPORTS[name]],
            )

    return report


ALL: Final = [_schedule(name) for name in REPORTS]
