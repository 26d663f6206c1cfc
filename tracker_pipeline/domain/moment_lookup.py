"""Rows look up figures of other series by time, compiled.

What belongs here: the look-up. What does not: which figures, and who looks at which series
(`feature_surroundings.py`).
"""

import numpy as np

from tracker_pipeline.domain.compiling import compiled
from tracker_pipeline.domain.windows import FloatArray, IntArray

# Times of the bars, figures, revisions, and since when each is known; times ascend within a series.
Lines = tuple[IntArray, FloatArray, IntArray, IntArray]


@compiled
def first_from(ascending: IntArray, low: int, high: int, bound: int) -> int:
    """Index of the first of the elements [low, high) that is at least the bound, or `high`.

    NumPy's search takes seconds to compile.
    """
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] >= bound:
            high = middle
        else:
            low = middle + 1
    return low


@compiled
def look_up(
    lines: Lines,
    groups: IntArray,
    ts_us: IntArray,
    ahead_us: int,
    known_us: IntArray,
    values: FloatArray,
    corrections: IntArray,
) -> None:
    """Store for each row the figure of a moment, NaN where it was known later than the row, and add its corrections.

    Both sides ascend, so one pass over them finds everything.

    Args:
        lines: where to look.
        groups: first and end of the rows of each group, first and end of the figures that it looks at; (groups, 4).
        ts_us: time of each row, microseconds since 1970, ascending within a group.
        ahead_us: from a row's time to the moment, microseconds.
        known_us: when each row is known, microseconds since 1970.
        values: where the figures go.
        corrections: what revisions beyond the first are added to.
    """
    times, figures, revisions, since_us = lines
    for group in range(len(groups)):
        first, last, place, end = groups[group]
        for row in range(first, last):
            moment = ts_us[row] + ahead_us
            if row == first:
                place = first_from(times, place, end, moment)
            while place < end and times[place] < moment:
                place += 1
            values[row] = np.nan
            if place < end and times[place] == moment:
                corrections[row] += revisions[place] - 1
                if since_us[place] <= known_us[row]:
                    values[row] = figures[place]
