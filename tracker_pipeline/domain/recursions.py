"""Recursive indicators, one independent series per column, time along axis 0, NaN where there is no bar.

What belongs here: formulas whose state outlives any window. What does not: where the state starts (`DayLanes`), and
formulas over windows (`windows.py`).
"""

import numpy as np

from tracker_pipeline.domain.windows import FloatArray, ratio, smooth


def _before(values: FloatArray) -> FloatArray:
    return np.vstack([np.full((1, values.shape[1]), np.nan), values[:-1]])


def gains_and_losses(close: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Upward and downward change of each bar, both positive.

    Averages of them start from 0 at a column's first bar; a change across a hole is not known, and leaves them as
    they were.
    """
    change = close - _before(close)
    first = (np.cumsum(~np.isnan(close), axis=0) == 1) & ~np.isnan(close)
    change = np.where(first, 0.0, change)
    return np.maximum(change, 0.0), np.maximum(-change, 0.0)


def relative_strength(gain: FloatArray, loss: FloatArray, length: int) -> FloatArray:
    """Wilder's RSI: 100 * gain / (gain + loss) of the averages; 50 where nothing moved."""
    up, down = smooth(gain, 1 / length), smooth(loss, 1 / length)
    moved = up + down
    return np.where(moved == 0, 50.0, 100.0 * ratio(up, moved))


def average_true_range(high: FloatArray, low: FloatArray, close: FloatArray, length: int) -> FloatArray:
    """Wilder's ATR, in the unit of the prices."""
    before = _before(close)
    true_range = np.fmax(high - low, np.fmax(np.abs(high - before), np.abs(low - before)))
    return smooth(true_range, 1 / length)


def macd_lines(close: FloatArray) -> tuple[FloatArray, FloatArray]:
    """MACD 12/26 and its signal line 9."""
    macd = smooth(close, 2 / 13) - smooth(close, 2 / 27)
    macd = np.where(np.isnan(close), np.nan, macd)
    return macd, smooth(macd, 2 / 10)
