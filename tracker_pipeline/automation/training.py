"""The sensor of training rows: a week is made again where what it was made of changed afterwards.

A label becomes final after the week's run, or a corrected bar changes features, setups or labels of a week long past.
Runs that write the same rows again change nothing and make nothing stale: each materialization says how many rows it
changed.

What belongs here: which weeks are stale. What does not: making them (`assets.training_set`), weeks that were never
made (`schedules.training_weekly`).
"""

from collections.abc import Iterator
from datetime import date, timedelta
from math import ceil
from typing import Final

import dagster as dg

from tracker_pipeline import keys
from tracker_pipeline.assets.strategies import strategy_configs
from tracker_pipeline.automation import jobs
from tracker_pipeline.automation.asked import Cursor, ask

_DAY: Final = timedelta(days=1)
_EVENTS_AT_ONCE: Final = 1000
_MADE_OF: Final = (keys.ML_FEATURES_15M, keys.STRATEGY_SETUPS, *jobs.LABEL_ASSETS)
_CHANGES: Final = ("inserted", "updated", "deleted")
_ENTRY_HOURS: Final = 2  # the longest wait from a signal to the entry
_STEP: Final = "__".join(keys.TRAINING_SET.path)


@dg.sensor(
    job=jobs.training_week,
    minimum_interval_seconds=600,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Features, setups or labels that changed after a week's training rows were made make these stale:"
    " the week is made again.",
)
def training_stale(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Ask for the weeks whose features, setups or labels changed since their training rows were made."""
    cursor = Cursor.of(context.cursor)
    seen: dict[str, str] = dict(cursor.seen or {})
    changed: dict[date, int] = {}
    for key in _MADE_OF:
        found = context.instance.fetch_materializations(
            key, limit=_EVENTS_AT_ONCE, cursor=seen.get(key.to_user_string()), ascending=True
        )
        if found.records:
            seen[key.to_user_string()] = found.cursor
        for record in found.records:
            if record.partition_key and _changed_rows(record.asset_materialization):
                for week in _weeks_reached(key, date.fromisoformat(record.partition_key)):
                    changed[week] = max(changed.get(week, 0), record.storage_id)
    stale = [week for week, event in sorted(changed.items()) if _began_before(context.instance, week, event)]
    new = [ask(f"training-{changed[week]}", week, week, [keys.TRAINING_SET]) for week in stale]
    nothing = "no training rows are older than what they were made of"
    return cursor.tick(context.instance, seen=seen, new=new, nothing=nothing)


def _changed_rows(materialization: dg.AssetMaterialization | None) -> bool:
    """Whether a materialization changed rows; one that does not say so may have."""
    metadata = materialization.metadata if materialization else {}
    counts = [metadata[name].value for name in _CHANGES if name in metadata]
    return not counts or any(counts)


def _weeks_reached(key: dg.AssetKey, day: date) -> Iterator[date]:
    """Mondays of the weeks whose rows depend on a day: labels that are alive at the same time share their weight."""
    reach = 0
    if key != keys.ML_FEATURES_15M:
        hours = max(config.horizon_hours for config in strategy_configs().values())
        reach = ceil((hours + _ENTRY_HOURS) / 24)
    first, last = (day + days * _DAY for days in (-reach, reach))
    week = first - first.weekday() * _DAY
    while week <= last:
        yield week
        week += 7 * _DAY


def _began_before(instance: dg.DagsterInstance, week: date, event: int) -> bool:
    """Whether a week's training rows were made, by a step that began to read before an event."""
    partitions = dg.AssetRecordsFilter(keys.TRAINING_SET, asset_partitions=[f"{week}"])
    newest = instance.fetch_materializations(partitions, limit=1).records
    if not newest:
        return False
    starts = instance.get_records_for_run(newest[0].run_id, of_type=dg.DagsterEventType.STEP_START).records
    own = [one.storage_id for one in starts if one.event_log_entry.step_key == _STEP]
    return min(own, default=newest[0].storage_id) < event
