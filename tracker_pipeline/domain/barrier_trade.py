"""One trade entered at an open and left by a stop, a target or a trailing stop, replayed on bars.

What belongs here: the order of events inside a bar. What does not: trades entered in steps (`grid_trade.py`),
maturity, coverage, costs (`labels.py`).

Inside a bar the order is stop, target, trailing stop, unless finer bars show another one; only the
open comes first for certain. A trailing stop hangs below the highest price before the bar. The bar's own high lifts
it for what is surely later: for the close, which lies beyond the stop only if price came down through it, and for the
bars after.
"""

from dataclasses import dataclass

import numpy as np

from tracker_pipeline.domain.trade import Bar, Exit, Finer, Path, Trade, through
from tracker_pipeline.domain.windows import BoolArray, FloatArray


@dataclass(frozen=True)
class Trailing:
    """A stop that follows the highest price.

    Attributes:
        frac: its distance below that price.
        from_frac: the gain over the entry that arms it.
    """

    frac: float
    from_frac: float


@dataclass(frozen=True)
class Barriers:
    """Where a trade is left.

    Attributes:
        entry: price paid.
        target: take profit.
        stop: stop loss.
        trailing: None for none.
    """

    entry: float
    target: float
    stop: float
    trailing: Trailing | None = None

    def trailing_stop(self, highest: FloatArray) -> FloatArray:
        """The price of the trailing stop below each highest price so far, -inf while it is not armed."""
        if self.trailing is None:
            return np.full_like(highest, -np.inf)
        armed = highest >= self.entry * (1 + self.trailing.from_frac)
        return np.where(armed, highest * (1 - self.trailing.frac), -np.inf)


@dataclass
class _Position:
    """An open trade.

    Attributes:
        barriers: where it is left.
        highest: highest price since the entry.
    """

    barriers: Barriers
    highest: float

    def _trailing_stop(self) -> float:
        return float(self.barriers.trailing_stop(np.array(self.highest)))

    def pass_through(self, bar: Bar) -> tuple[Exit | None, bool]:
        """Move through one bar; the exit, if there is one, and whether finer bars could tell more."""
        stop, target, trailing = self.barriers.stop, self.barriers.target, self._trailing_stop()
        if bar.open <= max(stop, trailing):
            return Exit("SL" if bar.open <= stop else "TRAIL", bar.open), False
        if bar.open >= target:
            return Exit("TP", bar.open), False
        self.highest = max(self.highest, bar.high)
        lifted = self._trailing_stop()
        orders = (
            (bar.low <= stop, Exit("SL", stop)),
            (bar.high >= target, Exit("TP", target)),
            (bar.low <= trailing, Exit("TRAIL", trailing)),
        )
        touched = [exit_ for reached, exit_ in orders if reached]
        open_question = len(touched) > 1 or trailing < lifted >= bar.low
        if touched:
            return touched[0]._replace(ambiguous=len(touched) > 1), open_question
        # Price that rose in this bar and closes below the lifted stop came down through it.
        return (Exit("TRAIL", lifted) if bar.close <= lifted else None), open_question


def replay(path: Path, barriers: Barriers, *, finer: Finer) -> Trade | None:
    """Replay a trade that is entered at the first open.

    Args:
        path: the bars from the entry to the end of the horizon.
        barriers: where it is left.
        finer: gives the finer bars within the bar at an index; they are used where they reach the bar's extremes.

    Returns:
        The trade, ended by a barrier or by time at the last close; None if the entry is not between stop and
        target, where nobody would buy.
    """
    if not barriers.stop < barriers.entry < barriers.target:
        return None
    before = np.maximum.accumulate(np.r_[barriers.entry, path.prices[:-1, 1]])
    for index in map(int, np.flatnonzero(_touched(path.prices, barriers, before))):
        position = _Position(barriers, float(before[index]))
        _, ended = through(position, path.bar(index), finer, index)
        if ended:
            return Trade(ended, 0, index, barriers.entry, fills=1, at_open=True)
    last = len(path.ts_us) - 1
    ended = Exit("TIME", path.bar(last).close)
    return Trade(ended, 0, last, barriers.entry, fills=1, at_open=True)


def _touched(prices: FloatArray, barriers: Barriers, before: FloatArray) -> BoolArray:
    """Which bars may reach a barrier."""
    trailing = barriers.trailing_stop(np.maximum(before, prices[:, 1]))
    return (prices[:, 2] <= np.maximum(barriers.stop, trailing)) | (prices[:, 1] >= barriers.target)
