"""The bar timeframes, their durations, and how long after its end a bar is still not final.

What belongs here: durations and alignment. What does not: bars themselves (`bars.py`).
"""

from datetime import datetime, timedelta
from typing import Final

TIMEFRAMES: Final[dict[str, timedelta]] = {
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "4h": timedelta(hours=4),
    "1d": timedelta(days=1),
}

# Venues settle a bar a little after its end: 29 of 29 symbols checked in real fetches ended with a bar that
# changed afterwards. The grace is the wait before the last bar counts as final.
GRACE: Final[dict[str, timedelta]] = {
    "1m": timedelta(seconds=60),
    "5m": timedelta(seconds=120),
    "15m": timedelta(seconds=120),
    "1h": timedelta(seconds=120),
    "4h": timedelta(seconds=120),
    "1d": timedelta(seconds=600),
}


def duration(timeframe: str) -> timedelta:
    """The length of one bar.

    Raises:
        ValueError: the timeframe is not one of `TIMEFRAMES`.
    """
    try:
        return TIMEFRAMES[timeframe]
    except KeyError:
        known = ", ".join(TIMEFRAMES)
        raise ValueError(f"unknown timeframe {timeframe!r}; known are {known}") from None


def available_at(ts: datetime, timeframe: str) -> datetime:
    """When the bar that opened at `ts` is final and may be seen downstream: its end plus the grace."""
    return ts + duration(timeframe) + GRACE[timeframe]
