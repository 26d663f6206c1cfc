"""Which days of which product are stale once bars have changed.

What belongs here: how far a bar reaches into what is made of it, from the look-backs that the products declare. What
does not: the record of changes (`storage.invalidations`), asking for runs (`automation`).
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from tracker_pipeline.domain import features, regimes, setups

_DAY: Final = timedelta(days=1)
_INSTANT: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class Reach:
    """Days on which bars that changed are used.

    Attributes:
        first: day of the first bar that changed: from it on features, regimes and setups may differ.
        last: last day whose features still look back at the bars.
        first_label: day of the earliest signal whose label may still have run over the bars.
    """

    first: date
    last: date
    first_label: date


def reach(
    timeframe: str, start: datetime, end: datetime, *, horizon: timedelta, is_reference: bool
) -> Reach | None:
    """How far the bars of [start, end) reach; None where nothing is made of bars of this timeframe.

    Features, regimes and the labels of earlier signals see 15m bars; setups see bars of their strategy's timeframe;
    features and regimes see the daily bars of the reference coin.

    Args:
        timeframe: of the bars.
        start: open of the first bar, aware.
        end: end of the last bar, aware.
        horizon: longest time from a signal to the end of its label.
        is_reference: whether they are bars of the coin that regimes are judged on.
    """
    lookbacks = [s.lookback for s in setups.STRATEGIES.values() if s.config.timeframe == timeframe]
    first_label = start
    if timeframe == "15m":
        lookbacks += [features.LOOKBACK, regimes.LOOKBACK]
        first_label = start - horizon
    if timeframe == "1d" and is_reference:
        lookbacks += [features.REFERENCE_LOOKBACK, regimes.DAILY_LOOKBACK]
    if not lookbacks:
        return None
    last = (end - _INSTANT).date() + max(lookbacks)
    return Reach(start.date(), last, first_label.date())


def merged(days: list[tuple[date, date]]) -> list[tuple[date, date]]:
    """Ranges of days, both ends included, with those that touch or overlap made one; in order."""
    ranges: list[tuple[date, date]] = []
    for first, last in sorted(days):
        if ranges and first <= ranges[-1][1] + _DAY:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], last))
        else:
            ranges.append((first, last))
    return ranges
