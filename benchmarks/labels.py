"""Labels of every bar taken as a setup: 90 symbols x 180 days, target 2 %, stop 1 %, entry at the next open.

Run: .venv/bin/python -m benchmarks.labels
"""

import sys

import numba
import numpy as np

from benchmarks.market import BARS, SYMBOLS, bars, medians, verdict
from tracker_pipeline.domain.barriers import Barriers

TARGET, STOP = 1.02, 0.99
HORIZON, LONG_HORIZON = 96, 1440
ROUNDS = 7
Market = tuple[np.ndarray, np.ndarray, np.ndarray]  # open, high, low, one row per symbol


def by_tables(market: Market, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Ours: -1 stop, 1 target, 0 neither, and the bar of the touch."""
    opened, high, low = market
    outcome, touched = np.empty(opened.shape, np.int8), np.empty(opened.shape, np.int64)
    start = np.arange(BARS)
    end = np.minimum(start + horizon, BARS)
    for symbol in range(len(opened)):
        touches = Barriers(high[symbol], low[symbol], horizon).first_touches(
            start, end, opened[symbol] * STOP, opened[symbol] * TARGET
        )
        touched[symbol] = touches.index
        outcome[symbol] = np.where(touches.stopped, -1, touches.reached.astype(np.int8))
    return outcome, touched


def by_python(market: Market, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """A plain loop over arrays (as lists, which Python reads three times as fast)."""
    outcomes, touches = [], []
    for opened, high, low in zip(*(array.tolist() for array in market), strict=True):
        for start, price in enumerate(opened):
            stop, target = price * STOP, price * TARGET
            end = min(start + horizon, BARS)
            outcome, index = 0, start
            while index < end:
                if low[index] <= stop:
                    outcome = -1
                    break
                if high[index] >= target:
                    outcome = 1
                    break
                index += 1
            outcomes.append(outcome)
            touches.append(index)
    shape = market[0].shape
    return np.array(outcomes, np.int8).reshape(shape), np.array(touches).reshape(shape)


@numba.njit(parallel=False)
def _scan(opened, high, low, horizon, outcome, touched):  # type: ignore[no-untyped-def]
    symbols, count = opened.shape
    for symbol in range(symbols):
        for start in range(count):
            stop, target = opened[symbol, start] * STOP, opened[symbol, start] * TARGET
            end = min(start + horizon, count)
            found, index = 0, start
            while index < end:
                if low[symbol, index] <= stop:
                    found = -1
                    break
                if high[symbol, index] >= target:
                    found = 1
                    break
                index += 1
            outcome[symbol, start], touched[symbol, start] = found, index


def by_kernel(market: Market, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """A compiled scan that leaves at the touch."""
    outcome, touched = np.empty(market[0].shape, np.int8), np.empty(market[0].shape, np.int64)
    _scan(*market, horizon, outcome, touched)
    return outcome, touched


def main() -> int:
    """Compare, print, and say by the exit code whether all targets are met."""
    frame = bars()
    market: Market = tuple(frame[name].to_numpy().reshape(SYMBOLS, BARS) for name in ("open", "high", "low"))
    for horizon in (HORIZON, LONG_HORIZON):
        ours = by_tables(market, horizon)
        for other in (by_python, by_kernel):
            for mine, theirs in zip(ours, other(market, horizon), strict=True):
                np.testing.assert_array_equal(mine, theirs)
    cases = {
        "ours": lambda: by_tables(market, HORIZON),
        "ours, 1,440 bars": lambda: by_tables(market, LONG_HORIZON),
        "compiled scan": lambda: by_kernel(market, HORIZON),
        "Python loop": lambda: by_python(market, HORIZON),
    }
    taken = medians(cases, ROUNDS)
    for name, seconds in taken.items():
        print(f"{name:18} {seconds * 1000:8.1f} ms")
    ours = taken["ours"]
    return not all(
        [
            verdict("faster than a plain Python loop", taken["Python loop"] / ours, 20, at_least=True),
            verdict("time of a compiled barrier kernel", ours / taken["compiled scan"], 3),
            verdict("growth from 96 to 1,440 bars", taken["ours, 1,440 bars"] / ours, 1.6),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
