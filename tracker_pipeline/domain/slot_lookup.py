"""Rows look up figures of other series by slot of 15m, compiled.

What belongs here: the look-up. What does not: how figures are laid out by slot, and for whom
(`feature_surroundings.py`).
"""

import numpy as np

from tracker_pipeline.domain.compiling import compiled
from tracker_pipeline.domain.windows import FloatArray, IntArray

# First slot, figures, corrections, and since when each is known; the last place stands for all other slots.
Line = tuple[int, FloatArray, IntArray, IntArray]


@compiled
def look_up(
    line: Line, slots: IntArray, known_us: IntArray, values: FloatArray, corrections: IntArray
) -> None:
    """Store for each row the figure at its slot, NaN where it was known later than the row, and add its corrections.

    One pass over the rows: the same by way of NumPy's index arrays takes five times as long.

    Args:
        line: where to look.
        slots: slot of each row.
        known_us: when each row is known, microseconds since 1970.
        values: where the figures go.
        corrections: what corrections are added to.
    """
    first, figures, corrected, since_us = line
    outside = len(figures) - 1
    for row in range(len(slots)):
        place = slots[row] - first
        if place < 0 or place >= outside:
            place = outside
        values[row] = np.nan if since_us[place] > known_us[row] else figures[place]
        corrections[row] += corrected[place]
