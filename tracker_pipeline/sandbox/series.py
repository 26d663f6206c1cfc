"""Bars and trades as columns of numpy arrays, and the roll-up of bars.

What belongs here: the shapes that the simulator and the recorded bars share. What does not: where they come
from (`prices.py`, `replay.py`) and how they are served (`exchange.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000


@dataclass(frozen=True)
class Bars:
    """Bars in ascending order, one array per column, all of the same length.

    Times are epoch milliseconds of the open, prices in quote currency, `volume` in base and `turnover` in
    quote currency.
    """

    open_ms: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    turnover: Floats

    def __len__(self) -> int:
        return len(self.open_ms)

    def __getitem__(self, rows: slice) -> "Bars":
        return Bars(*(column[rows] for column in self.columns()))

    def columns(self) -> tuple[NDArray[Any], ...]:
        """The arrays in the order of the fields."""
        return self.open_ms, self.open, self.high, self.low, self.close, self.volume, self.turnover

    def between(self, start_ms: int, end_ms: int) -> "Bars":
        """The bars whose open lies in [start_ms, end_ms)."""
        first, last = np.searchsorted(self.open_ms, [start_ms, end_ms])
        return self[int(first) : int(last)]


@dataclass(frozen=True)
class Trades:
    """Trades in ascending order, one array per column.

    `id` counts without holes, `time_ms` is the epoch time in ms, `is_buy` the side of the taker.
    """

    id: Ints
    time_ms: Ints
    price: Floats
    amount: Floats
    is_buy: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.id)

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> "Trades":
        return Trades(*(column[rows] for column in self.columns()))

    def columns(self) -> tuple[NDArray[Any], ...]:
        """The arrays in the order of the fields."""
        return self.id, self.time_ms, self.price, self.amount, self.is_buy


NO_BARS: Final = Bars(np.empty(0, np.int64), *(np.empty(0) for _ in range(6)))
NO_TRADES: Final = Trades(
    np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0, bool)
)


def roll_up(fine: Bars, step_ms: int, offset_ms: int = 0) -> Bars:
    """Return coarser bars: first open, highest high, lowest low, last close, sums; holes are stepped over.

    Args:
        fine: ascending bars of one finer step.
        step_ms: length of a coarse bar.
        offset_ms: where the grid of coarse bars starts, epoch ms.
    """
    if not len(fine):
        return fine
    bucket = (fine.open_ms - offset_ms) // step_ms
    first = np.flatnonzero(np.r_[True, bucket[1:] != bucket[:-1]])
    last = np.r_[first[1:], len(fine)] - 1
    return Bars(
        open_ms=bucket[first] * step_ms + offset_ms,
        open=fine.open[first],
        high=np.maximum.reduceat(fine.high, first),
        low=np.minimum.reduceat(fine.low, first),
        close=fine.close[last],
        # Amounts have at most 8 decimals; rounding takes away what adding floats has put behind them.
        volume=np.asarray(np.add.reduceat(fine.volume, first)).round(8),
        turnover=np.asarray(np.add.reduceat(fine.turnover, first)).round(8),
    )


def join(pieces: Sequence[Bars]) -> Bars:
    """Put bars one after another."""
    return Bars(*(np.concatenate(columns) for columns in zip(*(p.columns() for p in pieces), strict=True)))
