"""The schedules: hourly for both chains, daily for closing yesterday, maturing labels and archiving.

Each is a request for partitions by the tick's time, so a tick that comes late asks for the same partitions. They
run unless someone switches them off in the UI.
"""

from datetime import date, timedelta
from typing import Final

import dagster as dg

from tracker_pipeline.assets.strategies import strategy_configs
from tracker_pipeline.automation import jobs
from tracker_pipeline.domain.schemas import TABLES, Table
from tracker_pipeline.domain.staleness import merged
from tracker_pipeline.keys import archive_key_of
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage.archive import hot_days

# Five minutes after the hour every venue has settled the hour's bars (the grace is two minutes) and a node has the
# blocks. A day's bar has a grace of ten minutes, so yesterday is closed at a quarter past.
_HOURLY: Final = "5 * * * *"
_DAILY_CLOSE: Final = "15 0 * * *"
_DAILY_LABELS: Final = "30 0 * * *"
_DAILY_ARCHIVE: Final = "45 0 * * *"
_WEEKLY_TRAINING: Final = "0 2 * * 5"
# A day with hot rows is one range at worst; what a tick leaves the next one takes.
_MOST_RANGES: Final = 20
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
    horizon = max(timedelta(hours=config.horizon_hours) for config in strategy_configs().values())
    first = max((tick - horizon - timedelta(days=1)).date(), get_config().history_start)
    return _range_request(first, (tick - timedelta(days=1)).date(), f"labels-{tick:%Y-%m-%d}")


@dg.schedule(
    job=jobs.archiving, cron_schedule=_DAILY_ARCHIVE, execution_timezone="UTC", default_status=_RUNNING
)
def archive_daily(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    """Move every day that has left its table's hot window, however long ago, in ranges of bounded number."""
    tick = context.scheduled_execution_time
    requests = [
        _range_request(
            first, last, f"archive-{table}-{tick:%Y-%m-%d}-{first}", [archive_key_of(TABLES[table])]
        )
        for table, days in get_config().archive.hot_days.items()
        for first, last in _hot_ranges(TABLES[table], before=(tick - timedelta(days=days)).date())
    ]
    return requests or dg.SkipReason("no day has left its hot window")


def _hot_ranges(table: Table, *, before: date) -> list[tuple[date, date]]:
    """The oldest ranges of days with hot rows that end before a day."""
    days = [day for day in hot_days(table) if day < before]
    return merged([(day, day) for day in days])[:_MOST_RANGES]


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


def _range_request(
    first: date, last: date, run_key: str, assets: list[dg.AssetKey] | None = None
) -> dg.RunRequest:
    """One run over the daily partitions from `first` to `last`, both included."""
    return dg.RunRequest(
        run_key=run_key,
        asset_selection=assets,
        tags={
            "dagster/asset_partition_range_start": f"{first}",
            "dagster/asset_partition_range_end": f"{last}",
        },
    )


ALL: Final = [market_hourly, onchain_hourly, market_daily_close, labels_daily, archive_daily, training_weekly]
