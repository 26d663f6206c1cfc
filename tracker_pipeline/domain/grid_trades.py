"""Grid trades, all those of a series at once.

What belongs here: what `grid_trade.replay` gives for each of them. What does not: the search for a touch
(`first_touch.py`), trades that finer bars can tell more about (`grid_trade.py`).
"""

import numpy as np

from tracker_pipeline.domain import grid_trade
from tracker_pipeline.domain.compiling import compiled
from tracker_pipeline.domain.first_touch import tables, touch
from tracker_pipeline.domain.trade import REASONS, Finer, Path, Trade, Trades, decide_by_finer
from tracker_pipeline.domain.windows import BoolArray, FloatArray, IntArray

_TIME, _STOP, _TARGET = (REASONS.index(reason) for reason in ("TIME", "SL", "TP"))
_OPEN = -1  # no reason: the trade goes on


def replay_all(
    path: Path,
    start: IntArray,
    end: IntArray,
    orders: FloatArray,
    *,
    tp_frac: FloatArray,
    sl_frac: FloatArray,
    finer: Finer | None,
) -> Trades:
    """Replay grid trades.

    Args:
        path: the bars of a series.
        start: first bar of each trade.
        end: end of its horizon, after `start`.
        orders: prices of its buy orders, of equal amounts of money: a row for each trade, highest first.
        tp_frac: target above its running average.
        sl_frac: stop below its running average, positive.
        finer: gives the finer bars within the bar at an index of the path; None where there are none.
    """
    opened, high, low, close = (np.ascontiguousarray(column) for column in path.prices.T)
    longest = int((end - start).max(initial=1))
    trades, asked = Trades.empty(len(start)), np.zeros(len(start), np.bool_)
    _replay(
        (opened, close, tables(high, longest, np.maximum), tables(low, longest, np.minimum)),
        (start, end, np.ascontiguousarray(orders), tp_frac, sl_frac),
        (trades.bought, trades.reason, trades.exit_index, trades.fills),
        (trades.exit_price, trades.average, trades.highest, trades.lowest),
        (trades.ambiguous, asked),
    )

    def decided(number: int, held: Path, of_bar: Finer) -> Trade | None:
        return grid_trade.replay(
            held,
            orders[number].tolist(),
            tp_frac=float(tp_frac[number]),
            sl_frac=float(sl_frac[number]),
            finer=of_bar,
        )

    if finer is not None:
        decide_by_finer(trades, asked, (path, start, end), decided, finer)
    return trades


@compiled
def _replay(
    bars: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    trades: tuple[IntArray, IntArray, FloatArray, FloatArray, FloatArray],
    exits: tuple[BoolArray, IntArray, IntArray, IntArray],
    prices: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    questions: tuple[BoolArray, BoolArray],
) -> None:
    """Fill in what became of each trade.

    Of the bar of the first fill only the low and the close are surely later than the fill; of the bar left by a
    barrier, only the open and the exit are surely not later than the exit.
    """
    opened, close, highest, lowest = bars
    starts, ends, orders, tp_fracs, sl_fracs = trades
    bought, reasons, indices, fills = exits
    paid, averages, tops, bottoms = prices
    ambiguous, asked = questions
    for number in range(len(starts)):
        index, end, waiting = starts[number], ends[number], orders[number]
        up, down = 1 + tp_fracs[number], 1 - sl_fracs[number]
        # Coins for one unit of money at each order that was filled, and how many were.
        coins, filled, entered = 0.0, 0, -1
        top, bottom, reason, price = -np.inf, np.inf, _OPEN, 0.0
        while True:
            lower, upper = _next(waiting, up, down, coins, filled)
            index, above, below = touch(highest, lowest, index, end, lower, upper)
            if filled:
                top, bottom = max(top, above), min(bottom, below)
            if index == end:
                break
            had = filled
            bar = (opened[index], highest[0, index], lowest[0, index], close[index])
            reason, price, unclear, question, coins, filled = _through_bar(
                bar, waiting, up, down, coins, filled
            )
            asked[number] |= question
            if not had:
                entered = index
            if reason != _OPEN:
                ambiguous[number] = unclear
                break
            top = max(top, close[index] if not had else highest[0, index])
            top, bottom = max(top, lowest[0, index]), min(bottom, lowest[0, index])
            index += 1
        bought[number] = entered >= 0
        if entered < 0:
            continue
        if reason == _OPEN:
            index = end - 1
            reason, price = _TIME, close[index]
        else:
            top, bottom = max(top, opened[index]), min(bottom, opened[index])
        top, bottom = max(top, price), min(bottom, price)
        if index == entered:
            top = bottom = price
        reasons[number], indices[number], fills[number] = reason, index, filled
        paid[number], averages[number], tops[number], bottoms[number] = price, filled / coins, top, bottom


@compiled
def _next(waiting: FloatArray, up: float, down: float, coins: float, filled: int) -> tuple[float, float]:
    """The prices below and above at which something happens next."""
    order = waiting[filled] if filled < len(waiting) else -np.inf
    if not filled:
        return order, np.inf
    return max(order, filled / coins * down), filled / coins * up


@compiled
def _through_bar(
    bar: tuple[float, float, float, float],
    waiting: FloatArray,
    up: float,
    down: float,
    coins: float,
    filled: int,
) -> tuple[int, float, bool, bool, float, int]:
    """What `grid_trade` makes of a bar.

    Returns:
        Reason and price of the exit, whether it is ambiguous, whether finer bars tell more, and the position
        afterwards.
    """
    opened, high, low, close = bar
    if filled and not filled / coins * down < opened < filled / coins * up:
        reason = _STOP if opened <= filled / coins * down else _TARGET
        return reason, opened, False, False, coins, filled
    while filled < len(waiting) and opened <= waiting[filled]:
        coins, filled = coins + 1 / opened, filled + 1
    had, coins_before = filled, coins
    while (
        filled < len(waiting)
        and low <= waiting[filled]
        and not (filled and waiting[filled] <= filled / coins * down)
    ):
        coins, filled = coins + 1 / waiting[filled], filled + 1
    if not filled:
        return _OPEN, 0.0, False, False, coins, filled
    reached_before = had > 0 and high >= had / coins_before * up
    reached_after = filled > had and high >= filled / coins * up
    if low <= filled / coins * down:
        both = reached_before or reached_after
        return _STOP, filled / coins * down, both, both, coins, filled
    if reached_before:
        return _TARGET, had / coins_before * up, False, reached_after, coins_before, had
    if reached_after and close >= filled / coins * up:
        return _TARGET, filled / coins * up, False, True, coins, filled
    return _OPEN, 0.0, False, reached_after, coins, filled
