"""Point-in-time features of every closed 15m bar.

What belongs here: the entry points, what is known at each row, and assembly of the frame. What does not: formulas
(`feature_formulas.py`, `feature_context.py`, `feature_surroundings.py`), their descriptions (`feature_catalogue.py`),
collecting values and reasons (`feature_table.py`).

The rows of one UTC day depend on the bars from `LOOKBACK` before each row on and on nothing older, so that a
backfill of a year in one call and a refresh hour by hour give the same bytes. Recursive indicators (RSI, MACD, ATR)
would remember the start of the history for ever; theirs restart at a fixed distance before each UTC day instead.
"""

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.bar_grid import BarGrid, known_bars, known_series
from tracker_pipeline.domain.feature_catalogue import FEATURE_SET_VERSION
from tracker_pipeline.domain.feature_context import DAY, DayFeatures, days_of
from tracker_pipeline.domain.feature_days import BURN_IN_DAYS, SLOTS, DayTable, Wanted
from tracker_pipeline.domain.feature_surroundings import NOTHING, Beside, Surroundings, one_series
from tracker_pipeline.domain.feature_table import FeatureTable
from tracker_pipeline.domain.feature_values import Values
from tracker_pipeline.domain.schemas import ML_FEATURES_15M
from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.domain.windows import IntArray, read_only

# A row at 23:45 needs the 23:45 bar of 31 days before its own: exactly 31 days back.
LOOKBACK: Final = timedelta(days=31)
# Only the 23:45 bars are needed before this long before the UTC day of a row.
BURN_IN: Final = timedelta(days=BURN_IN_DAYS)
# Daily reference bars are needed from this long before the UTC day of a row.
REFERENCE_LOOKBACK: Final = timedelta(days=31)

_BAR: Final = duration("15m")
_PRICES: Final = ("high", "low", "close", "volume")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_BAR_US: Final = _BAR // _MICROSECOND
_DAY_US: Final = DAY // _MICROSECOND
_WORKERS: Final = min(4, os.cpu_count() or 1)
# Blocks in the making: only half of the work on one, that of the kernel, runs on several threads.
_BLOCKS_AT_ONCE: Final = min(2, _WORKERS)


def features_15m(
    bars: pl.DataFrame,
    *,
    reference_bars: pl.DataFrame | None = None,
    surroundings: Surroundings = NOTHING,
    as_of: datetime | None = None,
    since: datetime | None = None,
) -> pl.DataFrame:
    """Compute the features of the catalogue for every 15m bar.

    A value is NULL, with a reason, unless 90 % of the bars of its window exist (all, for the two ends of a change).
    Lags are found by time, so no change is computed across a hole. The row of a bar uses that bar, bars before it,
    and daily bars of days before its own.

    Args:
        bars: 15m bars of any number of series in any order: venue, symbol, ts, high, low, close, volume, and
            `available_at` and `revision` where known. For complete rows from `since` on they must reach back by
            `LOOKBACK`.
        reference_bars: daily bars of one series, BTC: ts and close, and `available_at` and `revision` where known,
            reaching back by `REFERENCE_LOOKBACK`. Without them the features that compare with BTC are NULL.
        surroundings: BTC's 15m bars, 5m bars, regimes and tiers, each where known; without them their features are
            NULL.
        as_of: aware moment of knowledge: bars available later are not seen. None takes everything given as known.
        since: aware time of the first row wanted; bars before it serve as history only. None: a row for each bar.

    Returns:
        The columns of `features.ml_features_15m`, sorted by key. `null_reasons` is a JSON object from feature to the
        reason why it is NULL (`feature_values.REASON_MEANINGS`).

    Raises:
        ValueError: a column is absent, a time is naive or off the 15m grid, or a bar is given twice.
    """
    return _History.of(bars, reference_bars, surroundings, as_of).features(since, None)


def feature_blocks(
    bars: pl.DataFrame,
    *,
    reference_bars: pl.DataFrame | None = None,
    surroundings: Surroundings = NOTHING,
    as_of: datetime | None = None,
    since: datetime | None = None,
    days: int = 13,
) -> Iterator[pl.DataFrame]:
    """The rows of `features_15m` some days at a time: 180 days of 90 series in one frame would take 560 MB.

    Args:
        bars: as for `features_15m`.
        reference_bars: as for `features_15m`.
        surroundings: as for `features_15m`.
        as_of: as for `features_15m`.
        since: as for `features_15m`.
        days: UTC days of one frame. Of 90 series, 13 days are the most that the memory of one frame serves the next.
    """
    history = _History.of(bars, reference_bars, surroundings, as_of)
    if not history.bars.height:
        return
    first, last = (history.bars.select(edge).item() for edge in (pl.col("ts").min(), pl.col("ts").max()))
    start = first if since is None else max(first, since)
    making: deque[Future[pl.DataFrame]] = deque()
    with ThreadPoolExecutor(_BLOCKS_AT_ONCE) as pool:
        while start <= last:
            end = start - (start - _EPOCH) % DAY + days * DAY
            making.append(pool.submit(history.features, start, end))
            start = end
            if len(making) >= _BLOCKS_AT_ONCE:
                yield making.popleft().result()
        while making:
            yield making.popleft().result()


@dataclass(frozen=True)
class _History:
    """Checked bars and what their days know of days before.

    Attributes:
        bars: sorted by series and time.
        corrected: whether any bar was ever corrected.
        grid: their places.
        days: the days of the grid.
        context: features that are the same all day.
        beside: what else was known.
    """

    bars: pl.DataFrame
    corrected: bool
    grid: BarGrid
    days: DayTable
    context: DayFeatures
    beside: Beside

    @classmethod
    def of(
        cls,
        bars: pl.DataFrame,
        reference_bars: pl.DataFrame | None,
        surroundings: Surroundings,
        as_of: datetime | None,
    ) -> "_History":
        with ThreadPoolExecutor(1) as pool:
            beside = pool.submit(Beside, surroundings, as_of)
            known, starts = known_series(bars, "15m", columns=_PRICES, as_of=as_of)
            known = _with_revision(known).rechunk()
            reference = None if reference_bars is None else _reference(reference_bars, as_of)
            grid = BarGrid.place(known, _BAR, pad=BURN_IN_DAYS * SLOTS, starts=starts)
            days = DayTable.of(grid, np.append(starts, known.height))
            corrected = bool((known["revision"] > 1).any())
            context = DayFeatures(days_of(known, days), reference)
            return cls(known, corrected, grid, days, context, beside.result())

    def features(self, since: datetime | None, until: datetime | None) -> pl.DataFrame:
        """The rows of the bars of [since, until)."""
        ts_us = self.bars["ts"].to_physical().to_numpy()
        wanted = Wanted.between(self.days, ts_us, _microseconds(since), _microseconds(until))
        days, count = wanted.days_and_counts
        if not len(days):
            return ML_FEATURES_15M.polars_schema.to_frame()
        identity = self.bars.select("venue", "symbol", "ts", "available_at", "close")
        ranges = list(wanted.ranges())
        rows = pl.concat([identity[first:end] for first, end in ranges], rechunk=True)
        table = FeatureTable(rows.height)
        _fill_bar_features(table, self.bars, wanted)
        day_of_row = np.repeat(np.arange(len(days)), count)
        _fill_clock(table, rows["ts"].to_physical().to_numpy(), wanted.row[days], day_of_row)
        known_us = rows["available_at"].to_physical().to_numpy()
        daily = self.days.daily[days]
        self.context.fill(table, daily, day_of_row, known_us)
        corrections = self.context.corrections(but_last=BURN_IN_DAYS)[daily][day_of_row]
        corrections += self.beside.fill(table, rows, _starts(ranges))
        if self.corrected:
            corrections += _recent_corrections(self.grid, self.bars, wanted.index)
        return _assemble(rows, table, corrections)


def _starts(ranges: Sequence[tuple[int, int]]) -> IntArray:
    """The first row of each range when they stand one after the other."""
    return np.cumsum([0, *(end - first for first, end in ranges[:-1])])


def _microseconds(moment: datetime | None) -> int | None:
    if moment is not None and moment.tzinfo is None:
        raise ValueError("since must be an aware time")
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND


def _with_revision(bars: pl.DataFrame) -> pl.DataFrame:
    return bars if "revision" in bars.columns else bars.with_columns(revision=pl.lit(1, pl.Int64))


def _reference(bars: pl.DataFrame, as_of: datetime | None) -> pl.DataFrame:
    return _with_revision(known_bars(one_series(bars), "1d", columns=("close",), key=(), as_of=as_of))


def _fill_bar_features(table: FeatureTable, bars: pl.DataFrame, wanted: Wanted) -> None:
    """Compute the features of 15m bars, days side by side."""
    from tracker_pipeline.domain.feature_kernel import fill_days  # imports numba

    close, high, low, volume = (
        read_only(bars[name].to_numpy()) for name in ("close", "high", "low", "volume")
    )
    days = wanted.days

    def fill(part: IntArray) -> None:
        fill_days(
            part,
            days.start,
            wanted.low,
            wanted.row,
            days.slot,
            (close, high, low, volume),
            table.bar_features,
        )

    with ThreadPoolExecutor(_WORKERS) as pool:
        for _ in pool.map(fill, np.array_split(np.flatnonzero(wanted.count), _WORKERS)):
            pass


def _fill_clock(table: FeatureTable, ts_us: IntArray, first: IntArray, day_of_row: IntArray) -> None:
    """Compute the features of the clock.

    Args:
        table: where.
        ts_us: time of each row, microseconds since 1970.
        first: the first row of each day.
        day_of_row: which of the days each row is in.
    """
    day = ts_us[first] // _DAY_US
    weekday = (day + 3) % 7  # 1970 began on a Thursday
    weekdays = Values(weekday.astype(np.float64), np.zeros(len(day), np.uint8))
    table.put_by_day("weekday", weekdays, day_of_row)
    slot = (ts_us - (day * _DAY_US)[day_of_row]) // _BAR_US
    table.put_by_slot("hour_sin", _HOUR_SIN, slot)
    table.put_by_slot("hour_cos", _HOUR_COS, slot)


# Tables: the same digits on every machine and for every length of input.
_ANGLES: Final = [2.0 * math.pi * (slot // 4) / 24.0 for slot in range(SLOTS)]
_HOUR_SIN: Final = np.array([math.sin(angle) for angle in _ANGLES])
_HOUR_COS: Final = np.array([math.cos(angle) for angle in _ANGLES])


def _recent_corrections(grid: BarGrid, bars: pl.DataFrame, rows: IntArray) -> IntArray:
    """For each row, revisions beyond the first from the start of its day's burn-in to the row itself."""
    corrections = bars["revision"].cast(pl.Int64).to_numpy() - 1
    flat = np.zeros(grid.size + 1, np.int64)
    flat[grid.slot + 1] = corrections
    total = np.cumsum(flat)
    return total[grid.slot[rows] + 1] - total[grid.day_slot[rows] - BURN_IN_DAYS * SLOTS]


def _assemble(rows: pl.DataFrame, table: FeatureTable, corrections: IntArray) -> pl.DataFrame:
    """The declared frame. The rows are sorted by key, and sorting them once more would cost a third of the time."""
    frame = rows.select("venue", "symbol", "ts", "available_at").with_columns(
        *table.columns(),
        table.null_reasons().alias("null_reasons"),
        pl.lit(FEATURE_SET_VERSION).alias("feature_set_version"),
        pl.Series("input_revision", corrections),
    )
    if frame.schema != ML_FEATURES_15M.polars_schema:
        raise TypeError(f"{ML_FEATURES_15M.name} is not declared as it is computed: {frame.schema}")
    return frame
