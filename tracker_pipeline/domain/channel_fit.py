"""Price channels: two parallel lines around the last 100 closed bars.

What belongs here: fitting lines to windows of bars, and the figures that tell how good a channel is. What does not:
thresholds and trades (`channel.py`).

Everything is done on logarithms of prices, so that a channel is the same at any price scale. The arithmetic of a
window is the same wherever it lies in the input (see `windows.py`), hence so are its figures, byte for byte.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.windows import (
    BoolArray,
    FloatArray,
    IntArray,
    lag,
    ratio,
    window_count,
    window_mean,
)

WINDOW: Final = 100
_HALF: Final = WINDOW // 2
_UPPER: Final = 0.95
_LOWER: Final = 0.05
# A touch is a high (low) within this share of the width of its line.
_TOUCH_FRAC: Final = 0.15
# A slope that moves the channel by less than this share of its width over the window counts as none.
_FLAT_FRAC: Final = 0.20
_STRONG_EPISODES: Final = 10
_AXIS: Final = np.arange(WINDOW) - (WINDOW - 1) / 2  # bars from the middle of the window
_DIRECTIONS: Final = np.array(["DESCENDING", "HORIZONTAL", "ASCENDING"])


@dataclass(frozen=True)
class Lines:
    """The parallel lines of some windows, as logarithms of prices at each window's last bar.

    Attributes:
        slope: change per bar.
        middle: least-squares line through the closes.
        lower: the middle and the 5th percentile of the lows' distance from it.
        upper: the middle and the 95th percentile of the highs' distance from it.
        close: last close.
    """

    slope: FloatArray
    middle: FloatArray
    lower: FloatArray
    upper: FloatArray
    close: FloatArray

    @property
    def position_frac(self) -> FloatArray:
        """Where the last close stands: 0 on the lower line, 1 on the upper one; NaN where they coincide."""
        return ratio(self.close - self.lower, self.upper - self.lower)

    def of(self, wanted: BoolArray) -> "Lines":
        """The lines of the wanted windows."""
        arrays = (self.slope, self.middle, self.lower, self.upper, self.close)
        return Lines(*(values[wanted] for values in arrays))


class Windows:
    """The 100 bars up to any position in flat arrays; those up to a position that is asked for must all exist.

    Args:
        high: highs, NaN where there is no bar.
        low: lows.
        close: closes.
    """

    def __init__(self, high: FloatArray, low: FloatArray, close: FloatArray) -> None:
        self._high, self._low, self._close = (_log(prices) for prices in (high, low, close))
        self._mean, self._slope = _regression(self._close)

    @property
    def complete(self) -> BoolArray:
        """At which positions all 100 bars exist."""
        return window_count(self._high + self._low + self._close, WINDOW) == WINDOW

    def fit(self, ends: IntArray) -> Lines:
        """Fit lines to the windows that end at some positions."""
        mean, slope = self._mean[ends], self._slope[ends]
        middle = mean[:, None] + slope[:, None] * _AXIS
        last = mean + slope * _AXIS[-1]
        upper = _percentile(_cut(self._high, ends) - middle, _UPPER)
        lower = _percentile(_cut(self._low, ends) - middle, _LOWER)
        return Lines(slope, last, last + lower, last + upper, self._close[ends])

    def judge(self, ends: IntArray, lines: Lines) -> pl.DataFrame:
        """Measure the channels of windows: a row of the fields of `Channel` for each.

        Args:
            ends: positions of the windows.
            lines: what `fit` returned for them.
        """
        middle = lines.middle[:, None] + lines.slope[:, None] * (_AXIS - _AXIS[-1])
        high, low, close = (_cut(flat, ends) - middle for flat in (self._high, self._low, self._close))
        upper, lower = ((line - lines.middle)[:, None] for line in (lines.upper, lines.lower))
        width = lines.upper - lines.lower
        near = _TOUCH_FRAC * width[:, None]
        upper_runs, lower_runs = _episodes(np.abs(high - upper) <= near, np.abs(low - lower) <= near)
        inside_frac = np.count_nonzero((close >= lower) & (close <= upper), axis=1) / WINDOW
        half_width_ratio = ratio(
            _spread(high[:, _HALF:], low[:, _HALF:]), _spread(high[:, :_HALF], low[:, :_HALF])
        )
        moves = np.abs(lines.slope) * WINDOW >= _FLAT_FRAC * width
        return pl.DataFrame(
            {
                "direction": _DIRECTIONS[1 + np.where(moves, np.sign(lines.slope), 0).astype(np.int64)],
                "slope_frac": np.expm1(lines.slope),
                "lower": np.exp(lines.lower),
                "upper": np.exp(lines.upper),
                "width_frac": np.expm1(width),
                "position_frac": lines.position_frac,
                "upper_episodes": upper_runs,
                "lower_episodes": lower_runs,
                "half_width_ratio": half_width_ratio,
                "inside_frac": inside_frac,
                "strength": _strength(upper_runs + lower_runs, inside_frac, half_width_ratio),
            },
            schema_overrides={"direction": pl.String},
        )


def _log(prices: FloatArray) -> FloatArray:
    """Logarithms; what is not a positive price is no price."""
    return np.log(np.where(prices > 0, prices, np.nan))


def _cut(flat: FloatArray, ends: IntArray) -> FloatArray:
    if not len(ends):
        return np.empty((0, WINDOW))
    return np.lib.stride_tricks.sliding_window_view(flat, WINDOW)[ends - WINDOW + 1]


def _regression(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and least-squares slope of the last 100 values at every position."""
    mean = window_mean(values, WINDOW)
    products = np.zeros_like(values)
    for steps, offset in enumerate(_AXIS[::-1]):
        products += offset * (lag(values, steps) - mean)
    return mean, products / (_AXIS @ _AXIS)


def _percentile(rows: FloatArray, frac: float) -> FloatArray:
    """The quantile of each row, interpolated between its neighbours."""
    place = frac * (rows.shape[1] - 1)
    below = int(place)
    ordered = np.partition(rows, (below, below + 1), axis=1)
    return ordered[:, below] + (place - below) * (ordered[:, below + 1] - ordered[:, below])


def _spread(high: FloatArray, low: FloatArray) -> FloatArray:
    """Distance of the outer lines of part of a window."""
    return _percentile(high, _UPPER) - _percentile(low, _LOWER)


def _episodes(upper: BoolArray, lower: BoolArray) -> tuple[IntArray, IntArray]:
    """Alternating runs of touches of each side, along each row.

    A bar that touches both sides ends the run of one and starts one of the other; where there was none, both start.
    """
    last = np.zeros(len(upper), np.int64)  # 1: the upper line was touched last, -1: the lower one
    upper_runs, lower_runs = np.zeros_like(last), np.zeros_like(last)
    for up, down in zip(upper.T, lower.T, strict=True):
        rises, falls = up & (last < 1), down & (last > -1)
        upper_runs += rises
        lower_runs += falls
        last = np.where(rises, 1, np.where(falls, -1, last))
    return upper_runs, lower_runs


def _strength(episodes: IntArray, inside_frac: FloatArray, half_width_ratio: FloatArray) -> FloatArray:
    """From 0 to 1: episodes .3, closes inside .5, a width that stays .2."""
    with np.errstate(divide="ignore"):
        steady = np.maximum(0.0, 1.0 - np.abs(np.log(half_width_ratio)))
    return 0.3 * np.minimum(1.0, episodes / _STRONG_EPISODES) + 0.5 * inside_frac + 0.2 * steady


@dataclass(frozen=True)
class Channel:
    """The channel of one window; prices at its last bar.

    Attributes:
        direction: HORIZONTAL, ASCENDING or DESCENDING.
        slope_frac: change of the lines per bar, as a fraction of the price.
        lower: lower line.
        upper: upper line.
        width_frac: upper line above the lower one, as a fraction.
        position_frac: 0 where the close is on the lower line, 1 on the upper one; NaN where they coincide.
        upper_episodes: runs of touches of the upper line, without a touch of the lower one in between.
        lower_episodes: the same of the lower line.
        half_width_ratio: width over the second half of the window / over the first; far from 1 it is a wedge.
        inside_frac: share of closes between the lines.
        strength: 0 to 1: episodes .3, closes inside .5, a width that stays .2.
    """

    direction: str
    slope_frac: float
    lower: float
    upper: float
    width_frac: float
    position_frac: float
    upper_episodes: int
    lower_episodes: int
    half_width_ratio: float
    inside_frac: float
    strength: float
