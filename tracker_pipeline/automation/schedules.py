"""The schedules: hourly for both chains, daily for closing yesterday, maturing labels and archiving.

Each is a request for partitions by the tick's time, so a tick that comes late asks for the same partitions. They
run unless someone switches them off in the UI.
"""

from datetime import datetime, timedelta
from typing import Final

import dagster as dg

from tracker_pipeline.automation import jobs
from tracker_pipeline.settings import get_config

# Five minutes after the hour every venue has settled the hour's bars (the grace is two minutes) and a node has the
# blocks. A day's bar has a grace of ten minutes, so yesterday is closed at a quarter past.
_HOURLY: Final = "5 * * * *"
_DAILY_CLOSE: Final = "15 0 * * *"
_DAILY_LABELS: Final = "30 0 * * *"
_DAILY_ARCHIVE: Final = "45 0 * * *"
_WEEKLY_TRAINING: Final = "0 2 * * 5"
# The longest horizon is 72 h; a day's last signal is final on the fourth day after it.
_LABEL_DAYS: Final = 4
_RUNNING: Final = dg.DefaultScheduleStatus.RUNNING


@dg.schedule(job=jobs.market_day, cron_schedule=_HOURLY, execution_timezone="UTC", default_status=_RUNNING)
def market_hourly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Refresh today's partition of the market chain with the bars closed since the last hour."""
    tick = context.scheduled_execution_time
    return dg.RunRequest(run_key=f"{tick:%Y-%m-%dT%H}", partition_key=f"{tick:%Y-%m-%d}")


@dg.schedule(job=jobs.onchain_hour, cron_schedule=_HOURLY, execution_timezone="UTC", default_status=_RUNNING)
def onchain_hourly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Snapshot and score the hour just closed."""
    hour = context.scheduled_execution_time - timedelta(hours=1)
    return dg.RunRequest(run_key=f"{hour:%Y-%m-%dT%H}", partition_key=f"{hour:%Y-%m-%d-%H}:00")


@dg.schedule(
    job=jobs.market_day, cron_schedule=_DAILY_CLOSE, execution_timezone="UTC", default_status=_RUNNING
)
def market_daily_close(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Close yesterday: its last bars, its daily bar, and all that depends on them."""
    yesterday = context.scheduled_execution_time - timedelta(days=1)
    return dg.RunRequest(run_key=f"close-{yesterday:%Y-%m-%d}", partition_key=f"{yesterday:%Y-%m-%d}")


@dg.schedule(
    job=jobs.label_maturing, cron_schedule=_DAILY_LABELS, execution_timezone="UTC", default_status=_RUNNING
)
def labels_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Judge again the days whose labels may have become final."""
    tick = context.scheduled_execution_time
    return _range_request(
        tick - timedelta(days=_LABEL_DAYS), tick - timedelta(days=1), f"labels-{tick:%Y-%m-%d}"
    )


@dg.schedule(
    job=jobs.archiving, cron_schedule=_DAILY_ARCHIVE, execution_timezone="UTC", default_status=_RUNNING
)
def archive_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Move the days that left the shortest hot window during the last week; later days are refused by the cut."""
    hot_days = get_config().archive.hot_days
    if not hot_days:
        return dg.SkipReason("no table has a hot window")
    tick = context.scheduled_execution_time
    newest = tick - timedelta(days=min(hot_days.values()) + 1)
    return _range_request(newest - timedelta(days=6), newest, f"archive-{tick:%Y-%m-%d}")


@dg.schedule(
    job=jobs.training_week,
    cron_schedule=_WEEKLY_TRAINING,
    execution_timezone="UTC",
    default_status=_RUNNING,
)
def training_weekly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Make the training rows of last week once its labels are final: four days after its end."""
    tick = context.scheduled_execution_time
    monday = tick - timedelta(days=tick.weekday() + 7)
    return dg.RunRequest(run_key=f"training-{monday:%Y-%m-%d}", partition_key=f"{monday:%Y-%m-%d}")


def _range_request(first: datetime, last: datetime, run_key: str) -> dg.RunRequest:
    """One run over the daily partitions from `first` to `last`, both included, none before history starts."""
    first = max(first, get_config().history_start_time)
    last = max(last, first)
    return dg.RunRequest(
        run_key=run_key,
        tags={
            "dagster/asset_partition_range_start": f"{first:%Y-%m-%d}",
            "dagster/asset_partition_range_end": f"{last:%Y-%m-%d}",
        },
    )


ALL: Final = [market_hourly, onchain_hourly, market_daily_close, labels_daily, archive_daily, training_weekly]
