"""Sums over windows of days, compiled.

What belongs here: loops over windows of whole days that NumPy would make a dozen passes for. What does not: features
(`feature_context.py`).
"""

import numpy as np

from tracker_pipeline.domain.compiling import compiled
from tracker_pipeline.domain.windows import FloatArray


@compiled
def window_products(
    left: FloatArray, left_mean: FloatArray, right: FloatArray, right_mean: FloatArray, width: int
) -> FloatArray:
    """Sums of products of the distances of the last `width` pairs from the means at their end, absent ones left out.

    Added up from the newest pair on, wherever the window lies.
    """
    sums = np.zeros(len(left))
    for steps in range(width):
        for end in range(steps, len(left)):
            product = (left[end - steps] - left_mean[end]) * (right[end - steps] - right_mean[end])
            sums[end] += 0.0 if np.isnan(product) else product
    return sums
