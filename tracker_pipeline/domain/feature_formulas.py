"""Formulas of the features that come from a series' own 15m bars.

What belongs here: one expression per feature over a `BarGrid`, and whether its window holds enough bars. What does
not: features of daily closes (`feature_context.py`), frames and their checks (`features.py`).
"""

import math
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracker_pipeline.domain.bar_grid import BarGrid, DayLanes
from tracker_pipeline.domain.recursions import (
    average_true_range,
    gains_and_losses,
    macd_lines,
    relative_strength,
)
from tracker_pipeline.domain.windows import (
    BoolArray,
    FloatArray,
    IntArray,
    lag,
    ratio,
    window_count,
    window_max,
    window_mean,
    window_min,
    window_std,
    window_sum,
)

CodeArray = npt.NDArray[np.uint8]

_BARS_PER_DAY: Final = 96
# Recursions of all bars of one UTC day start at the same bar, this long before the day. What the start leaves in
# Wilder's slowest average by then is (29/30)^672 = 1e-10 of it: below the last digit of any price.
BURN_IN: Final = timedelta(days=7)
BURN_IN_BARS: Final = 7 * _BARS_PER_DAY
# Bars of 15m in a year of 365 days.
_BARS_PER_YEAR: Final = 365 * _BARS_PER_DAY


class Reason(IntEnum):
    """Why a feature has no value."""

    NONE = 0
    WARMUP = 1
    GAP = 2
    FLAT = 3
    ZERO_VOLUME = 4
    NO_REFERENCE = 5


@dataclass(frozen=True)
class Values:
    """One feature of the wanted rows: values, NaN where `reasons` is not `Reason.NONE`."""

    values: FloatArray
    reasons: CodeArray


def needed(width: int) -> int:
    """Bars that must exist in a window of `width`: 90 %, rounded up."""
    return (9 * width + 9) // 10


def judge(values: FloatArray, lacking: BoolArray, early: BoolArray, undefined: Reason) -> Values:
    """Attach reasons to values.

    Args:
        values: computed values, NaN or infinite where undefined.
        lacking: where the window does not hold enough bars.
        early: where the window starts before the history does.
        undefined: why a value is undefined although its bars exist.
    """
    reasons = np.where(~np.isfinite(values), undefined, Reason.NONE)
    reasons = np.where(lacking, np.where(early, Reason.WARMUP, Reason.GAP), reasons)
    return Values(np.where(reasons == Reason.NONE, values, np.nan), reasons.astype(np.uint8))


def _recursions(close: FloatArray, high: FloatArray, low: FloatArray) -> dict[str, FloatArray]:
    """The recursive indicators of one group of lanes, time along axis 0."""
    gain, loss = gains_and_losses(close)
    macd, signal = macd_lines(close)
    return {
        "rsi_14": relative_strength(gain, loss, 14),
        "rsi_30": relative_strength(gain, loss, 30),
        "macd": macd,
        "macd_signal": signal,
        "macd_diff": macd - signal,
        "atr_14": 100.0 * average_true_range(high, low, close, 14) / close,
    }


_RECURSION_LENGTH: Final = {
    "rsi_14": 14,
    "rsi_30": 30,
    "macd": 26,
    "macd_signal": 26,
    "macd_diff": 26,
    "atr_14": 14,
}


class BarFeatures:
    """Computes the features of the wanted rows of a grid of 15m bars.

    Args:
        grid: 15m bars, padded by at least `BURN_IN_BARS`.
        bars: the frame the grid was placed from.
        wanted: which of its rows are to have features.
    """

    def __init__(self, grid: BarGrid, bars: pl.DataFrame, wanted: BoolArray) -> None:
        self._close = grid.spread(bars["close"])
        self._high = grid.spread(bars["high"])
        self._low = grid.spread(bars["low"])
        self._volume = grid.spread(bars["volume"])
        self._rows = grid.slot[wanted]
        self._lanes = DayLanes.of(grid, wanted, burn_in=BURN_IN_BARS)
        self._first = self._first_bar()
        self._counts: dict[int, FloatArray] = {}

    def _first_bar(self) -> IntArray:
        """For each row, the position of the first bar of its lane: what lies before is warm-up, not a gap."""
        first = [
            group[0] + np.argmax(~np.isnan(self._close[group]), axis=0) for group in self._lanes.groups()
        ]
        return np.concatenate(first)[self._lanes.row]

    def _windowed(
        self, flat: FloatArray, width: int, undefined: Reason = Reason.GAP, *, prior: bool = False
    ) -> Values:
        """Values over the last `width` bars, or over the `width` bars before the row where `prior`."""
        rows = self._rows - int(prior)
        if width not in self._counts:
            self._counts[width] = window_count(self._close, width)
        lacking = self._counts[width][rows] < needed(width)
        return judge(flat[self._rows], lacking, rows - width + 1 < self._first, undefined)

    def _change(self, bars: int) -> Values:
        """Change over `bars`, both ends of which must exist; found by time, so a hole is never stepped over."""
        values = (100.0 * (ratio(self._close, lag(self._close, bars)) - 1.0))[self._rows]
        return judge(values, np.isnan(values), self._rows - bars < self._first, Reason.GAP)

    def compute(self) -> dict[str, Values]:
        """All features of this module, by name."""
        return {
            **self._changes(),
            **self._recursive(),
            **self._bands(),
            **self._extremes(),
            **self._volatility(),
            **self._volumes(),
        }

    def _changes(self) -> dict[str, Values]:
        spans = {"ret_15m": 1, "ret_1h": 4, "ret_4h": 16, "ret_24h": 96, "roc_12": 12}
        return {name: self._change(bars) for name, bars in spans.items()}

    def _recursive(self) -> dict[str, Values]:
        flat = {name: np.full(len(self._close), np.nan) for name in _RECURSION_LENGTH}
        for group in self._lanes.groups():
            result = _recursions(self._close[group], self._high[group], self._low[group])
            for name, values in result.items():
                flat[name][group[BURN_IN_BARS:]] = values[BURN_IN_BARS:]
        return {name: self._windowed(flat[name], 10 * length) for name, length in _RECURSION_LENGTH.items()}

    def _bands(self) -> dict[str, Values]:
        close = self._close
        middle, deviation = window_mean(close, 20), window_std(close, 20, ddof=0)
        # Round-off of the mean leaves a tiny deviation where all closes are equal; a flat window has none.
        deviation = np.where(window_max(close, 20) == window_min(close, 20), 0.0, deviation)
        return {
            "bb_width": self._windowed(ratio(4.0 * deviation, middle), 20),
            "bb_position": self._windowed(0.5 + ratio(close - middle, 4.0 * deviation), 20, Reason.FLAT),
            "dist_sma20": self._windowed(100.0 * (ratio(close, middle) - 1.0), 20),
            "dist_sma50": self._windowed(100.0 * (ratio(close, window_mean(close, 50)) - 1.0), 50),
        }

    def _extremes(self) -> dict[str, Values]:
        close = self._close
        resistance = lag(window_max(self._high, 20), 1)
        low_14 = window_min(self._low, 14)
        stochastic = 100.0 * ratio(close - low_14, window_max(self._high, 14) - low_14)
        return {
            "dist_support": self._windowed(100.0 * (ratio(close, window_min(self._low, 20)) - 1.0), 20),
            "dist_resistance": self._windowed(100.0 * (ratio(close, resistance) - 1.0), 20, prior=True),
            "stoch_k": self._windowed(stochastic, 14, Reason.FLAT),
        }

    def _volatility(self) -> dict[str, Values]:
        returns = ratio(self._close, lag(self._close, 1)) - 1.0
        scale = 100.0 * math.sqrt(_BARS_PER_YEAR)
        return {
            "vol_4h": self._windowed(scale * window_std(returns, 16, ddof=1), 16),
            "vol_24h": self._windowed(scale * window_std(returns, 96, ddof=1), 96),
        }

    def _volumes(self) -> dict[str, Values]:
        volume = self._volume
        change = self._close - lag(self._close, 1)
        # A bar after a hole has no known direction, so its volume counts on neither side of the quotient.
        directed = np.where(np.isnan(change), np.nan, volume)
        flow = ratio(window_sum(np.sign(change) * volume, 96), window_sum(directed, 96))
        before = lag(window_mean(volume, 96), 1)
        zero = Reason.ZERO_VOLUME
        return {
            "volume_ratio": self._windowed(ratio(volume, before), 96, zero, prior=True),
            "volume_sma_ratio": self._windowed(ratio(volume, window_mean(volume, 20)), 20, zero),
            "flow_24h": self._windowed(flow, 96, zero),
        }
