"""Which days of which product are stale once bars have changed.

What belongs here: how far a bar reaches into what is made of it, from the look-backs that the products declare. What
does not: the record of changes (`storage.invalidations`), asking for runs (`automation`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, Literal

from tracker_pipeline.domain import features, regimes, setups

Product = Literal["regimes", "features", "setups", "labels"]
Days = tuple[date, date]  # first and last

_DAY: Final = timedelta(days=1)
_INSTANT: Final = timedelta(microseconds=1)
# From the open of a signal bar to the entry: the bar, an hour at most, and the wait for the bar to enter at.
_ENTRY: Final = timedelta(hours=2)


@dataclass(frozen=True)
class Change:
    """Bars that were corrected or came late.

    Attributes:
        timeframe: of the bars.
        start: open of the first, aware.
        end: end of the last, aware.
        is_reference: whether they are bars of the coin that regimes are judged on.
    """

    timeframe: str
    start: datetime
    end: datetime
    is_reference: bool

    @property
    def first(self) -> date:
        """The day of the first bar."""
        return self.start.date()

    @property
    def last(self) -> date:
        """The day of the last bar."""
        return (self.end - _INSTANT).date()


def reach(change: Change, *, horizon: timedelta) -> Mapping[Product, Days]:
    """The days of each product that may differ; products that do not are left out.

    A 15m bar reaches the features of the burn-in of recursions, and as the last of its day those that look at daily
    closes. Bars of the reference coin reach regimes, and by way of these setups, which remember events of days
    before. Labels reach back: to signals whose horizon runs over the bars.

    Args:
        change: the bars.
        horizon: longest time from an entry to the end of its label.
    """
    found: dict[Product, Days] = {}
    first, last = change.first, change.last
    if regimes_last := _regimes_last(change):
        found["regimes"] = (first, regimes_last)
    if features_last := _features_last(change, regimes_last):
        found["features"] = (first, features_last)
    if setups_last := _setups_last(change, regimes_last):
        found["setups"] = (first, setups_last)
    first_label = (change.start - horizon - _ENTRY).date()
    if change.timeframe in ("15m", "1m"):
        found["labels"] = (first_label, max(last, setups_last or last))
    elif setups_last:
        found["labels"] = (first, setups_last)
    return found


def _regimes_last(change: Change) -> date | None:
    lookbacks = {"15m": regimes.LOOKBACK, "1d": regimes.DAILY_LOOKBACK}
    if not change.is_reference or change.timeframe not in lookbacks:
        return None
    return (change.end - _INSTANT + lookbacks[change.timeframe]).date()


def _features_last(change: Change, regimes_last: date | None) -> date | None:
    lookback = {"5m": timedelta(0), "15m": features.BURN_IN}.get(change.timeframe)
    if change.timeframe == "15m" and change.end.date() > change.start.date():  # the last bar of a day
        lookback = features.LOOKBACK
    if change.timeframe == "1d" and change.is_reference:
        lookback = features.REFERENCE_LOOKBACK
    if lookback is None:
        return None
    return max(change.last + lookback, regimes_last or change.last)


def _setups_last(change: Change, regimes_last: date | None) -> date | None:
    strategies = setups.STRATEGIES.values()
    lasts = [change.last + s.lookback for s in strategies if s.config.timeframe == change.timeframe]
    if regimes_last:
        lasts += [regimes_last + s.lookback for s in strategies]
    return max(lasts, default=None)


def merged(days: list[Days]) -> list[Days]:
    """Ranges of days, both ends included, with those that touch or overlap made one; in order."""
    ranges: list[Days] = []
    for first, last in sorted(days):
        if ranges and first <= ranges[-1][1] + _DAY:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], last))
        else:
            ranges.append((first, last))
    return ranges


def stale(
    changes: list[Change], *, horizon: timedelta, within: Days
) -> list[tuple[frozenset[Product], Days]]:
    """Ranges of days to make again, each with the products that are stale on them; in order.

    Setups look at regimes of days before. Where regimes are stale, they and all that depends on them are one range,
    so that one run makes them in order; other ranges do not depend on each other.

    Args:
        changes: bars that changed.
        horizon: longest time from an entry to the end of its label.
        within: first and last day there are.
    """
    by_day: dict[date, set[Product]] = {}
    chain: list[Days] = []
    for change in changes:
        reached = reach(change, horizon=horizon)
        if "regimes" in reached:
            chain.append(
                (reached["regimes"][0], max(days[1] for name, days in reached.items() if name == "setups"))
            )
        for product, (first, last) in reached.items():
            for day in _each(max(first, within[0]), min(last, within[1])):
                by_day.setdefault(day, set()).add(product)
    for first, last in merged(chain):
        days = [day for day in _each(first, last) if day in by_day]
        together = set().union(*(by_day[day] for day in days))
        by_day.update(dict.fromkeys(days, together))
    ranges: list[tuple[frozenset[Product], Days]] = []
    for day in sorted(by_day):
        products = frozenset(by_day[day])
        if ranges and ranges[-1][0] == products and ranges[-1][1][1] + _DAY == day:
            ranges[-1] = (products, (ranges[-1][1][0], day))
        else:
            ranges.append((products, (day, day)))
    return ranges


def _each(first: date, last: date) -> list[date]:
    return [first + number * _DAY for number in range((last - first).days + 1)]
