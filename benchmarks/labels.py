"""Labels of every bar taken as a setup: 90 symbols x 180 days, target 2 %, stop 1 %, entry at the next open.

All give the same: outcome, bar and price of the exit, return, best and worst price while holding.

Run: .venv/bin/python -m benchmarks.labels
"""

import sys
from collections.abc import Callable

import numba
import numpy as np

from benchmarks.market import BARS, SYMBOLS, bars, medians, verdict
from tracker_pipeline.domain.barrier_trades import replay_all
from tracker_pipeline.domain.trade import REASONS, Path

TARGET, STOP = 1.02, 0.99
HORIZON, LONG_HORIZON = 96, 1440
ROUNDS = 5
Labels = tuple[np.ndarray, ...]  # outcome, exit bar, exit price, return, highest, lowest; one row per symbol
OUTCOME = np.array([{"TIME": 0, "SL": -1, "TP": 1}.get(reason, 2) for reason in REASONS])


def room(shape: tuple[int, int]) -> Labels:
    return np.empty(shape, np.int64), np.empty(shape, np.int64), *(np.empty(shape) for _ in range(4))


def ours(market: np.ndarray, horizon: int) -> Labels:
    """What `labels.label` calls for each series."""
    labels = room(market.shape[:2])
    start = np.arange(BARS)
    end = np.minimum(start + horizon, BARS)
    for symbol, prices in enumerate(market):
        opened = prices[:, 0]
        path = Path(start, prices)
        trades = replay_all(path, start, end, opened * STOP, opened * TARGET, finer=None)
        change = trades.exit_price / trades.average - 1
        found = (
            OUTCOME[trades.reason],
            trades.exit_index,
            trades.exit_price,
            change,
            trades.highest,
            trades.lowest,
        )
        for column, values in zip(labels, found, strict=True):
            column[symbol] = values
    return labels


def by_loop(opens, highs, lows, closes, horizon, out):  # type: ignore[no-untyped-def]
    """A walk over the bars of a symbol that leaves at the touch, plain or compiled."""
    outcomes, exits, prices, returns, tops, bottoms = out
    count = len(opens)
    for start in range(count):
        entry = opens[start]
        stop, target = entry * STOP, entry * TARGET
        end = min(start + horizon, count)
        outcome, index, top, bottom = 0, start, -np.inf, np.inf
        while index < end:
            if lows[index] <= stop:
                outcome = -1
                break
            if highs[index] >= target:
                outcome = 1
                break
            top, bottom = max(top, highs[index]), min(bottom, lows[index])
            index += 1
        if outcome == 0:
            index = end - 1
            price = closes[index]
        elif opens[index] <= stop or opens[index] >= target:
            price = opens[index]
            outcome = -1 if price <= stop else 1
        else:
            price = stop if outcome < 0 else target
        if index == start:
            top = bottom = price
        else:
            if outcome != 0:
                top, bottom = max(top, opens[index]), min(bottom, opens[index])
            top, bottom = max(top, price), min(bottom, price)
        outcomes[start], exits[start], prices[start] = outcome, index, price
        returns[start], tops[start], bottoms[start] = price / entry - 1, top, bottom


compiled_loop = numba.njit(by_loop)


def walked(walk: Callable[..., None], *, as_lists: bool) -> Callable[[np.ndarray, int], Labels]:
    """Labels by a walk; over lists, which Python reads three times as fast as arrays, or over arrays."""

    def run(market: np.ndarray, horizon: int) -> Labels:
        labels = room(market.shape[:2])
        for symbol, prices in enumerate(market):
            columns = [np.ascontiguousarray(column) for column in prices.T]
            rows = tuple(column[symbol] for column in labels)
            if as_lists:
                lists = tuple([0] * BARS for _ in rows)
                walk(*(column.tolist() for column in columns), horizon, lists)
                for row, values in zip(rows, lists, strict=True):
                    row[:] = values
            else:
                walk(*columns, horizon, rows)
        return labels

    return run


def main() -> int:
    """Compare, print, and say by the exit code whether all targets are met."""
    frame = bars()
    market = frame.select("open", "high", "low", "close").to_numpy(order="c").reshape(SYMBOLS, BARS, 4)
    plain, compiled = walked(by_loop, as_lists=True), walked(compiled_loop, as_lists=False)
    for horizon in (HORIZON, LONG_HORIZON):
        mine = ours(market, horizon)
        for other in (plain, compiled) if horizon == HORIZON else (compiled,):
            for number, (values, theirs) in enumerate(zip(mine, other(market, horizon), strict=True)):
                np.testing.assert_array_equal(values, theirs, err_msg=str(number))
    taken = medians(
        {
            "ours": lambda: ours(market, HORIZON),
            "ours, 1,440 bars": lambda: ours(market, LONG_HORIZON),
            "compiled walk": lambda: compiled(market, HORIZON),
        },
        ROUNDS,
    ) | medians({"Python loop": lambda: plain(market, HORIZON)}, 1)
    for name, seconds in taken.items():
        print(f"{name:18} {seconds * 1000:8.1f} ms")
    mine = taken["ours"]
    return not all(
        [
            verdict("faster than a plain Python loop", taken["Python loop"] / mine, 20, at_least=True),
            verdict("time of a compiled walk", mine / taken["compiled walk"], 3),
            verdict("growth from 96 to 1,440 bars", taken["ours, 1,440 bars"] / mine, 1.6),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
