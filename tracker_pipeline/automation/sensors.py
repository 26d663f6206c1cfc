"""The sensors: what became stale or final is materialized again, exactly those days.

Each tick is cheap (one indexed read), bounded, and asks for runs by keys made of what it saw, so that a tick that is
evaluated twice asks once.

What belongs here: from a record in the database to run requests. What does not: how far a change reaches
(`domain.staleness`).
"""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.labels import TABLES as LABEL_TABLES
from tracker_pipeline.assets.strategies import strategy_configs
from tracker_pipeline.automation import jobs
from tracker_pipeline.automation.asked import NOT_ENDED, Cursor, ask
from tracker_pipeline.automation.backlog import range_request
from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.staleness import Change, Product, merged, stale
from tracker_pipeline.keys import key_of
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.gaps import next_due
from tracker_pipeline.storage.invalidations import Invalidation, invalidations_after

_RUNNING: Final = dg.DefaultSensorStatus.RUNNING
_EVENTS_AT_ONCE: Final = 1000
_INSTANT: Final = timedelta(microseconds=1)
_NO_CHANGE: Final = "no bar was corrected or came late"
# What is made of bars, in one run so that each is made of the new version of the one before.
_MADE_OF_BARS: Final[dict[Product, tuple[dg.AssetKey, ...]]] = {
    "regimes": (keys.REGIMES,),
    "features": (keys.ML_FEATURES_15M,),
    "setups": (keys.STRATEGY_SETUPS,),
    "labels": jobs.LABEL_ASSETS,
}


@dg.sensor(
    job=jobs.market_day,
    minimum_interval_seconds=60,
    default_status=_RUNNING,
    description="Bars that were corrected or came late make features, regimes, setups and labels stale: those days"
    " are materialized again.",
)
def stale_after_bars(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Ask for the days that bars recorded since the last tick have made stale."""
    cursor = Cursor.of(context.cursor)
    with connect() as connection:
        found = invalidations_after(connection, cursor.seen or 0)
    newest = found[-1].transaction_id if found else cursor.seen
    new = [
        ask(
            f"stale-{newest}",
            *days,
            [key for product in _MADE_OF_BARS if product in products for key in _MADE_OF_BARS[product]],
        )
        for products, days in stale_days(found, today=datetime.now(UTC).date())
    ]
    return cursor.tick(context.instance, seen=newest, new=new, nothing=_NO_CHANGE)


@dg.sensor(
    job=jobs.rolling_up,
    minimum_interval_seconds=60,
    default_status=_RUNNING,
    description="Bars that were corrected or came late make longer bars and the coverage of their days stale: these"
    " are made again.",
)
def rollups_stale(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Ask for the longer bars and the coverage of the days whose bars changed since the last tick."""
    cursor = Cursor.of(context.cursor)
    with connect() as connection:
        found = invalidations_after(connection, cursor.seen or 0)
    newest = found[-1].transaction_id if found else cursor.seen
    today, first_day = datetime.now(UTC).date(), get_config().history_start
    days = merged([(one.start.date(), (one.end - _INSTANT).date()) for one in found])
    finest = min((list(keys.BARS).index(one.timeframe) for one in found), default=0)
    made = [*list(keys.BARS.values())[finest + 1 :], keys.BAR_COVERAGE]
    new = [
        ask(f"rollups-{newest}", max(first, first_day), min(last, today), made)
        for first, last in days
        if last >= first_day and first <= today
    ]
    return cursor.tick(context.instance, seen=newest, new=new, nothing=_NO_CHANGE)


@dg.sensor(
    job=jobs.rolling_up,
    minimum_interval_seconds=60,
    default_status=_RUNNING,
    description="Days of bars that came from files get their longer bars and their coverage.",
)
def rollups_of_imports(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Ask for what is made of the days that were imported since the last tick; an import is no run and tells so."""
    cursors: dict[str, str] = json.loads(context.cursor or "{}")
    requests = []
    for timeframe, key in keys.BARS.items():
        found = context.instance.fetch_materializations(
            key, limit=_EVENTS_AT_ONCE, cursor=cursors.get(timeframe), ascending=True
        )
        cursors[timeframe] = found.cursor
        days = {
            date.fromisoformat(record.partition_key)
            for record in found.records
            if record.partition_key and not record.event_log_entry.run_id
        }
        longer = list(keys.BARS.values())[list(keys.BARS).index(timeframe) + 1 :]
        requests += [
            range_request(
                f"{first}", f"{last}", f"imported-{timeframe}-{found.cursor}", [*longer, keys.BAR_COVERAGE]
            )
            for first, last in merged([(day, day) for day in days])
        ]
    if not requests:
        return dg.SensorResult(skip_reason="no bars were imported", cursor=json.dumps(cursors))
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(cursors))


@dg.sensor(
    job=jobs.gap_healing,
    minimum_interval_seconds=120,
    default_status=_RUNNING,
    description="Missing bars whose next attempt has come are asked for, one run at a time.",
)
def gaps_due(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Ask for a run that heals what is due."""
    now = datetime.now(UTC)
    with connect() as connection:
        due = next_due(connection, get_config().market.venue)
    if due is None or due > now:
        return dg.SkipReason(
            "no gap is due" if due is None else f"the next gap is due at {due:%Y-%m-%d %H:%M}"
        )
    running = dg.RunsFilter(job_name=jobs.gap_healing.name, statuses=list(NOT_ENDED))
    if context.instance.get_runs_count(running):
        return dg.SkipReason("a run that heals gaps has not ended")
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=f"heal-{now:%Y-%m-%dT%H:%M}")])


def stale_days(
    found: Iterable[Invalidation], *, today: date
) -> list[tuple[frozenset[Product], tuple[date, date]]]:
    """Ranges of days to make again, each with the products that are stale on them.

    Nothing is made again before history starts or after `today`.
    """
    config = get_config()
    coin = f"{config.market.reference}/"
    horizon = max(timedelta(hours=c.horizon_hours) for c in strategy_configs().values())
    changes = [Change(one.timeframe, one.start, one.end, one.symbol.startswith(coin)) for one in found]
    return stale(changes, horizon=horizon, within=(config.history_start, today))


@dg.sensor(
    job=jobs.label_maturing,
    minimum_interval_seconds=600,
    default_status=_RUNNING,
    description="Labels whose horizon has passed in the stored bars since they were judged become final.",
)
def labels_due(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Ask for the days that have labels which bars can now decide."""
    recent = scan(
        schemas.BARS["15m"].name, datetime.now(UTC) - timedelta(days=7), columns=["venue", "available_at"]
    )
    newest = dict(recent.group_by("venue").agg(pl.col("available_at").max()).collect().iter_rows())
    if not newest:
        return dg.SkipReason("no bars of the last week")
    running = dg.RunsFilter(job_name=jobs.label_maturing.name, statuses=list(NOT_ENDED))
    if context.instance.get_runs_count(running):
        return dg.SkipReason("a run that judges labels has not ended")
    days = due_label_days(newest)
    if not days:
        return dg.SkipReason("no pending label can be decided yet")
    moment = max(newest.values())
    requests = [
        range_request(
            f"{first}", f"{last}", f"due-{strategy}-{moment:%Y-%m-%dT%H:%M}", [key_of(LABEL_TABLES[strategy])]
        )
        for strategy, ranges in days.items()
        for first, last in ranges
    ]
    return dg.SensorResult(run_requests=requests)


def due_label_days(newest: Mapping[str, datetime]) -> dict[str, list[tuple[date, date]]]:
    """Days with pending labels whose horizon has passed in the bars of their venue, in ranges, by strategy.

    Args:
        newest: when the newest bar of each venue became known. Labels of a venue that is silent stay pending.
    """
    due: dict[str, list[tuple[date, date]]] = {}
    for strategy, config in strategy_configs().items():
        # The horizon runs from the entry, at most two hours after the signal's bar opened.
        length = timedelta(hours=config.horizon_hours + 2)
        pending = scan(
            LABEL_TABLES[strategy].name,
            None,
            max(newest.values()) - length,
            predicate=pl.col("outcome") == "PENDING",
            columns=["venue", "timestamp"],
        ).collect()
        seen = pl.col("venue").replace_strict(newest, default=None, return_dtype=pl.Datetime("us", "UTC"))
        decided = pending.filter(pl.col("timestamp") < seen - length)
        days = decided.get_column("timestamp").dt.date().unique().to_list()
        if days:
            due[strategy] = merged([(day, day) for day in days])
    return due


ALL: Final = [stale_after_bars, rollups_stale, rollups_of_imports, gaps_due, labels_due]
