"""Labels of every bar taken as a setup by the rules of each strategy: 90 symbols x 180 days, entry at the next open.

channel: target 2 %, stop 1 %. swing: target 6 %, stop 4 %, a trailing stop of 2 % from a gain of 3 % on. dca: the
grid of five orders, target and stop 3 % from the average. The peers walk over the bars of each trade until it ends,
plain or compiled, and give the same to the last bit: reason, bar and price of the exit, entry price, fills, best and
worst price while holding. The plain walks run on a tenth of the symbols, and ours beside them on the same.

Run: .venv/bin/python -m benchmarks.labels
"""

import sys
from collections.abc import Callable

import numba
import numpy as np

from benchmarks.market import BARS, SYMBOLS, bars, medians, verdict
from tracker_pipeline.domain import barrier_trades, grid_trades
from tracker_pipeline.domain.dca import Grid
from tracker_pipeline.domain.trade import REASONS, Path, Trades

HORIZON, LONG_HORIZON = 96, 1440
ROUNDS = 5
FEW = SYMBOLS // 10
TIME, STOP, TARGET, TRAIL = (REASONS.index(name) for name in ("TIME", "SL", "TP", "TRAIL"))
START = np.arange(BARS)
TRAILING = np.full(BARS, 0.02), np.full(BARS, 0.03)
THREE_PERCENT = np.full(BARS, 0.03)
# reason, exit bar, fills, exit price, entry price, highest, lowest; one row per symbol
Labels = tuple[np.ndarray, ...]
COLUMNS = ("reason", "exit_index", "fills", "exit_price", "average", "highest", "lowest")
WHOLE = 3  # so many of them are integers


def room(symbols: int) -> Labels:
    return tuple(
        np.zeros((symbols, BARS), np.int64 if number < WHOLE else float) for number in range(len(COLUMNS))
    )


def channel(path: Path, end: np.ndarray) -> Trades:
    opened = path.prices[:, 0]
    return barrier_trades.replay_all(path, START, end, opened * 0.99, opened * 1.02, finer=None)


def swing(path: Path, end: np.ndarray) -> Trades:
    opened = path.prices[:, 0]
    return barrier_trades.replay_all(
        path,
        START,
        end,
        opened * 0.96,
        opened * 1.06,
        trail_frac=TRAILING[0],
        trail_from_frac=TRAILING[1],
        finer=None,
    )


def dca(path: Path, end: np.ndarray) -> Trades:
    orders = Grid().prices(path.prices[:, 0])
    return grid_trades.replay_all(
        path, START, end, orders, tp_frac=THREE_PERCENT, sl_frac=THREE_PERCENT, finer=None
    )


def ours(strategy: Callable[[Path, np.ndarray], Trades], market: np.ndarray, horizon: int) -> Labels:
    """What `labels.label` calls for each series."""
    labels = room(len(market))
    end = np.minimum(START + horizon, BARS)
    for symbol, prices in enumerate(market):
        trades = strategy(Path(START, prices), end)
        for column, name in zip(labels, COLUMNS, strict=True):
            column[symbol] = np.where(trades.bought, getattr(trades, name), 0)
    return labels


def walk_barriers(opens, highs, lows, closes, orders, terms, start, end):  # type: ignore[no-untyped-def]
    """One trade bought at its first open: barriers and, where `terms` has one, a trailing stop."""
    down, up, trail, trail_from = terms
    entry = opens[start]
    stop, target, arms = entry * down, entry * up, entry * (1 + trail_from)
    reason, index, price = -1, start, 0.0
    above, top, bottom = entry, -np.inf, np.inf
    while index < end:
        trailing = above * (1 - trail) if above >= arms else -np.inf
        opened, high, low = opens[index], highs[index], lows[index]
        if opened <= stop or opened <= trailing or opened >= target:
            reason, price = STOP if opened <= stop else TRAIL if opened <= trailing else TARGET, opened
            break
        above = max(above, high)
        lifted = above * (1 - trail) if above >= arms else -np.inf
        if low <= stop:
            reason, price = STOP, stop
        elif high >= target:
            reason, price = TARGET, target
        elif low <= trailing:
            reason, price = TRAIL, trailing
        elif closes[index] <= lifted:
            reason, price = TRAIL, lifted
        if reason >= 0:
            break
        top, bottom = max(top, high), min(bottom, low)
        index += 1
    if reason < 0:
        reason, index = TIME, end - 1
        price = closes[index]
    if index == start:
        top = bottom = price
    else:
        last = price if reason == TIME else opens[index]
        top, bottom = max(top, price, last), min(bottom, price, last)
    return reason, index, 1, price, entry, top, bottom


def walk_grid(opens, highs, lows, closes, orders, terms, start, end):  # type: ignore[no-untyped-def]  # noqa: C901, PLR0912 - one loop, as one would write it
    """One trade that buys in steps: barriers hang from the running average."""
    down, up, _, _ = terms
    coins, filled, entered = 0.0, 0, -1
    reason, index, price = -1, start, 0.0
    top, bottom = -np.inf, np.inf
    while index < end:
        opened, high, low, close = opens[index], highs[index], lows[index], closes[index]
        waited = filled == 0
        if filled and (opened <= filled / coins * down or opened >= filled / coins * up):
            reason, price = STOP if opened <= filled / coins * down else TARGET, opened
            break
        while filled < len(orders) and opened <= orders[filled]:
            coins, filled = coins + 1 / opened, filled + 1
        had, before = filled, coins
        while filled < len(orders) and low <= orders[filled]:
            if filled and orders[filled] <= filled / coins * down:
                break
            coins, filled = coins + 1 / orders[filled], filled + 1
        if filled:
            if waited:
                entered = index
            if low <= filled / coins * down:
                reason, price = STOP, filled / coins * down
            elif had and high >= had / before * up:
                reason, price, coins, filled = TARGET, had / before * up, before, had
            elif filled > had and high >= filled / coins * up and close >= filled / coins * up:
                reason, price = TARGET, filled / coins * up
            if reason >= 0:
                break
            top, bottom = max(top, max(close, low) if waited else high), min(bottom, low)
        index += 1
    if not filled:
        return 0, 0, 0, 0.0, 0.0, 0.0, 0.0
    if reason < 0:
        reason, index = TIME, end - 1
        price = closes[index]
    if index == entered:
        top = bottom = price
    else:
        last = price if reason == TIME else opens[index]
        top, bottom = max(top, price, last), min(bottom, price, last)
    return reason, index, filled, price, filled / coins, top, bottom


def walks(one):  # type: ignore[no-untyped-def]
    """Every bar of a symbol as a trade."""

    def run(opens, highs, lows, closes, orders, terms, horizon, out):  # type: ignore[no-untyped-def]
        count = len(opens)
        for start in range(count):
            found = one(opens, highs, lows, closes, orders[start], terms, start, min(start + horizon, count))
            out[0][start], out[1][start], out[2][start] = found[0], found[1], found[2]
            out[3][start], out[4][start], out[5][start], out[6][start] = (
                found[3],
                found[4],
                found[5],
                found[6],
            )

    return run


def walked(
    walk: Callable[..., None], terms: tuple[float, ...], *, as_lists: bool
) -> Callable[[np.ndarray, int], Labels]:
    """Labels by a walk; over lists, which Python reads three times as fast as arrays, or over arrays."""

    def run(market: np.ndarray, horizon: int) -> Labels:
        labels = room(len(market))
        for symbol, prices in enumerate(market):
            columns = [np.ascontiguousarray(column) for column in prices.T]
            orders = Grid().prices(columns[0])
            rows = tuple(column[symbol] for column in labels)
            if as_lists:
                lists = tuple([0] * BARS for _ in rows)
                walk(*(column.tolist() for column in columns), orders.tolist(), terms, horizon, lists)
                for row, values in zip(rows, lists, strict=True):
                    row[:] = values
            else:
                walk(*columns, orders, terms, horizon, rows)
        return labels

    return run


STRATEGIES = {
    "channel": (channel, walk_barriers, (0.99, 1.02, np.nan, np.nan)),
    "swing": (swing, walk_barriers, (1 - 0.04, 1 + 0.06, 0.02, 0.03)),
    "dca": (dca, walk_grid, (1 - 0.03, 1 + 0.03, np.nan, np.nan)),
}


def compare(name: str, market: np.ndarray) -> list[bool]:
    """Equal answers, then the times of one strategy."""
    strategy, walk, terms = STRATEGIES[name]
    plain = walked(walks(walk), terms, as_lists=True)
    compiled = walked(numba.njit(walks(numba.njit(walk))), terms, as_lists=False)
    few = market[:FEW]
    for peer, horizon, part in (
        (plain, HORIZON, few), (compiled, HORIZON, market), (compiled, LONG_HORIZON, market)
    ):  # fmt: skip
        mine, theirs = ours(strategy, part, horizon), peer(part, horizon)
        for column, values, others in zip(COLUMNS, mine, theirs, strict=True):
            np.testing.assert_array_equal(values, others, err_msg=f"{name}, {horizon} bars: {column}")
    taken = medians(
        {
            "ours": lambda: ours(strategy, market, HORIZON),
            "ours, 1,440 bars": lambda: ours(strategy, market, LONG_HORIZON),
            "compiled walk": lambda: compiled(market, HORIZON),
            "ours, a tenth": lambda: ours(strategy, few, HORIZON),
        },
        ROUNDS,
    ) | medians({"Python loop, a tenth": lambda: plain(few, HORIZON)}, 1)
    for case, seconds in taken.items():
        print(f"{name:8} {case:22} {seconds * 1000:9.1f} ms")
    mine = taken["ours"]
    faster = taken["Python loop, a tenth"] / taken["ours, a tenth"]
    return [
        verdict(f"{name}: faster than a plain Python loop", faster, 20, at_least=True),
        verdict(f"{name}: time of a compiled walk", mine / taken["compiled walk"], 3),
        verdict(f"{name}: growth from 96 to 1,440 bars", taken["ours, 1,440 bars"] / mine, 1.6),
    ]


def main() -> int:
    """Compare, print, and say by the exit code whether all targets are met."""
    frame = bars()
    market = frame.select("open", "high", "low", "close").to_numpy(order="c").reshape(SYMBOLS, BARS, 4)
    met = [met for name in STRATEGIES for met in compare(name, market)]
    return not all(met)


if __name__ == "__main__":
    sys.exit(main())
