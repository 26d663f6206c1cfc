"""The schedules: hourly for both chains and the archive (`archiving`), daily for closing a day and maturing labels.

A tick asks for what is missing in the stored data (`backlog`), so that one tick after a stop heals all that the stop
skipped. They run unless someone switches them off in the UI.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Final

import dagster as dg

from tracker_pipeline import keys
from tracker_pipeline.assets.strategies import strategy_configs
from tracker_pipeline.automation import backlog, jobs
from tracker_pipeline.automation.archiving import archive_hourly
from tracker_pipeline.settings import get_config

# Five minutes after the hour every venue has settled the hour's bars (the grace is two minutes) and a node has the
# blocks. A day's bar has a grace of ten minutes, so yesterday is closed at a quarter past.
_HOURLY: Final = "5 * * * *"
# A block of the full hour is final by then, a quarter of an hour later.
_RECHECK: Final = "25 * * * *"
_DAILY_CLOSE: Final = "15 0 * * *"
_DAILY_LABELS: Final = "30 0 * * *"
_DAILY_RETENTION: Final = "20 3 * * *"
_WEEKLY_TRAINING: Final = "0 2 * * 5"
# A day with hot rows is one range at worst; what a tick leaves the next one takes.
_MOST_RANGES: Final = 20
_RUNNING: Final = dg.DefaultScheduleStatus.RUNNING


@dg.schedule(
    job=jobs.market_day,
    cron_schedule=_HOURLY,
    execution_timezone="UTC",
    default_status=_RUNNING,
    description="Refreshes today's bars and all that is made of them, and makes whatever earlier day is not whole.",
)
def market_hourly(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    """Refresh today with the bars closed since the last hour, and make whatever day before is not whole."""
    tick = context.scheduled_execution_time
    return _market_requests(context, {tick.date()}, f"{tick:%Y-%m-%dT%H}")


@dg.schedule(
    job=jobs.market_day,
    cron_schedule=_DAILY_CLOSE,
    execution_timezone="UTC",
    default_status=_RUNNING,
    description="Closes yesterday: its last bars, its daily bar, and all that is made of them.",
)
def market_daily_close(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    """Close yesterday: its last bars, its daily bar, and all that depends on them."""
    tick = context.scheduled_execution_time
    return _market_requests(context, {tick.date() - timedelta(days=1)}, f"close-{tick:%Y-%m-%d}")


def _market_requests(
    context: dg.ScheduleEvaluationContext, always: set[date], run_key: str
) -> list[dg.RunRequest] | dg.SkipReason:
    """The days that a tick always asks for and those that are not whole, in as few runs as they have ranges."""
    tick = context.scheduled_execution_time
    busy = backlog.busy_partitions(context.instance, jobs.market_day.name, keys.OHLC_15M, hourly=False)
    days = {day for day in always if f"{day}" not in busy}
    days |= set(backlog.days_to_make(tick, busy, context.instance))
    requests = [
        backlog.range_request(f"{first}", f"{last}", run_key)
        for first, last in backlog.ranges_of_days(days)[-_MOST_RANGES:]
    ]
    return requests or dg.SkipReason("a run that has not ended makes what is missing")


@dg.schedule(
    job=jobs.onchain_hour,
    cron_schedule=_HOURLY,
    execution_timezone="UTC",
    default_status=_RUNNING,
    description="Balances and scores of every hour without; scores again where their baseline has arrived.",
)
def onchain_hourly(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    """Snapshot and score every hour that is missing, the newest included; again where a baseline has arrived."""
    tick = context.scheduled_execution_time
    busy = backlog.busy_partitions(
        context.instance, jobs.onchain_hour.name, keys.ACCUMULATION_SCORES, hourly=True
    )
    hours = backlog.hours_to_make(tick, busy)
    again = set(backlog.hours_to_score_again(tick, busy)) - set(hours)
    run_key = f"{tick:%Y-%m-%dT%H}"
    requests = [
        *_hour_requests(hours, run_key, None),
        *_hour_requests(again, f"again-{run_key}", [keys.ACCUMULATION_SCORES]),
    ]
    return requests or dg.SkipReason("every hour is stored and scored, or being made")


@dg.schedule(
    job=jobs.onchain_recheck,
    cron_schedule=_RECHECK,
    execution_timezone="UTC",
    default_status=_RUNNING,
    description="Hours whose block is not final are compared with the chain; what it replaced is read again.",
)
def onchain_recheck_hourly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Compare the hours that are not final yet with the chain, and read again what it replaced."""
    return dg.RunRequest(run_key=f"{context.scheduled_execution_time:%Y-%m-%dT%H}")


def _hour_requests(
    hours: Iterable[datetime], run_key: str, assets: list[dg.AssetKey] | None
) -> list[dg.RunRequest]:
    return [
        backlog.range_request(backlog.hour_key(first), backlog.hour_key(last), run_key, assets)
        for first, last in backlog.ranges_of_hours(hours)[-_MOST_RANGES:]
    ]


@dg.schedule(
    job=jobs.label_maturing,
    cron_schedule=_DAILY_LABELS,
    execution_timezone="UTC",
    default_status=_RUNNING,
    description="Judges again the days whose labels may have become final.",
)
def labels_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Judge again the days whose labels may have become final."""
    tick = context.scheduled_execution_time
    horizon = max(timedelta(hours=config.horizon_hours) for config in strategy_configs().values())
    first = max((tick - horizon - timedelta(days=1)).date(), get_config().history_start)
    return backlog.range_request(f"{first}", f"{tick.date() - timedelta(days=1)}", f"labels-{tick:%Y-%m-%d}")


@dg.schedule(
    job=jobs.training_week,
    cron_schedule=_WEEKLY_TRAINING,
    execution_timezone="UTC",
    default_status=_RUNNING,
    description="Training rows of last week, whose labels are final by now, and of weeks that were missed.",
)
def training_weekly(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest]:
    """Make the training rows of last week, whose labels are final four days after its end, and of any week missed."""
    tick = context.scheduled_execution_time
    last = tick.date() - timedelta(days=tick.weekday() + 7)
    weeks = backlog.weeks_to_make(context.instance, last)
    return [
        dg.RunRequest(run_key=f"training-{tick:%Y-%m-%d}-{week}", partition_key=f"{week}") for week in weeks
    ]


@dg.schedule(
    job=jobs.instance_retention,
    cron_schedule=_DAILY_RETENTION,
    execution_timezone="UTC",
    default_status=_RUNNING,
    description="Removes runs, events, ticks and logs of Dagster's own that are older than operations.keep_run_days.",
)
def retention_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Remove old records of Dagster's own."""
    return dg.RunRequest(run_key=f"retention-{context.scheduled_execution_time:%Y-%m-%d}")


ALL: Final = [
    market_hourly,
    onchain_hourly,
    onchain_recheck_hourly,
    market_daily_close,
    labels_daily,
    archive_hourly,
    training_weekly,
    retention_daily,
]
