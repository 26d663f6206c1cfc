"""UTC days of series, and which of their bars are to have features.

What belongs here: where the bars of a day are. What does not: what is computed from them (`feature_kernel.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from tracker_pipeline.domain.bar_grid import BarGrid
from tracker_pipeline.domain.windows import IntArray

SLOTS: Final = 96  # 15m bars of a day
# Recursions of all bars of one UTC day start at the same bar, this long before the day. What the start leaves in
# Wilder's slowest average by then is (29/30)^672 = 1e-10 of it: below the last digit of any price.
BURN_IN_DAYS: Final = 7


@dataclass(frozen=True)
class DayTable:
    """All UTC days of some series, one after the other, each series after `BURN_IN_DAYS` empty ones.

    Attributes:
        slot: for each bar its position in slots.
        start: index of the first bar of each day, and one more for the end.
        series: series of each day.
        bars: index of the first bar of each series, and one more for the end.
    """

    slot: IntArray
    start: IntArray
    series: IntArray
    bars: IntArray

    @classmethod
    def of(cls, grid: BarGrid, bars: IntArray) -> "DayTable":
        """The days of a grid of 15m bars, padded by `BURN_IN`.

        Args:
            grid: places of the bars.
            bars: index of the first bar of each series, and one more for the end.
        """
        start = np.searchsorted(grid.slot, np.arange(grid.size // SLOTS + 1) * SLOTS)
        series = np.searchsorted(bars[1:-1], start[1:] - 1, side="right")
        return cls(grid.slot, start, series, bars)

    @property
    def daily(self) -> IntArray:
        """For each day its position among days without the empty ones before each series."""
        return np.arange(len(self.series)) - BURN_IN_DAYS * (self.series + 1)


@dataclass(frozen=True)
class Wanted:
    """The bars of a span of time.

    Attributes:
        days: all days of the series.
        edges: first and end of the wanted bars of each series; (series, 2).
        low: index of the first wanted bar of each day.
        row: number of wanted bars before each day, and one more for the end: those of the first get the first rows.
    """

    days: DayTable
    edges: IntArray
    low: IntArray
    row: IntArray

    @classmethod
    def between(cls, days: DayTable, ts_us: IntArray, start_us: int | None, end_us: int | None) -> "Wanted":
        """The bars that open in [start_us, end_us); None is unbounded."""
        edges = list(zip(days.bars[:-1], days.bars[1:], strict=True))
        first, last = (
            np.array([lo + np.searchsorted(ts_us[lo:hi], bound) for lo, hi in edges])
            if bound is not None
            else unbounded
            for bound, unbounded in ((start_us, days.bars[:-1]), (end_us, days.bars[1:]))
        )
        low = np.maximum(days.start[:-1], first[days.series])
        count = np.maximum(np.minimum(days.start[1:], last[days.series]) - low, 0)
        return cls(days, np.stack([first, last], axis=1), low, np.concatenate([[0], np.cumsum(count)]))

    @property
    def count(self) -> IntArray:
        """Wanted bars of each day."""
        return np.diff(self.row)

    @property
    def days_and_counts(self) -> tuple[IntArray, IntArray]:
        """The days that have wanted bars, and how many."""
        count = self.count
        days = np.flatnonzero(count)
        return days, count[days]

    @property
    def index(self) -> IntArray:
        """Index of each wanted bar."""
        count = self.count
        return np.arange(self.row[-1]) + np.repeat(self.low - self.row[:-1], count)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """First and end of the wanted bars of each series that has any."""
        yield from ((int(first), int(end)) for first, end in self.edges if first < end)
