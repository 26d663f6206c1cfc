"""Window and recursion kernels whose result at a position depends on that window's values and nothing else.

What belongs here: arithmetic over arrays in which NaN is an absent value. What does not: bars, names of features.

Rolling functions of data-frame libraries add the newest value and subtract the oldest, so their round-off depends
on where the series starts. Here every window is summed in the same order wherever it lies, so a row is the same,
byte for byte, whether it was computed from a year of history or from the shortest history that covers it.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Number = TypeVar("Number", np.float64, np.int64)


def read_only(values: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """A view that is of one type, to a compiler, whether Polars or NumPy owns the memory."""
    view = values.view()
    view.flags.writeable = False
    return view


def lag(values: FloatArray, steps: int, fill: float = np.nan) -> FloatArray:
    """Return the array whose element i is `values[i - steps]`, or `fill` before the start."""
    if steps == 0:
        return values
    lagged = np.full_like(values, fill)
    lagged[steps:] = values[:-steps]
    return lagged


def _fold(
    values: FloatArray, width: int, combine: Callable[[FloatArray, FloatArray], FloatArray], empty: float
) -> FloatArray:
    """Combine the last `width` values at every position from blocks of 1, 2, 4, ... values.

    log2(width) passes instead of width, and one fixed order of operations for every window.
    """
    total: FloatArray | None = None
    covered, block, size = 0, values, 1
    while covered < width:
        if width & size:
            part = lag(block, covered, empty)
            total = part if total is None else combine(total, part)
            covered += size
        block, size = combine(block, lag(block, size, empty)), 2 * size
    return values if total is None else total


def window_sum(values: FloatArray, width: int) -> FloatArray:
    """Sum of the present values among the last `width`; 0 where none is present."""
    return _fold(np.where(np.isnan(values), 0.0, values), width, np.add, 0.0)


def window_max(values: FloatArray, width: int) -> FloatArray:
    """Largest of the present values among the last `width`; NaN where none is present."""
    return _fold(values, width, np.fmax, np.nan)


def window_min(values: FloatArray, width: int) -> FloatArray:
    """Smallest of the present values among the last `width`; NaN where none is present."""
    return _fold(values, width, np.fmin, np.nan)


def window_count(values: FloatArray, width: int) -> FloatArray:
    """How many of the last `width` values are present."""
    return _fold((~np.isnan(values)).astype(np.float64), width, np.add, 0.0)


def window_mean(values: FloatArray, width: int) -> FloatArray:
    """Mean of the present values among the last `width`; NaN where none is present."""
    return ratio(window_sum(values, width), window_count(values, width))


def window_std(values: FloatArray, width: int, *, ddof: int) -> FloatArray:
    """Standard deviation of the present values among the last `width`, NaN where at most `ddof` are present.

    Two passes: the textbook difference of sums of squares loses all digits where the spread is 1e-8 of the level,
    which is what a pegged coin looks like.
    """
    mean = window_mean(values, width)
    squares = np.zeros_like(values)
    for steps in range(width):
        deviation = lag(values, steps) - mean
        squares += np.where(np.isnan(deviation), 0.0, deviation * deviation)
    freedom = window_count(values, width) - ddof
    return np.sqrt(ratio(squares, np.where(freedom > 0, freedom, 0.0)))


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient, NaN where the denominator is 0 or anything is absent."""
    quotient = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def smooth(steps: FloatArray, alpha: float) -> FloatArray:
    """Exponential smoothing along the first axis, one independent series per column.

    The first present value starts a series (pandas: `ewm(alpha, adjust=False)`); an absent value leaves the state
    as it was.

    Args:
        steps: values, time along axis 0, NaN where absent.
        alpha: weight of the newest value: 2 / (span + 1) for an EMA, 1 / n for Wilder's average.

    Returns:
        The state after each step, NaN until the first present value.
    """
    smoothed = np.empty_like(steps)
    state = np.full(steps.shape[1], np.nan)
    for number, value in enumerate(steps):
        moved = (1.0 - alpha) * state + alpha * value
        moved = np.where(np.isnan(state), value, moved)
        state = np.where(np.isnan(value), state, moved)
        smoothed[number] = state
    return smoothed
