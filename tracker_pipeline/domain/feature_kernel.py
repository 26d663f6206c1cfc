"""Features of 15m bars, compiled: one UTC day of a series at a time.

What belongs here: going through the days, and which row lacks what. What does not: the arithmetic
(`feature_windows.py`, `feature_formulas.py`), which rows are wanted (`feature_days.py`), frames (`features.py`).
"""

from typing import Final

import numpy as np

from tracker_pipeline.domain.compiling import compiled
from tracker_pipeline.domain.feature_catalogue import CATALOGUE
from tracker_pipeline.domain.feature_days import BURN_IN_DAYS, SLOTS
from tracker_pipeline.domain.feature_formulas import all_formulas
from tracker_pipeline.domain.feature_values import BITS, PER_WORD, ROUNDING, Reason, WordArray
from tracker_pipeline.domain.feature_windows import (
    COLUMNS,
    ENDS,
    FIGURES,
    LEVELS,
    STATES,
    Bars,
    lay_out,
    recursions,
    windows,
)
from tracker_pipeline.domain.moment_lookup import first_from
from tracker_pipeline.domain.windows import FloatArray, IntArray

Day = tuple[int, int, int, int, bool]
Target = tuple[FloatArray, WordArray]  # features by row, and the reasons why some are missing

_NONE, _WARMUP, _GAP = int(Reason.NONE), int(Reason.WARMUP), int(Reason.GAP)
# For each feature of 15m bars: the slots of its window, or minus the slots of a change, both ends of which must
# exist; 1 where the window ends before the row; and the reason where no value is defined.
_RULES: Final = np.array(
    [
        (-rule.bars if rule.is_change else rule.bars, int(rule.prior), int(rule.undefined))
        for feature in CATALOGUE
        if (rule := feature.rule)
    ]
)
_LONGEST: Final = int(_RULES[:, 0].max())


@compiled
def _lacks(slot: IntArray, first: int, last: int, end: int, width: int) -> int:
    """What the `width` slots up to slot `end` lack: bars, or history for them.

    Args:
        slot: slots of the bars.
        first: index of the first bar of the day's burn-in.
        last: index of the last bar up to `end`.
        end: last slot of the window.
        width: slots of the window.
    """
    start = last - width + 1
    if start >= first and slot[start] == end - width + 1:
        return _NONE
    present = last + 1 - first_from(slot, first, last + 1, end - width + 1)
    if present >= (9 * width + 9) // 10:  # `needed`, which is not compiled
        return _NONE
    return _WARMUP if end - width + 1 < slot[first] else _GAP


@compiled
def _reason(feature: int, value: float, slot: IntArray, first: int, bar: int) -> int:
    """Why a feature has no value at a bar."""
    width, prior, undefined = _RULES[feature]
    if width < 0:
        if np.isfinite(value):
            return _NONE
        return _WARMUP if slot[bar] + width < slot[first] else _GAP
    lacks = _lacks(slot, first, bar - prior, slot[bar] - prior, width)
    return lacks if lacks != _NONE or np.isfinite(value) else undefined


@compiled
def _round_all(values: FloatArray, out: FloatArray) -> bool:
    """Store values rounded; whether all of them are finite."""
    odd = 0
    for place in range(len(out)):
        value = values[place]
        odd |= value - value != 0.0  # not isfinite, in a form that the compiler makes vectors of
        scaled = value * ROUNDING
        out[place] = scaled - (scaled - value)
    return odd == 0


@compiled
def _store(day: Day, slot: IntArray, values: FloatArray, target: Target) -> None:
    """Store the values of all features at the wanted bars of a day, or why there are none.

    Args:
        day: first bar of the burn-in, first wanted bar, end of the wanted bars, row of the first, and whether no bar
            is absent from the first to the last and all windows of the first wanted one are full.
        slot: slots of the bars.
        values: by feature and slot of the day.
        target: where to.
    """
    _, low, end, row, whole = day
    out, _ = target
    begin = slot[low] % SLOTS
    for feature in range(len(_RULES)):
        if not (whole and _round_all(values[feature, begin:], out[feature, row : row + end - low])):
            _store_each(feature, day, slot, values[feature], target)


@compiled
def _store_each(feature: int, day: Day, slot: IntArray, values: FloatArray, target: Target) -> None:
    """Store the values of a feature bar by bar, where some may lack a reason."""
    first, low, end, row, _ = day
    out, words = target
    for bar in range(low, end):
        value, place = values[slot[bar] % SLOTS], row + bar - low
        reason = _reason(feature, value, slot, first, bar)
        scaled = value * ROUNDING
        out[feature, place] = scaled - (scaled - value) if reason == _NONE else np.nan
        words[feature // PER_WORD, place] |= np.uint64(reason) << np.uint64(BITS * (feature % PER_WORD))


@compiled
def fill_days(
    days: IntArray, start: IntArray, low: IntArray, row: IntArray, slot: IntArray, bars: Bars, target: Target
) -> None:
    """Compute the features of the wanted bars of some days.

    Args:
        days: the days.
        start: index of the first bar of each day, and one more for the end.
        low: index of the first wanted bar of each day.
        row: row of the first wanted bar of each day, and one more for the end.
        slot: slot of each bar.
        bars: columns of the bars.
        target: features by row, and their reasons.
    """
    flat, at = np.zeros((COLUMNS, 2 * SLOTS)), np.zeros((FIGURES, ENDS))
    blocks, values = np.zeros((LEVELS, 2 * SLOTS)), np.zeros((len(_RULES), SLOTS))
    states = np.zeros((STATES, SLOTS))
    for day in days:
        zero, first, end = day * SLOTS, start[day - BURN_IN_DAYS], low[day] + row[day + 1] - row[day]
        before = start[day - 1]
        lay_out(before, end, zero - SLOTS, slot, bars, flat)
        no_hole = slot[before] == zero - SLOTS and slot[end - 1] - slot[before] == end - 1 - before
        windows(flat, blocks, no_hole, at)
        recursions(first, low[day], end, zero, slot, bars, states)
        all_formulas(flat, at, states, values)
        whole = low[day] - first >= _LONGEST and slot[end - 1] - slot[first] == end - 1 - first
        _store((first, low[day], end, row[day], whole), slot, values, target)
