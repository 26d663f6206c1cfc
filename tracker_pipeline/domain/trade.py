"""What replayed trades of every kind share: bars as a path, the exit, and asking finer bars.

What belongs here: plain values, and when finer bars decide. What does not: orders and barriers (`grid_trade.py`,
`barrier_trade.py`).
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from tracker_pipeline.domain.windows import BoolArray, FloatArray, IntArray

ExitReason = Literal["TP", "SL", "TRAIL", "TIME"]


class Bar(NamedTuple):
    """The prices of one bar."""

    open: float
    high: float
    low: float
    close: float


@dataclass(frozen=True)
class Path:
    """Bars of one series in order of time.

    Attributes:
        ts_us: opens of the bars, microseconds since 1970.
        prices: open, high, low and close, one row per bar.
    """

    ts_us: IntArray
    prices: FloatArray

    def between(self, start_us: int, end_us: int) -> "Path":
        """The bars that open in `[start_us, end_us)`."""
        first, last = np.searchsorted(self.ts_us, [start_us, end_us])
        return Path(self.ts_us[first:last], self.prices[first:last])

    def bar(self, index: int) -> Bar:
        """One bar."""
        return Bar(*(float(price) for price in self.prices[index]))

    def shows_all_of(self, bar: Bar) -> bool:
        """Whether these bars reach the extremes of a longer one; if not, some of them are missing."""
        extremes = self.prices
        return bool(len(extremes) and extremes[:, 1].max() >= bar.high and extremes[:, 2].min() <= bar.low)


# Gives the finer bars within the bar at an index of the path.
Finer = Callable[[int], Path]


def shifted(finer: Finer, first: int) -> Finer:
    """The same for a path that begins with bar `first` of the other."""
    return lambda index: finer(first + index)


class Exit(NamedTuple):
    """How a trade ended inside a bar.

    Attributes:
        reason: the barrier.
        price: where.
        ambiguous: whether the bar touched more than one barrier and nothing finer decided.
    """

    reason: ExitReason
    price: float
    ambiguous: bool = False


@dataclass(frozen=True)
class Trade:
    """A trade from the first fill to its end.

    Attributes:
        exit: how it ended.
        entry_index: bar of the first fill.
        exit_index: bar of the exit.
        average: entry price, the mean over the coins bought with equal amounts of money.
        fills: orders filled.
        at_open: whether it was entered at the open, so that all of the entry bar comes after the entry.
    """

    exit: Exit
    entry_index: int
    exit_index: int
    average: float
    fills: int
    at_open: bool = False


REASONS: Final[tuple[ExitReason, ...]] = ("TIME", "SL", "TP", "TRAIL")


@dataclass(frozen=True)
class Trades:
    """Trades of one series, side by side.

    Attributes:
        bought: whether anything was bought; what follows has no meaning where not.
        reason: how each ended, as an index of `REASONS`.
        exit_index: bar of the exit.
        exit_price: where.
        average: entry price, the mean over the coins bought with equal amounts of money.
        highest: highest price surely seen between entry and exit.
        lowest: lowest price surely seen between entry and exit.
        fills: orders filled.
        ambiguous: whether the last bar touched more than one barrier and nothing finer decided.
    """

    bought: BoolArray
    reason: IntArray
    exit_index: IntArray
    exit_price: FloatArray
    average: FloatArray
    highest: FloatArray
    lowest: FloatArray
    fills: IntArray
    ambiguous: BoolArray

    @classmethod
    def empty(cls, count: int) -> "Trades":
        """Room for trades, none of which bought anything."""
        return cls(
            bought=np.zeros(count, np.bool_),
            reason=np.zeros(count, np.int64),
            exit_index=np.zeros(count, np.int64),
            exit_price=np.zeros(count),
            average=np.zeros(count),
            highest=np.zeros(count),
            lowest=np.zeros(count),
            fills=np.zeros(count, np.int64),
            ambiguous=np.zeros(count, np.bool_),
        )

    def put(self, number: int, trade: Trade, first: int, held: Path) -> None:
        """Fill in one trade that was replayed on its own, on bars that begin with bar `first` of the series.

        Of the bar of the first fill only the low and the close are surely later than the fill, unless it was filled
        at the open; of the bar left by a barrier, only the open and the exit are surely not later than the exit.
        """
        entry, last, price = trade.entry_index, trade.exit_index, trade.exit.price
        seen = [np.array([price])]
        if entry < last:
            at_exit = held.prices[last] if trade.exit.reason == "TIME" else held.prices[last, :1]
            between = held.prices[entry + 1 : last]
            seen += [held.prices[entry, 0 if trade.at_open else 2 :], between[:, 1], between[:, 2], at_exit]
        prices = np.concatenate(seen)
        self.bought[number], self.reason[number] = True, REASONS.index(trade.exit.reason)
        self.exit_index[number], self.exit_price[number] = first + last, price
        self.average[number], self.fills[number] = trade.average, trade.fills
        self.highest[number], self.lowest[number] = prices.max(), prices.min()
        self.ambiguous[number] = trade.exit.ambiguous


class Position(Protocol):
    """The state of a trade that is open or waits to be."""

    def pass_through(self, bar: Bar) -> tuple[Exit | None, bool]:
        """Move through one bar.

        Returns:
            The exit, if there is one, and whether finer bars could tell more.
        """
        ...


_P = TypeVar("_P", bound=Position)


def through(position: _P, bar: Bar, finer: Finer, index: int) -> tuple[_P, Exit | None]:
    """Move a position through a bar, or through the finer bars within it where these can tell more.

    Returns:
        The position afterwards, and the exit, if there is one.
    """
    moved = copy(position)
    ended, open_question = moved.pass_through(bar)
    if not open_question:
        return moved, ended
    fine = finer(index)
    if not fine.shows_all_of(bar):
        return moved, ended
    for number in range(len(fine.ts_us)):
        ended, _ = position.pass_through(fine.bar(number))
        if ended:
            break
    return position, ended


def decide_by_finer(
    trades: Trades,
    asked: BoolArray,
    bars: tuple[Path, IntArray, IntArray],
    replay: Callable[[int, Path, Finer], Trade | None],
    finer: Finer,
) -> None:
    """Replay those trades by themselves that finer bars can tell more about.

    Args:
        trades: all trades of a series, as its bars alone tell them; changed in place.
        asked: which to replay.
        bars: those of the series, and for each trade the first one and the end.
        replay: number of a trade, its bars and their finer ones to the trade.
        finer: gives the finer bars within the bar at an index of the path.
    """
    path, start, end = bars
    for number in map(int, np.flatnonzero(asked)):
        first, last = int(start[number]), int(end[number])
        held = Path(path.ts_us[first:last], path.prices[first:last])
        decided = replay(number, held, shifted(finer, first))
        trades.bought[number] = decided is not None
        if decided is not None:
            trades.put(number, decided, first, held)
