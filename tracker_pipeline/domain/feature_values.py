"""When a feature has a value, and how many digits of it.

What belongs here: rules that all formulas share. What does not: formulas.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from tracker_pipeline.domain.windows import BoolArray, FloatArray

CodeArray = npt.NDArray[np.uint8]
WordArray = npt.NDArray[np.uint64]

# Reasons of a row are digits of whole numbers: rows are compared number by number instead of feature by feature.
BITS: Final = 4
PER_WORD: Final = 64 // BITS

# A value keeps 33 significant bits, which is 6e-11 of it and more than any indicator means. The 20 bits below are
# noise of the arithmetic, which does not compress: they would be half of the stored bytes.
ROUNDING: Final = 2.0**20 + 1.0


def rounded(values: FloatArray) -> FloatArray:
    """The nearest numbers of 33 significant bits (Veltkamp's splitting)."""
    scaled = values * ROUNDING
    return scaled - (scaled - values)


class Reason(IntEnum):
    """Why a feature has no value."""

    NONE = 0
    WARMUP = 1
    GAP = 2
    FLAT = 3
    ZERO_VOLUME = 4
    NO_REFERENCE = 5
    NO_FINE_BARS = 6
    NO_REGIME = 7
    NO_TIER = 8


REASON_MEANINGS: Final = {
    Reason.WARMUP: "history starts inside the window",
    Reason.GAP: "bars of the window are missing",
    Reason.FLAT: "nothing moved, so a position within the range has no meaning",
    Reason.ZERO_VOLUME: "nothing was traded in the window",
    Reason.NO_REFERENCE: "BTC's bars of the window are missing, or were known later than the bar",
    Reason.NO_FINE_BARS: "there is no 5m bar to compare with",
    Reason.NO_REGIME: "the market was not judged at the bar, or later than it was known",
    Reason.NO_TIER: "the coin is not in the universe",
}


@dataclass(frozen=True)
class Rule:
    """Which 15m bars must exist for a feature to have a value.

    Attributes:
        bars: length of its window; of a change, the bars that it spans.
        is_change: whether both ends must exist and nothing between; else 90 % of the window.
        prior: whether the window ends with the bar before the row's.
        of_returns: whether the window is one of changes from bar to bar, which reach one bar further back.
        undefined: why it has no value where its bars exist.
    """

    bars: int
    is_change: bool = False
    prior: bool = False
    of_returns: bool = False
    undefined: Reason = Reason.GAP

    @property
    def reach(self) -> int:
        """Bars from the first one that enters the value to the row's own, both counted."""
        return self.bars + int(self.is_change or self.prior or self.of_returns)


@dataclass(frozen=True)
class Values:
    """One feature of some rows or days: values, NaN where `reasons` is not `Reason.NONE`."""

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
