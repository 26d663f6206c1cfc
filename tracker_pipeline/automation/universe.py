"""The sensor that follows the universe: a new version of the watched addresses is read at once, not at the next hour.

What belongs here: from a version to a run. What does not: how a version is made (`assets.whale_universe`).
"""

import json
from datetime import UTC, datetime

import dagster as dg

from tracker_pipeline import keys
from tracker_pipeline.automation import backlog, jobs
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage.database import connect


@dg.sensor(
    job=jobs.onchain_hour,
    minimum_interval_seconds=120,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="A new version of the watched addresses: balances and scores of the newest hour are read again,"
    " with the addresses that joined.",
)
def new_universe_version(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Ask for the newest hour where a version is there that the last tick did not see."""
    return versions_to_read(context.cursor, datetime.now(UTC))


def versions_to_read(cursor: str | None, now: datetime) -> dg.SensorResult | dg.SkipReason:
    """What a tick at `now` asks for; the cursor holds the versions seen. The first tick only looks."""
    with connect() as connection:
        rows = connection.execute(
            "SELECT DISTINCT version FROM onchain.whale_universe WHERE network = %s ORDER BY 1",
            [get_config().chain.network],
        ).fetchall()
    versions = [row[0] for row in rows]
    seen = None if cursor is None else set(json.loads(cursor))
    added = [] if seen is None else [version for version in versions if version not in seen]
    # A first version comes with the run that reads its balances.
    if not seen or not added:
        return dg.SensorResult(
            skip_reason=dg.SkipReason("no new version of the watched addresses"), cursor=json.dumps(versions)
        )
    hour = backlog.hour_key(backlog.newest_hour(now))
    balances = [keys.WHALE_BALANCE_SNAPSHOTS, keys.STETH_RATES, keys.ACCUMULATION_SCORES]
    request = backlog.range_request(hour, hour, f"universe-{'-'.join(added)}", balances)
    return dg.SensorResult(run_requests=[request], cursor=json.dumps(versions))
