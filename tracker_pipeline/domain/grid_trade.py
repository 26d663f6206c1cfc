"""One grid trade replayed on bars: fills, running average, and which barrier came first.

What belongs here: the order of events inside a bar. What does not: trades entered at once (`barrier_trade.py`),
maturity, coverage, costs (`labels.py`).

Inside a bar the path from open to close is not known, only its extremes. What the extremes prove is used (price
cannot reach a stop below the grid without passing the grid's orders), what they leave open is decided by finer bars
where those exist, and against the trade where they do not.
"""

from dataclasses import dataclass, field

import numpy as np

from tracker_pipeline.domain.trade import Bar, Exit, Finer, Path, Trade, through
from tracker_pipeline.domain.windows import BoolArray, FloatArray


@dataclass
class _Position:
    """Orders waiting and orders filled; barriers follow the running average.

    Attributes:
        waiting: prices of the orders, highest first.
        tp_frac: target above the average.
        sl_frac: stop below the average.
        filled: prices paid.
    """

    waiting: tuple[float, ...]
    tp_frac: float
    sl_frac: float
    filled: tuple[float, ...] = field(default=())

    @property
    def average(self) -> float:
        # Equal money at each level buys 1/price coins: the average is the harmonic mean of the prices.
        return len(self.filled) / sum(1 / price for price in self.filled)

    @property
    def target(self) -> float:
        return self.average * (1 + self.tp_frac)

    @property
    def stop(self) -> float:
        return self.average * (1 - self.sl_frac)

    def fill(self, price: float) -> None:
        self.waiting = self.waiting[1:]
        self.filled = (*self.filled, price)

    def touched_by(self, prices: FloatArray) -> BoolArray:
        """Which bars reach an order or a barrier."""
        lowest = self.waiting[0] if self.waiting else -np.inf
        highest = np.inf
        if self.filled:
            lowest, highest = max(lowest, self.stop), self.target
        return (prices[:, 2] <= lowest) | (prices[:, 1] >= highest)

    def _at_open(self, price: float) -> Exit | None:
        """What happens at the open, which is the one price of a bar whose time is known: gaps fill there."""
        if self.filled and price <= self.stop:
            return Exit("SL", price)
        if self.filled and price >= self.target:
            return Exit("TP", price)
        while self.waiting and price <= self.waiting[0]:
            self.fill(price)
        return None

    def pass_through(self, bar: Bar) -> tuple[Exit | None, bool]:
        """Move through one bar.

        Returns:
            The exit, if there is one, and whether finer bars could tell more.
        """
        gap = self._at_open(bar.open)
        if gap:
            return gap, False
        target = self.target if self.filled else None
        fills = len(self.filled)
        while (
            self.waiting and bar.low <= self.waiting[0] and not (self.filled and self.waiting[0] <= self.stop)
        ):
            self.fill(self.waiting[0])
        if not self.filled:
            return None, False
        reached_before = target is not None and bar.high >= target
        # A fill lowers the target; whether the high came after the fill is not known, but the close did.
        reached_after = len(self.filled) > fills and bar.high >= self.target
        if bar.low <= self.stop:
            both = reached_before or reached_after
            return Exit("SL", self.stop, ambiguous=both), both
        if reached_before and target is not None:
            return self._leave_at(target, fills), reached_after
        if reached_after and bar.close >= self.target:
            return Exit("TP", self.target), True
        return None, reached_after

    def _leave_at(self, target: float, fills: int) -> Exit:
        """Leave with the orders filled before this bar: in percent the target is the same with those of the bar."""
        self.waiting = (*self.filled[fills:], *self.waiting)
        self.filled = self.filled[:fills]
        return Exit("TP", target)


def replay(
    path: Path,
    orders: list[float],
    *,
    tp_frac: float,
    sl_frac: float,
    finer: Finer,
) -> Trade | None:
    """Replay a grid trade.

    Args:
        path: the bars from the entry to the end of the horizon.
        orders: prices of the buy orders, highest first, of equal amounts of money.
        tp_frac: target above the running average.
        sl_frac: stop below the running average, positive.
        finer: gives the finer bars within the bar at an index; they are used where they reach the bar's extremes.

    Returns:
        The trade, ended by a barrier or by time at the last close; None if no order was filled.
    """
    position = _Position(tuple(orders), tp_frac, sl_frac)
    entry_index = index = 0
    while True:
        touched = np.flatnonzero(position.touched_by(path.prices[index:]))
        if not touched.size:
            break
        index += int(touched[0])
        had_position = bool(position.filled)
        position, ended = through(position, path.bar(index), finer, index)
        entry_index = entry_index if had_position else index
        if ended:
            return Trade(ended, entry_index, index, position.average, len(position.filled))
        index += 1
    if not position.filled:
        return None
    last = len(path.ts_us) - 1
    ended = Exit("TIME", path.bar(last).close)
    return Trade(ended, entry_index, last, position.average, len(position.filled))
