"""Trades entered at an open and left at a stop, a target or a trailing stop, all those of a series at once.

What belongs here: what `barrier_trade.replay` gives for each of them. What does not: the search for a touch
(`first_touch.py`), trades that finer bars can tell more about (`barrier_trade.py`).
"""

import numpy as np

from tracker_pipeline.domain import barrier_trade
from tracker_pipeline.domain.barrier_trade import Barriers, Trailing
from tracker_pipeline.domain.compiling import compiled
from tracker_pipeline.domain.first_touch import tables, touch
from tracker_pipeline.domain.trade import REASONS, Finer, Path, Trade, Trades, decide_by_finer
from tracker_pipeline.domain.windows import BoolArray, FloatArray, IntArray

_TIME, _STOP, _TARGET, _TRAIL = (REASONS.index(reason) for reason in ("TIME", "SL", "TP", "TRAIL"))
_OPEN = -1  # no reason: the trade goes on


def replay_all(
    path: Path,
    start: IntArray,
    end: IntArray,
    stop: FloatArray,
    target: FloatArray,
    *,
    trail_frac: FloatArray | None = None,
    trail_from_frac: FloatArray | None = None,
    finer: Finer | None,
) -> Trades:
    """Replay trades.

    Args:
        path: the bars of a series.
        start: bar that each trade is entered at, at its open.
        end: end of its horizon, after `start`.
        stop: its stop loss.
        target: its take profit.
        trail_frac: distance of its trailing stop below the highest price, NaN for none; None for none at all.
        trail_from_frac: the gain over the entry that arms it.
        finer: gives the finer bars within the bar at an index of the path; None where there are none.

    Returns:
        The trades; those whose entry is not between stop and target bought nothing.
    """
    opened, high, low, close = (np.ascontiguousarray(column) for column in path.prices.T)
    longest = int((end - start).max(initial=1))
    entry, count = opened[start], len(start)
    none = np.full(count, np.nan)
    trail = none if trail_frac is None else trail_frac
    trail_from = none if trail_from_frac is None else trail_from_frac
    trades, asked = Trades.empty(count), np.zeros(count, np.bool_)
    trades.bought[:] = (stop < entry) & (entry < target)
    trades.average[:], trades.fills[:] = entry, 1
    _replay(
        (opened, close, tables(high, longest, np.maximum), tables(low, longest, np.minimum)),
        (start, end, stop, target, trail, trail_from),
        (trades.reason, trades.exit_index),
        (trades.exit_price, trades.highest, trades.lowest),
        (trades.ambiguous, asked),
    )

    def decided(number: int, held: Path, of_bar: Finer) -> Trade | None:
        trailing = None
        if not np.isnan(trail[number]):
            trailing = Trailing(float(trail[number]), float(trail_from[number]))
        barriers = Barriers(float(entry[number]), float(target[number]), float(stop[number]), trailing)
        return barrier_trade.replay(held, barriers, finer=of_bar)

    if finer is not None:
        decide_by_finer(trades, asked & trades.bought, (path, start, end), decided, finer)
    return trades


@compiled
def _replay(
    bars: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    orders: tuple[IntArray, IntArray, FloatArray, FloatArray, FloatArray, FloatArray],
    exits: tuple[IntArray, IntArray],
    prices: tuple[FloatArray, FloatArray, FloatArray],
    questions: tuple[BoolArray, BoolArray],
) -> None:
    """Fill in reason and bar of each exit, its price, and the highest and lowest price surely seen.

    Of the bar left by a barrier, only the open and the exit are surely not later than the exit.
    """
    opened, close, highest, lowest = bars
    starts, ends, stops, targets, trails, trails_from = orders
    reasons, indices = exits
    paid, tops, bottoms = prices
    ambiguous, asked = questions
    for number in range(len(starts)):
        start, end, stop, target = starts[number], ends[number], stops[number], targets[number]
        trail, entry = trails[number], opened[starts[number]]
        # Until price reaches it, a trailing stop does nothing; NaN is none, and never reached.
        arms = entry * (1 + trails_from[number])
        top, bottom, index, reason, price = -np.inf, np.inf, start, _OPEN, 0.0
        ambiguous[number] = asked[number] = False
        while True:
            armed = max(entry, top) >= arms
            if not armed:
                until = min(target, arms) if arms > 0 else target
                index, above, below = touch(highest, lowest, index, end, stop, until)
                top, bottom = max(top, above), min(bottom, below)
            if index == end:
                break
            before = max(entry, top)
            reason, price, unclear, question = _left_in_bar(
                (opened[index], highest[0, index], lowest[0, index], close[index]),
                (stop, target, trail, arms),
                before,
            )
            asked[number] |= question
            if reason != _OPEN:
                ambiguous[number] = unclear
                break
            top, bottom = max(top, highest[0, index]), min(bottom, lowest[0, index])
            index += 1
        if reason == _OPEN:
            # All of the last bar is before the exit at its close.
            index = end - 1
            reason, price = _TIME, close[index]
        else:
            top, bottom = max(top, opened[index]), min(bottom, opened[index])
        top, bottom = max(top, price), min(bottom, price)
        if index == start:
            top = bottom = price
        reasons[number], indices[number] = reason, index
        paid[number], tops[number], bottoms[number] = price, top, bottom


@compiled
def _left_in_bar(
    bar: tuple[float, float, float, float], barriers: tuple[float, float, float, float], before: float
) -> tuple[int, float, bool, bool]:
    """What `barrier_trade` says of a bar: reason and price, whether it is ambiguous, whether finer bars tell more."""
    opened, high, low, close = bar
    stop, target, trail, arms = barriers
    trailing = before * (1 - trail) if before >= arms else -np.inf
    if opened <= max(stop, trailing) or opened >= target:
        reason = _STOP if opened <= stop else _TRAIL if opened <= trailing else _TARGET
        return reason, opened, False, False
    above = max(before, high)
    lifted = above * (1 - trail) if above >= arms else -np.inf
    stopped, reached, trailed = low <= stop, high >= target, low <= trailing
    unclear = int(stopped) + int(reached) + int(trailed) > 1
    question = unclear or trailing < lifted >= low
    if stopped:
        return _STOP, stop, unclear, question
    if reached:
        return _TARGET, target, unclear, question
    if trailed:
        return _TRAIL, trailing, unclear, question
    if close <= lifted:
        return _TRAIL, lifted, False, question
    return _OPEN, 0.0, False, question
