"""The sensor that watches: freshness, what is wrong, and messages about it, once a minute and outside of any run.

`tracker up` has a health service that does the same while the daemon is down; the record in the database makes sure
that each thing is said once, whoever comes first.

What belongs here: the tick. What does not: what is wrong (`operations.causes`) and what is said (`domain.alerting`).
"""

from typing import Final

import dagster as dg

from tracker_pipeline.operations import alerts
from tracker_pipeline.operations.freshness import ExchangeClock
from tracker_pipeline.storage.database import connect

_CLOCK: Final = ExchangeClock()


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Judges how fresh each series is, and says what is wrong: once for each cause, with a reminder, and"
    " when it is over. It starts no run.",
)
def watch(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Look at everything once."""
    with connect() as connection:
        messages = alerts.watch(connection, _CLOCK.now())
    said = "; ".join(message.title for message in messages)
    return dg.SkipReason(said or "nothing new to say")
