"""Trades entered at an open and left at a fixed stop or target, all those of a series at once.

What belongs here: what `barrier_trade.replay` gives for each of them where there is no trailing stop. What does not:
the search (`first_touch.py`), bars that touch both barriers where finer ones decide (`barrier_trade.py`).
"""

import numpy as np

from tracker_pipeline.domain import barrier_trade
from tracker_pipeline.domain.barrier_trade import Barriers
from tracker_pipeline.domain.compiling import compiled
from tracker_pipeline.domain.first_touch import tables, touch
from tracker_pipeline.domain.trade import REASONS, Finer, Path, Trades, shifted
from tracker_pipeline.domain.windows import BoolArray, FloatArray, IntArray

_TIME, _STOP, _TARGET = (REASONS.index(reason) for reason in ("TIME", "SL", "TP"))


def replay_all(
    path: Path, start: IntArray, end: IntArray, stop: FloatArray, target: FloatArray, *, finer: Finer | None
) -> Trades:
    """Replay trades.

    Args:
        path: the bars of a series.
        start: bar that each trade is entered at, at its open.
        end: end of its horizon, after `start`.
        stop: its stop loss.
        target: its take profit.
        finer: gives the finer bars within the bar at an index of the path; None where there are none.

    Returns:
        The trades; those whose entry is not between stop and target bought nothing.
    """
    opened, high, low, close = (np.ascontiguousarray(column) for column in path.prices.T)
    longest = int((end - start).max(initial=1))
    entry, count = opened[start], len(start)
    trades = Trades(
        bought=(stop < entry) & (entry < target),
        reason=np.empty(count, np.int64),
        exit_index=np.empty(count, np.int64),
        exit_price=np.empty(count),
        average=entry,
        highest=np.empty(count),
        lowest=np.empty(count),
        fills=np.ones(count, np.int64),
        ambiguous=np.empty(count, np.bool_),
    )
    _replay(
        (opened, close, tables(high, longest, np.maximum), tables(low, longest, np.minimum)),
        (start, end, stop, target),
        (trades.reason, trades.exit_index),
        (trades.exit_price, trades.highest, trades.lowest),
        trades.ambiguous,
    )
    if finer is not None:
        for number in map(int, np.flatnonzero(trades.ambiguous & trades.bought)):
            first = int(start[number])
            held = Path(path.ts_us[first : end[number]], path.prices[first : end[number]])
            barriers = Barriers(float(entry[number]), float(target[number]), float(stop[number]))
            decided = barrier_trade.replay(held, barriers, finer=shifted(finer, first))
            if decided is not None:
                trades.put(number, decided, first, held)
    return trades


@compiled
def _replay(
    bars: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    orders: tuple[IntArray, IntArray, FloatArray, FloatArray],
    exits: tuple[IntArray, IntArray],
    prices: tuple[FloatArray, FloatArray, FloatArray],
    ambiguous: BoolArray,
) -> None:
    """Fill in reason and bar of each exit, its price, and the highest and lowest price surely seen.

    Of the bar left by a barrier, only the open and the exit are surely not later than the exit; a gap through a
    barrier fills at the open.
    """
    opened, close, highest, lowest = bars
    starts, ends, stops, targets = orders
    reasons, indices = exits
    paid, tops, bottoms = prices
    for number in range(len(starts)):
        start, end, stop, target = starts[number], ends[number], stops[number], targets[number]
        index, top, bottom = touch(highest, lowest, start, end, stop, target)
        ambiguous[number] = False
        if index == end:
            # All of the last bar is before the exit at its close.
            index = end - 1
            reason, price = _TIME, close[index]
            top, bottom = max(top, price), min(bottom, price)
        else:
            gap = opened[index]
            stopped, reached = lowest[0, index] <= stop, highest[0, index] >= target
            if gap <= stop or gap >= target:
                reason, price = _STOP if gap <= stop else _TARGET, gap
            else:
                reason, price = _STOP if stopped else _TARGET, stop if stopped else target
                ambiguous[number] = stopped and reached
            top, bottom = max(top, gap, price), min(bottom, gap, price)
        if index == start:
            top = bottom = price
        reasons[number], indices[number] = reason, index
        paid[number], tops[number], bottoms[number] = price, top, bottom
