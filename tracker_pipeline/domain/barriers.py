"""Which bar first touches a barrier, for many trades at once.

What belongs here: the search. What does not: what a touch means, the order of events inside a bar (`trade.py` and
its users), costs.

A scan looks at every bar until the touch, so it takes as long as the trades do. Here the extremes of 1, 2, 4, ...
bars are tabulated once for a series, and each trade skips blocks that hold no touch, the longest first: as many looks
as the horizon has binary digits, whatever the barriers. At 1.55 M trades a horizon of 1,440 bars instead of 96 costs
11 looks instead of 7. `benchmarks/labels.py` measures it.
"""

from dataclasses import dataclass

import numpy as np

from tracker_pipeline.domain.windows import BoolArray, FloatArray, IntArray

# Trades searched together: half a year of one series at once is faster by a tenth than chunks that fit L2.
_AT_ONCE = 32768


@dataclass(frozen=True)
class Touches:
    """The first bar that touches either barrier of each trade.

    Attributes:
        index: the bar; `end` of the trade where there is none.
        stopped: whether it touches the lower barrier.
        reached: whether it touches the upper one. Where both are touched, only finer bars tell which came first.
    """

    index: IntArray
    stopped: BoolArray
    reached: BoolArray


class Barriers:
    """The bars of one series, prepared for trades of up to some length.

    Args:
        high: highs of the bars in order of time.
        low: lows.
        longest: bars of the longest trade.
    """

    def __init__(self, high: FloatArray, low: FloatArray, longest: int) -> None:
        levels = max(1, min(longest, len(high)).bit_length())
        # A sentinel beyond the last bar: a trade that has come to its end there touches nothing.
        self._highest = [np.append(high, -np.inf)]
        self._lowest = [np.append(low, np.inf)]
        for level in range(levels - 1):
            self._highest.append(_doubled(self._highest[level], 1 << level, np.maximum))
            self._lowest.append(_doubled(self._lowest[level], 1 << level, np.minimum))
        self._longest = (1 << levels) - 1

    def first_touches(self, start: IntArray, end: IntArray, lower: FloatArray, upper: FloatArray) -> Touches:
        """Search bars [start, end) of each trade for low <= lower or high >= upper.

        Args:
            start: first bar of each trade.
            end: first bar that is not searched; at most the number of bars.
            lower: lower barrier, -inf for none.
            upper: upper barrier, inf for none.

        Raises:
            ValueError: a trade is longer than `longest`, or ends beyond the bars.
        """
        if len(start) and ((end - start).max() > self._longest or end.max() >= len(self._highest[0])):
            raise ValueError("a trade is longer than these tables or the bars")
        index = start.astype(np.int64)
        stopped, reached = np.empty(len(start), np.bool_), np.empty(len(start), np.bool_)
        for first in range(0, len(start), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            self._search(index[part], end[part], lower[part], upper[part], stopped[part], reached[part])
        return Touches(index, stopped, reached)

    def _search(
        self,
        position: IntArray,
        end: IntArray,
        lower: FloatArray,
        upper: FloatArray,
        stopped: BoolArray,
        reached: BoolArray,
    ) -> None:
        """Move positions from the start of trades to their touch or end, and tell what is touched there."""
        extreme, number = np.empty(len(position)), np.empty_like(position)
        inside = np.empty(len(position), np.bool_)
        for level in reversed(range(len(self._highest))):
            size = 1 << level
            # "clip" does not clip anything here; it lets `take` write without a copy in between.
            np.less(self._highest[level].take(position, out=extreme, mode="clip"), upper, out=reached)
            np.greater(self._lowest[level].take(position, out=extreme, mode="clip"), lower, out=stopped)
            np.less_equal(position, np.subtract(end, size, out=number), out=inside)
            inside &= reached
            inside &= stopped
            position += np.multiply(inside, size, out=number)
        np.less(position, end, out=inside)
        np.greater_equal(self._highest[0].take(position, out=extreme, mode="clip"), upper, out=reached)
        np.less_equal(self._lowest[0].take(position, out=extreme, mode="clip"), lower, out=stopped)
        reached &= inside
        stopped &= inside


def _doubled(extremes: FloatArray, size: int, combine: np.ufunc) -> FloatArray:
    """Extremes of twice as many bars; towards the end, of those that there are."""
    doubled = np.empty_like(extremes)
    combine(extremes[:-size], extremes[size:], out=doubled[:-size])
    doubled[-size:] = extremes[-size:]
    return doubled
