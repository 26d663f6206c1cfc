"""Which bar first touches a barrier.

What belongs here: the search. What does not: what a touch means and the order of events inside a bar
(`barrier_trades.py`).

A walk looks at every bar until the touch, so it takes as long as trades do. Here the extremes of 1, 2, 4, ... bars
are tabulated once for a series, and a search skips blocks that hold no touch, longer and longer ones and then shorter
and shorter ones: as many looks as the way to the touch has binary digits, twice. `benchmarks/labels.py` measures it.
"""

import numpy as np

from tracker_pipeline.domain.compiling import compiled
from tracker_pipeline.domain.windows import FloatArray


def tables(values: FloatArray, longest: int, combine: np.ufunc) -> FloatArray:
    """Extremes of 1, 2, 4, ... bars from each bar on, one row per length; towards the end, of those that there are.

    Args:
        values: highs or lows in order of time.
        longest: bars of the longest trade.
        combine: `np.maximum` or `np.minimum`.
    """
    levels = max(1, min(longest, len(values)).bit_length())
    table = np.empty((levels, len(values)))
    table[0] = values
    for level in range(1, levels):
        size = 1 << (level - 1)
        combine(table[level - 1, :-size], table[level - 1, size:], out=table[level, :-size])
        table[level, -size:] = table[level - 1, -size:]
    return table


@compiled
def touch(
    highest: FloatArray, lowest: FloatArray, start: int, end: int, lower: float, upper: float
) -> tuple[int, float, float]:
    """Search bars [start, end) for low <= lower or high >= upper.

    Args:
        highest: `tables` of the highs.
        lowest: `tables` of the lows.
        start: first bar.
        end: first bar that is not searched.
        lower: lower barrier, -inf for none.
        upper: upper barrier, inf for none.

    Returns:
        The first bar that touches either barrier, `end` where none does; the highest and the lowest price of the
        bars before it, -inf and inf where there are none.
    """
    position, level, step = start, 0, 1
    top, bottom = -np.inf, np.inf
    while level >= 0:
        size = 1 << level
        if position + size <= end and highest[level, position] < upper and lowest[level, position] > lower:
            top, bottom = max(top, highest[level, position]), min(bottom, lowest[level, position])
            position += size
            if level + step >= len(highest):
                continue
        else:
            step = -1
        level += step
    return position, top, bottom
