"""How old data may be, and what state a series is in.

What belongs here: the judgement. What does not: clocks and reads (`operations.freshness`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

State = Literal["fresh", "late", "stale", "recovered"]

# A series that was late shows so for an hour after it came back, so that a person who looks later sees it.
RECOVERED_FOR: Final = timedelta(hours=1)
# Twice the time in which a row must have come: one refresh may fail without anybody being called.
STALE_FACTOR: Final = 2


@dataclass(frozen=True)
class Judged:
    """State of a series and since when."""

    state: State
    since: datetime


def judge(
    newest_at: datetime | None, *, now: datetime, late_after: timedelta, former: Judged | None
) -> Judged:
    """The state of a series.

    Args:
        newest_at: end of the newest bar, or time of the newest row; None where there is none yet. That is late from
            when it is first looked for, and stale only as long after as a row is: a coin that joins the universe has
            no daily bar before midnight.
        now: by the clock of the exchange, aware.
        late_after: the age from which on the series is late; from twice that on it is stale.
        former: what the last check said.
    """
    if newest_at is None:
        waits_since = former.since if former is not None and former.state == "late" else now
        over = now - waits_since > STALE_FACTOR * late_after or (
            former is not None and former.state == "stale"
        )
        return _kept(former, "stale" if over else "late", now)
    age = now - newest_at
    if age > STALE_FACTOR * late_after:
        state: State = "stale"
    elif age > late_after:
        state = "late"
    elif former is not None and _still_recovering(former, now):
        state = "recovered"
    else:
        state = "fresh"
    return _kept(former, state, now)


def _kept(former: Judged | None, state: State, now: datetime) -> Judged:
    """The state, since when it has been so."""
    return former if former is not None and former.state == state else Judged(state, now)


def _still_recovering(former: Judged, now: datetime) -> bool:
    if former.state == "recovered":
        return now - former.since < RECOVERED_FOR
    return former.state in ("late", "stale")
