"""What a tick asks for: whatever is missing by now, however many ticks were missed before it, in bounded pieces.

A schedule that asks for its own hour loses every hour of a stopped daemon. These functions look at the stored data
instead, so that one later tick heals them all, newest first, and a tick of a healthy installation asks for one
partition.

What belongs here: from what is missing to ranges of partitions. What does not: the questions to the database
(`storage.completeness`), cron times (`schedules`).
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import dagster as dg

from tracker_pipeline import keys
from tracker_pipeline.domain.staleness import merged
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage import completeness
from tracker_pipeline.storage.database import connect

RANGE_START: Final = "dagster/asset_partition_range_start"
RANGE_END: Final = "dagster/asset_partition_range_end"

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_SETTLES_AFTER: Final = timedelta(minutes=3)  # a few blocks, and clocks that differ
# A score's baseline may lie an hour beside the ideal one (the tolerance of the scores themselves).
_TOLERANCE: Final = timedelta(hours=1)
# A day's bar has a grace of 10 minutes; before a quarter past midnight yesterday cannot be complete.
_DAY_CLOSES_AFTER: Final = timedelta(minutes=15)
# Made one after the other from the 15m bars of a day; one that is older than the one before it was left behind by a
# run that broke off.
_CHAIN: Final = (
    keys.REGIMES,
    keys.ML_FEATURES_15M,
    keys.STRATEGY_SETUPS,
    keys.STRATEGY_DCA_LABELS,
    keys.STRATEGY_SWING_LABELS,
    keys.STRATEGY_CHANNEL_LABELS,
)
_UNFINISHED: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def newest_hour(tick: datetime) -> datetime:
    """The newest full hour whose block is settled at `tick`, which is what snapshots are of."""
    settled = tick.astimezone(UTC) - _SETTLES_AFTER
    return settled.replace(minute=0, second=0, microsecond=0)


def hours_to_make(tick: datetime, busy: set[str]) -> list[datetime]:
    """Hours up to `tick` that are not wholly stored, the newest ones where there are too many; in order.

    Args:
        tick: moment of the tick, aware.
        busy: partition keys that a run which has not ended will make.
    """
    config = get_config()
    newest = newest_hour(tick)
    with connect() as connection:
        first = completeness.first_hour(connection, config.chain.network)
        # Before anything is stored there is nothing to catch up with: history is a backfill's decision.
        start = max(first or newest, newest - config.automation.catch_up, config.history_start_time)
        missing = completeness.missing_hours(
            connection, config.chain.network, min(start, newest), newest, config.chain.lookback_hours
        )
    wanted = [hour for hour in missing if hour_key(hour) not in busy]
    return wanted[-config.automation.most_hours :]


def hours_to_score_again(tick: datetime, busy: set[str]) -> list[datetime]:
    """Hours whose scores lacked a baseline that has arrived since; at most as many as a tick may ask for."""
    config = get_config()
    last = newest_hour(tick)
    with connect() as connection:
        hours = completeness.mendable_hours(
            connection, config.chain.network, last - config.automation.catch_up, last, _TOLERANCE
        )
    return [hour for hour in hours if hour_key(hour) not in busy][-config.automation.most_hours :]


def days_to_make(tick: datetime, busy: set[str], instance: dg.DagsterInstance) -> list[date]:
    """Days over before `tick` that are not wholly stored from bars to labels; in order, the newest where too many."""
    config = get_config()
    last = (tick.astimezone(UTC) - _DAY_CLOSES_AFTER).date() - _DAY
    start = max(last - config.automation.catch_up + _DAY, config.history_start)
    with connect() as connection:
        venue = config.market.venue
        days = {
            *completeness.incomplete_days(connection, venue, config.market.market_type, start, last),
            *completeness.days_without_features(connection, venue, start, last),
        }
    days |= unfinished_days(instance, start, last)
    wanted = sorted(day for day in days if f"{day}" not in busy)
    return wanted[-config.automation.most_days :]


def unfinished_days(instance: dg.DagsterInstance, start: date, last: date) -> set[date]:
    """Days of [start, last] whose bars were materialized after something that is made of them.

    Setups and labels can rightly be none on a day, so that rows do not tell whether they were looked for; the order
    of the materializations does.
    """
    days = {f"{start + i * _DAY}": start + i * _DAY for i in range((last - start).days + 1)}
    if not days:
        return set()
    bars = _newest_by_partition(instance, keys.OHLC_15M, set(days))
    behind: set[date] = set()
    for key in _CHAIN:
        made = _newest_by_partition(instance, key, set(bars))
        behind |= {days[partition] for partition, number in bars.items() if made.get(partition, 0) < number}
    return behind


def _newest_by_partition(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: set[str]
) -> dict[str, int]:
    newest = instance.event_log_storage.get_latest_storage_id_by_partition(
        key, dg.DagsterEventType.ASSET_MATERIALIZATION, partitions
    )
    return dict(newest)


def weeks_to_make(instance: dg.DagsterInstance, last: date) -> list[date]:
    """The week that begins on `last`, and those within reach before it that have no training rows yet."""
    start = max(last - get_config().automation.catch_up, get_config().history_start)
    weeks = [last - i * 7 * _DAY for i in range((last - start).days // 7 + 1)]
    bars = _newest_by_partition(instance, keys.OHLC_15M, {f"{week}" for week in weeks})
    made = _newest_by_partition(instance, keys.TRAINING_SET, {f"{week}" for week in weeks})
    return sorted({last, *(week for week in weeks if f"{week}" in bars and f"{week}" not in made)})


def busy_partitions(
    instance: dg.DagsterInstance, job_name: str, makes: dg.AssetKey, *, hourly: bool
) -> set[str]:
    """Partition keys of an asset that runs of a job which have not ended will make."""
    busy: set[str] = set()
    for run in instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=_UNFINISHED), limit=50):
        first = run.tags.get(RANGE_START) or run.tags.get("dagster/partition")
        last = run.tags.get(RANGE_END) or first
        if first and last and (not run.asset_selection or makes in run.asset_selection):
            busy |= _keys_between(first, last, hourly=hourly)
    return busy


def _keys_between(first: str, last: str, *, hourly: bool) -> set[str]:
    form, step = ("%Y-%m-%d-%H:%M", _HOUR) if hourly else ("%Y-%m-%d", _DAY)
    moment, end = datetime.strptime(first, form), datetime.strptime(last, form)  # noqa: DTZ007  # only compared
    found = set()
    while moment <= end:
        found.add(moment.strftime(form))
        moment += step
    return found


def ranges_of_hours(hours: Iterable[datetime]) -> list[tuple[datetime, datetime]]:
    """Hours as ranges, both ends included, in order."""
    ranges: list[tuple[datetime, datetime]] = []
    for hour in sorted(hours):
        if ranges and hour - ranges[-1][1] <= _HOUR:
            ranges[-1] = (ranges[-1][0], hour)
        else:
            ranges.append((hour, hour))
    return ranges


def ranges_of_days(days: Iterable[date]) -> list[tuple[date, date]]:
    """Days as ranges, both ends included, in order."""
    return merged([(day, day) for day in days])


def hour_key(hour: datetime) -> str:
    """The partition key of an hour."""
    return f"{hour:%Y-%m-%d-%H}:00"


def range_request(
    first: str, last: str, run_key: str, assets: Sequence[dg.AssetKey] | None = None
) -> dg.RunRequest:
    """One run over the partitions from `first` to `last`, both included.

    One partition alone is asked for by its key: for each check of a run over a range Dagster lists every partition of
    the asset, which takes 0.1 s for three years of hours.
    """
    alone = first == last
    return dg.RunRequest(
        run_key=f"{run_key}-{first}-{last}",
        partition_key=first if alone else None,
        asset_selection=list(assets) if assets else None,
        tags={} if alone else {RANGE_START: first, RANGE_END: last},
    )
