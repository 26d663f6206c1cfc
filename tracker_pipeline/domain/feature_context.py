"""Features of a day: from the series' daily closes and from BTC's daily bars, all of days that are over.

What belongs here: formulas over whole UTC days. What does not: formulas over 15m bars (`feature_formulas.py`).
"""

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.bar_grid import SERIES, BarGrid
from tracker_pipeline.domain.feature_days import SLOTS, DayTable
from tracker_pipeline.domain.feature_table import FeatureTable
from tracker_pipeline.domain.feature_values import Reason, Values, judge, needed
from tracker_pipeline.domain.windows import (
    BoolArray,
    FloatArray,
    IntArray,
    lag,
    ratio,
    window_count,
    window_mean,
    window_sum,
)

DAY: Final = timedelta(days=1)
_OF_REFERENCE: Final = (
    "btc_ret_1d",
    "btc_vol_7d",
    "btc_vol_30d",
    "rel_btc_7d",
    "rel_btc_30d",
    "corr_btc_30d",
)
# 31 closes make the 30 daily returns of the longest window.
_CLOSES: Final = 31
_PAD: Final = _CLOSES + 1
_PAIRS: Final = 20
_MICROSECONDS_PER_DAY: Final = DAY // timedelta(microseconds=1)


def days_of(bars: pl.DataFrame, days: DayTable) -> pl.DataFrame:
    """One row per series and UTC day from its first bar to its last: the close of the day's last bar, if it exists.

    Args:
        bars: checked 15m bars with `revision`, sorted by series and time.
        days: where their days are.

    Returns:
        venue, symbol, ts (00:00 UTC of the day), close, corrections (of that last bar), sorted by key.
    """
    starts, ends = days.bars[:-1], days.bars[1:]
    first, last = days.slot[starts] // SLOTS, days.slot[ends - 1] // SLOTS
    count = last - first + 1
    of_series = np.repeat(np.arange(len(starts)), count)
    since_first = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    number = first[of_series] + since_first
    newest = days.start[number + 1] - 1  # bar up to the end of each day
    closed = days.slot[newest] == number * SLOTS + SLOTS - 1
    date = bars["ts"].to_physical().to_numpy()[starts] // _MICROSECONDS_PER_DAY
    revision = bars["revision"].cast(pl.Int64).to_numpy()
    return bars.select(SERIES)[starts[of_series]].with_columns(
        pl.Series("ts", (date[of_series] + since_first) * _MICROSECONDS_PER_DAY)
        .cast(pl.Datetime("us"))
        .dt.replace_time_zone("UTC"),
        pl.Series("close", np.where(closed, bars["close"].to_numpy()[newest], np.nan)),
        pl.Series("corrections", np.where(closed, revision[newest] - 1, 0)),
    )


@dataclass(frozen=True)
class Reference:
    """BTC's daily bars on the days of a grid of daily closes.

    Attributes:
        close: close of each grid slot's day, NaN where there is no bar.
        corrections: revisions beyond the first of that bar.
        available_us: for each slot, when its bar is known, microseconds since 1970; 0 where there is none.
    """

    close: FloatArray
    corrections: FloatArray
    available_us: IntArray

    @classmethod
    def on(cls, days: pl.DataFrame, grid: BarGrid, reference: pl.DataFrame) -> "Reference":
        """Lay the daily bars beside every series of the grid, by date."""
        size = grid.size
        close, corrections, available = np.full(size, np.nan), np.zeros(size), np.zeros(size, np.int64)
        if days.height and reference.height:
            shift = grid.slot - days["ts"].to_physical().to_numpy() // _MICROSECONDS_PER_DAY
            starts = np.flatnonzero(np.r_[True, shift[1:] != shift[:-1]])
            ends = np.r_[starts[1:], len(shift)] - 1
            date = reference["ts"].to_physical().to_numpy() // _MICROSECONDS_PER_DAY
            closes, known = reference["close"].to_numpy(), reference["available_at"].to_physical().to_numpy()
            corrected = reference["revision"].cast(pl.Float64).to_numpy() - 1.0
            for start, end in zip(starts, ends, strict=True):
                slot = date + shift[start]
                inside = (slot >= grid.slot[start] - _PAD) & (slot <= grid.slot[end])
                close[slot[inside]] = closes[inside]
                corrections[slot[inside]] = corrected[inside]
                available[slot[inside]] = known[inside]
        return cls(close, corrections, available)


def _returns(close: FloatArray) -> FloatArray:
    return ratio(close, lag(close, 1)) - 1.0


def _volatility(close: FloatArray, days: int) -> FloatArray:
    from tracker_pipeline.domain.day_products import window_products  # imports numba

    returns = _returns(close)
    mean, freedom = window_mean(returns, days), window_count(returns, days) - 1.0
    squares = window_products(returns, mean, returns, mean, days)
    return 100.0 * math.sqrt(365) * np.sqrt(ratio(squares, np.maximum(freedom, 0.0)))


def _change(close: FloatArray, days: int) -> FloatArray:
    return 100.0 * (ratio(close, lag(close, days)) - 1.0)


def _short(close: FloatArray, width: int) -> BoolArray:
    return window_count(close, width) < needed(width)


def _correlation(left: FloatArray, right: FloatArray, width: int) -> tuple[FloatArray, FloatArray]:
    """Pearson correlation of pairs over the last `width`, NaN where either side is flat, and the number of pairs."""
    from tracker_pipeline.domain.day_products import window_products  # imports numba

    paired = ~np.isnan(left) & ~np.isnan(right)
    left, right = np.where(paired, left, np.nan), np.where(paired, right, np.nan)
    left_mean, right_mean = window_mean(left, width), window_mean(right, width)
    products = window_products(left, left_mean, right, right_mean, width)
    left_squares = window_products(left, left_mean, left, left_mean, width)
    right_squares = window_products(right, right_mean, right, right_mean, width)
    correlation = ratio(products, np.sqrt(left_squares * right_squares))
    return np.clip(correlation, -1.0, 1.0), window_count(left, width)


class DayFeatures:
    """Computes the features of each series' days; those of a day come from days before it.

    Args:
        days: what `days_of` returned.
        reference: BTC's checked daily bars, or None.
    """

    def __init__(self, days: pl.DataFrame, reference: pl.DataFrame | None) -> None:
        grid = BarGrid.place(days, DAY, pad=_PAD)
        self._rows = grid.slot - 1  # the day before
        self._close = grid.spread(days["close"])
        self._corrections = np.nan_to_num(grid.spread(days["corrections"]))
        bars = reference if reference is not None else _NO_REFERENCE
        self._reference = Reference.on(days, grid, bars)
        self._first = self._first_close()
        self._features = self._compute()

    def _first_close(self) -> IntArray:
        window = self._rows[:, None] - np.arange(_CLOSES)[::-1][None, :]
        present = ~np.isnan(self._close[window])
        first = np.where(present.any(axis=1), np.argmax(present, axis=1), _CLOSES)
        return self._rows - _CLOSES + 1 + first

    def _own(self, flat: FloatArray, lacking: BoolArray, width: int) -> Values:
        rows = self._rows
        return judge(flat[rows], lacking[rows], rows - width + 1 < self._first, Reason.FLAT)

    def _against(self, own: Values, unknown_reference: BoolArray) -> Values:
        """Values that need BTC as well: NULL for that reason only where the series itself would have allowed it."""
        unknown = unknown_reference[self._rows] & (own.reasons == Reason.NONE)
        reasons = np.where(unknown, Reason.NO_REFERENCE, own.reasons).astype(np.uint8)
        return Values(np.where(reasons == Reason.NONE, own.values, np.nan), reasons)

    def _of_reference(self, flat: FloatArray, lacking: BoolArray) -> Values:
        values = flat[self._rows]
        early = np.zeros(len(values), np.bool_)
        judged = judge(values, lacking[self._rows], early, Reason.NO_REFERENCE)
        return Values(judged.values, np.where(judged.reasons > 0, Reason.NO_REFERENCE, 0).astype(np.uint8))

    def _compute(self) -> dict[str, Values]:
        close, btc = self._close, self._reference.close
        return {
            **{f"vol_{n}d": self._own(_volatility(close, n), _short(close, n), n) for n in (7, 30)},
            "btc_ret_1d": self._of_reference(_change(btc, 1), np.isnan(btc)),
            **{f"btc_vol_{n}d": self._of_reference(_volatility(btc, n), _short(btc, n)) for n in (7, 30)},
            **{f"rel_btc_{n}d": self._relative(n) for n in (7, 30)},
            "corr_btc_30d": self._correlated(30),
        }

    def _relative(self, days: int) -> Values:
        own, btc = _change(self._close, days), _change(self._reference.close, days)
        judged = self._own(own - np.nan_to_num(btc), np.isnan(own), days + 1)
        return self._against(judged, np.isnan(btc))

    def _correlated(self, days: int) -> Values:
        own, btc = _returns(self._close), _returns(self._reference.close)
        correlation, pairs = _correlation(own, btc, days)
        few = pairs < _PAIRS
        judged = self._own(np.where(few, 0.0, correlation), window_count(own, days) < _PAIRS, days)
        return self._against(judged, few)

    def fill(self, table: FeatureTable, days: IntArray, day_of_row: IntArray, known_us: IntArray) -> None:
        """Put the features of rows into a table, without what the rows could not know yet.

        Args:
            table: where.
            days: positions of the days of the rows.
            day_of_row: which of those days each row is in.
            known_us: for each row, when it is known, microseconds since 1970.
        """
        for name, values in self._features.items():
            table.put_by_day(name, Values(values.values[days], values.reasons[days]), day_of_row)
        newest_us = self._reference.available_us[self._rows[days]]  # of the BTC bars that each day may use
        unseen = newest_us[day_of_row] > known_us
        if unseen.any():
            for name in _OF_REFERENCE:
                table.withhold(name, unseen, Reason.NO_REFERENCE)

    def corrections(self, *, but_last: int) -> IntArray:
        """For each day, corrections of its daily closes, all but the newest ones, and of BTC's bars."""
        old = lag(window_sum(self._corrections, _CLOSES - but_last), but_last, 0.0)
        reference = window_sum(self._reference.corrections, _CLOSES)
        return (old + reference)[self._rows].astype(np.int64)


_NO_REFERENCE: Final = pl.DataFrame(
    schema={
        "ts": pl.Datetime("us", "UTC"),
        "close": pl.Float64,
        "available_at": pl.Datetime("us", "UTC"),
        "revision": pl.Int64,
    }
)
