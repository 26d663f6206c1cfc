"""Figures of the windows and recursions of one UTC day of a series, compiled.

What belongs here: the arithmetic that several features share. What does not: features (`feature_formulas.py`), and
which rows are wanted (`feature_kernel.py`).

A row is a function of its day and `BURN_IN_DAYS` before it, computed in an order that depends on nothing else:
windows are added up in blocks of 1, 2, 4, ... bars or from the oldest bar on, recursions run from the first bar of
the burn-in. Absent bars count as zeros and are counted out: a window without a hole has the same digits whatever is
missing elsewhere.
"""

from typing import Final

import numpy as np

from tracker_pipeline.domain.compiling import compiled
from tracker_pipeline.domain.feature_days import SLOTS
from tracker_pipeline.domain.windows import FloatArray, IntArray

Bars = tuple[FloatArray, FloatArray, FloatArray, FloatArray]  # close, high, low, volume

# Columns of a day and the one before it, by slot. Lows are negative: the lowest is the highest of them.
CLOSE, HIGH, LOW, VOLUME, PRESENT, RETURN, CHANGED, DIRECTED, SIGNED = range(9)
COLUMNS: Final = 9
# Figures of windows by the slot that they end at, from the last slot of the day before on.
CLOSES_50, VOLUMES_20, VOLUMES_96, DIRECTED_96, SIGNED_96, HIGH_14, HIGH_20, LOW_14, LOW_20 = range(9)
MEAN_20, SQUARES_20, SQUARES_16, SQUARES_96, CHANGES_16, CHANGES_96 = range(9, 15)
COUNT_20, COUNT_50, COUNT_96, MEAN = range(15, 19)
FIGURES: Final = 19
# States of recursions by slot of the day.
GAIN_14, LOSS_14, GAIN_30, LOSS_30, FAST, SLOW, SIGNAL, REACH = range(8)
STATES: Final = 8
_BEFORE: Final = SLOTS - 1
ENDS: Final = SLOTS + 1
LEVELS: Final = 7  # blocks of 1, 2, ... 64 bars


@compiled
def _sum_blocks(values: FloatArray, blocks: FloatArray) -> None:
    """Sums of 1, 2, 4, ... 64 values up to each slot."""
    for slot in range(2 * SLOTS):
        blocks[0, slot] = values[slot]
    for level in range(1, LEVELS):
        half = 1 << (level - 1)
        for slot in range(2 * half - 1, 2 * SLOTS):
            blocks[level, slot] = blocks[level - 1, slot] + blocks[level - 1, slot - half]


@compiled
def _sums(blocks: FloatArray, width: int, out: FloatArray) -> None:
    """Sums of the last `width` values at each end."""
    covered = 0
    for level in range(LEVELS):
        if width >> level & 1:
            block = blocks[level, _BEFORE - covered : _BEFORE - covered + ENDS]
            for end in range(ENDS):
                out[end] = out[end] + block[end] if covered else block[end]
            covered += 1 << level


@compiled
def _highest(blocks: FloatArray, width: int, out: FloatArray) -> None:
    """Largest of the last `width` values at each end, from blocks of the largest."""
    level = 0
    while 2 << level <= width:
        level += 1
    rest = width - (1 << level)
    for end in range(ENDS):
        newer, older = blocks[level, _BEFORE + end], blocks[level, _BEFORE + end - rest]
        out[end] = newer if newer > older else older


@compiled
def _highest_blocks(values: FloatArray, blocks: FloatArray) -> None:
    """Largest of 1, 2, ... 16 values up to each slot."""
    for slot in range(2 * SLOTS):
        blocks[0, slot] = values[slot]
    for level in range(1, 5):
        half = 1 << (level - 1)
        for slot in range(2 * half - 1, 2 * SLOTS):
            newer, older = blocks[level - 1, slot], blocks[level - 1, slot - half]
            blocks[level, slot] = newer if newer > older else older


@compiled
def _distances(values: FloatArray, present: FloatArray, whole: bool, width: int, out: FloatArray) -> None:
    """Sums of the distances of the last `width` present values from the newest: exactly 0 where nothing moved."""
    newest = values[_BEFORE:]
    out[:] = 0.0
    if whole:
        for back in range(width - 1, -1, -4):
            value = values[_BEFORE - back : 2 * SLOTS - back + 3]
            for end in range(ENDS):
                last = newest[end]
                a, b, c, d = (
                    value[end] - last,
                    value[end + 1] - last,
                    value[end + 2] - last,
                    value[end + 3] - last,
                )
                out[end] = out[end] + a + b + c + d
        return
    for back in range(width - 1, -1, -1):
        value, there = values[_BEFORE - back : 2 * SLOTS - back], present[_BEFORE - back : 2 * SLOTS - back]
        for end in range(ENDS):
            out[end] += (value[end] - newest[end]) * there[end]


@compiled
def _squares(
    values: FloatArray, present: FloatArray, whole: bool, mean: FloatArray, width: int, out: FloatArray
) -> None:
    """Sums of squared distances of the last `width` present values from their mean, at each end.

    The difference of sums of squares would lose all digits where the spread is 1e-8 of the level, which is what a
    pegged coin looks like.

    Args:
        values: by slot.
        present: 1 where there is one, 0 elsewhere.
        whole: whether all that enter a wanted figure are present. They are added up in the same order either way;
            four at once, and without asking for each, take a quarter of the time.
        mean: by end.
        width: a multiple of 4.
        out: by end.
    """
    out[:] = 0.0
    if whole:
        for back in range(width - 1, -1, -4):
            value = values[_BEFORE - back : 2 * SLOTS - back + 3]
            for end in range(ENDS):
                middle = mean[end]
                a, b = value[end] - middle, value[end + 1] - middle
                c, d = value[end + 2] - middle, value[end + 3] - middle
                out[end] = out[end] + a * a + b * b + c * c + d * d
        return
    for back in range(width - 1, -1, -1):
        value, there = values[_BEFORE - back : 2 * SLOTS - back], present[_BEFORE - back : 2 * SLOTS - back]
        for end in range(ENDS):
            apart = (value[end] - mean[end]) * there[end]
            out[end] += apart * apart


@compiled
def lay_out(first: int, end: int, zero: int, slot: IntArray, bars: Bars, flat: FloatArray) -> None:
    """Lay the bars of two days side by side; absent ones are 0, their high and low lose any contest."""
    close, high, low, volume = bars
    flat[:] = 0.0
    flat[HIGH] = -np.inf
    flat[LOW] = -np.inf
    while first < end:
        last = end  # of the bars without a hole from the first on
        if slot[end - 1] - slot[first] != end - 1 - first:
            last = first + 1
            while last < end and slot[last] - slot[last - 1] == 1:
                last += 1
        place, after = slot[first] - zero, slot[first] - zero + last - first
        flat[CLOSE, place:after] = close[first:last]
        flat[HIGH, place:after] = high[first:last]
        lows, lowest = flat[LOW, place:after], low[first:last]
        for step in range(last - first):
            lows[step] = -lowest[step]
        flat[VOLUME, place:after] = volume[first:last]
        flat[PRESENT, place:after] = 1.0
        first = last
    _lay_out_changes(
        flat[CLOSE], flat[VOLUME], flat[PRESENT], flat[CHANGED], flat[RETURN], flat[DIRECTED], flat[SIGNED]
    )


@compiled
def _lay_out_changes(
    close: FloatArray,
    volume: FloatArray,
    present: FloatArray,
    changed: FloatArray,
    returned: FloatArray,
    directed: FloatArray,
    signed: FloatArray,
) -> None:
    """What moved from one bar to the next; a bar after a hole has no known direction and counts on neither side."""
    for place in range(1, 2 * SLOTS):
        changed[place] = present[place] * present[place - 1]
    for place in range(1, 2 * SLOTS):
        change = close[place] / close[place - 1] - 1.0
        returned[place] = change if changed[place] > 0 else 0.0
    for place in range(1, 2 * SLOTS):
        directed[place] = volume[place] if changed[place] > 0 else 0.0
    for place in range(1, 2 * SLOTS):
        change = close[place] - close[place - 1]
        sign = 1.0 if change > 0 else -1.0 if change < 0 else change
        signed[place] = sign * directed[place]


@compiled
def _of_returns(
    flat: FloatArray,
    blocks: FloatArray,
    whole: bool,
    width: int,
    count: FloatArray,
    mean: FloatArray,
    squares: FloatArray,
) -> None:
    """Mean of the last `width` known returns, and sum of squared distances from it."""
    _sums(blocks, width, mean)
    for end in range(ENDS):
        mean[end] = mean[end] / count[end] if count[end] > 0 else 0.0
    _squares(flat[RETURN], flat[CHANGED], whole, mean, width, squares)


@compiled
def _counts(flat: FloatArray, blocks: FloatArray, whole: bool, at: FloatArray) -> None:
    """How many bars and changes there are in each window."""
    if whole:
        at[COUNT_20], at[COUNT_50], at[COUNT_96] = 20.0, 50.0, 96.0
        at[CHANGES_16], at[CHANGES_96] = 16.0, 96.0
        return
    _sum_blocks(flat[PRESENT], blocks)
    _sums(blocks, 20, at[COUNT_20])
    _sums(blocks, 50, at[COUNT_50])
    _sums(blocks, 96, at[COUNT_96])
    _sum_blocks(flat[CHANGED], blocks)
    _sums(blocks, 16, at[CHANGES_16])
    _sums(blocks, 96, at[CHANGES_96])


@compiled
def windows(flat: FloatArray, blocks: FloatArray, whole: bool, at: FloatArray) -> None:
    """All window figures of a day.

    Args:
        flat: columns of the day and the one before by slot.
        blocks: memory to work in.
        whole: whether no bar of the two days is absent up to the last wanted one.
        at: where the figures go, by the slot that they end at.
    """
    _counts(flat, blocks, whole, at)
    _sum_blocks(flat[CLOSE], blocks)
    _sums(blocks, 50, at[CLOSES_50])
    _sum_blocks(flat[VOLUME], blocks)
    _sums(blocks, 20, at[VOLUMES_20])
    _sums(blocks, 96, at[VOLUMES_96])
    _sum_blocks(flat[DIRECTED], blocks)
    _sums(blocks, 96, at[DIRECTED_96])
    _sum_blocks(flat[SIGNED], blocks)
    _sums(blocks, 96, at[SIGNED_96])
    _highest_blocks(flat[HIGH], blocks)
    _highest(blocks, 14, at[HIGH_14])
    _highest(blocks, 20, at[HIGH_20])
    _highest_blocks(flat[LOW], blocks)
    _highest(blocks, 14, at[LOW_14])
    _highest(blocks, 20, at[LOW_20])
    _distances(flat[CLOSE], flat[PRESENT], whole, 20, at[MEAN_20])
    for end in range(ENDS):
        count = at[COUNT_20, end]
        at[MEAN_20, end] = flat[CLOSE, _BEFORE + end] + (at[MEAN_20, end] / count if count > 0 else 0.0)
    _squares(flat[CLOSE], flat[PRESENT], whole, at[MEAN_20], 20, at[SQUARES_20])
    _sum_blocks(flat[RETURN], blocks)
    _of_returns(flat, blocks, whole, 16, at[CHANGES_16], at[MEAN], at[SQUARES_16])
    _of_returns(flat, blocks, whole, 96, at[CHANGES_96], at[MEAN], at[SQUARES_96])


@compiled
def recursions(
    first: int, day: int, end: int, zero: int, slot: IntArray, bars: Bars, states: FloatArray
) -> None:
    """Recursive averages from the bar `first` on, stored for the bars from `day` to before `end`.

    Averages of gains and losses start from 0, the others at the first bar. A change across a hole is not known, and
    leaves them as they were; none of them moves where there is no bar.
    """
    close, high, low, _ = bars
    gain_14 = loss_14 = gain_30 = loss_30 = signal = 0.0
    fast = slow = close[first]
    reach = high[first] - low[first]
    for bar in range(first, end):
        price, top, bottom = close[bar], high[bar], low[bar]
        if bar > first:
            if slot[bar] - slot[bar - 1] == 1:
                before = close[bar - 1]
                gain, loss = max(price - before, 0.0), max(before - price, 0.0)
                gain_14, loss_14 = (
                    gain_14 * (13 / 14) + gain * (1 / 14),
                    loss_14 * (13 / 14) + loss * (1 / 14),
                )
                gain_30, loss_30 = (
                    gain_30 * (29 / 30) + gain * (1 / 30),
                    loss_30 * (29 / 30) + loss * (1 / 30),
                )
                top, bottom = max(top, before), min(bottom, before)
            reach = reach * (13 / 14) + (top - bottom) * (1 / 14)
            fast += (price - fast) * (2 / 13)
            slow += (price - slow) * (2 / 27)
            signal += (fast - slow - signal) * (2 / 10)
        if bar >= day:
            place = slot[bar] - zero
            states[GAIN_14, place] = gain_14
            states[LOSS_14, place] = loss_14
            states[GAIN_30, place] = gain_30
            states[LOSS_30, place] = loss_30
            states[FAST, place] = fast
            states[SLOW, place] = slow
            states[SIGNAL, place] = signal
            states[REACH, place] = reach
