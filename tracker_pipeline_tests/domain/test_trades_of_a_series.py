"""All trades of a series at once end as each of them does on its own, to the last bit."""

from collections.abc import Callable
from dataclasses import fields

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain import barrier_trade, barrier_trades, grid_trade, grid_trades
from tracker_pipeline.domain.barrier_trade import Barriers, Trailing
from tracker_pipeline.domain.trade import Finer, Path, Trade, Trades, shifted

NOTHING = Path(np.empty(0, np.int64), np.empty((0, 4)))


def gapping_path(count: int, *, seed: int, step: int = 1) -> Path:
    """Bars whose opens jump, so that some lie beyond a barrier."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, count)))
    opened = np.r_[100.0, close[:-1]] * np.exp(rng.normal(0, 0.004, count))
    high = np.maximum(opened, close) * (1 + rng.uniform(0, 0.01, count))
    low = np.minimum(opened, close) * (1 - rng.uniform(0, 0.01, count))
    return Path(np.arange(0, count * step, step), np.column_stack([opened, high, low, close]))


def fine_of(path: Path, seed: int) -> Finer:
    """Three bars within each bar, of which one has its high and another its low, in an order by chance."""
    first_high = np.random.default_rng(seed).uniform(size=len(path.ts_us)) < 0.5

    def finer(index: int) -> Path:
        opened, high, low, close = path.prices[index]
        up, down = (opened, high, opened, opened), (opened, opened, low, low)
        order = [up, down] if first_high[index] else [down, up]
        return Path(np.arange(3), np.array([*order, (close, close, close, close)]))

    return finer


def one_by_one(
    path: Path,
    start: np.ndarray,
    end: np.ndarray,
    replay: Callable[[int, Path, Finer], Trade | None],
    finer: Finer,
) -> Trades:
    trades = Trades.empty(len(start))
    for number, (first, last) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        held = Path(path.ts_us[first:last], path.prices[first:last])
        trade = replay(number, held, shifted(finer, first))
        if trade is not None:
            trades.put(number, trade, first, held)
    return trades


def assert_equal(found: Trades, expected: Trades) -> None:
    bought = expected.bought
    np.testing.assert_array_equal(found.bought, bought)
    for field in fields(Trades):
        np.testing.assert_array_equal(
            getattr(found, field.name)[bought], getattr(expected, field.name)[bought], err_msg=field.name
        )


markets = given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(2, 120),
    horizon=st.integers(1, 60),
    with_fine=st.booleans(),
)


@settings(max_examples=100, deadline=None)
@markets
def test_barrier_trades_side_by_side_equal_barrier_trades_one_by_one(
    seed: int, count: int, horizon: int, with_fine: bool
) -> None:
    rng = np.random.default_rng(seed)
    path = gapping_path(count, seed=seed)
    start = np.arange(count)
    end = np.minimum(start + horizon, count)
    stop = path.prices[:, 0] * (1 - rng.uniform(-0.002, 0.03, count))
    target = path.prices[:, 0] * (1 + rng.uniform(-0.002, 0.05, count))
    # A third without a trailing stop; some are armed from the beginning.
    trail = np.where(rng.uniform(size=count) < 1 / 3, np.nan, rng.uniform(0.001, 0.02, count))
    trail_from = np.where(np.isnan(trail), np.nan, rng.uniform(-0.002, 0.02, count))
    finer = fine_of(path, seed) if with_fine else None

    def replay(number: int, held: Path, of_bar: Finer) -> Trade | None:
        trailing = None
        if not np.isnan(trail[number]):
            trailing = Trailing(float(trail[number]), float(trail_from[number]))
        barriers = Barriers(float(held.prices[0, 0]), float(target[number]), float(stop[number]), trailing)
        return barrier_trade.replay(held, barriers, finer=of_bar)

    expected = one_by_one(path, start, end, replay, finer or (lambda _: NOTHING))
    found = barrier_trades.replay_all(
        path, start, end, stop, target, trail_frac=trail, trail_from_frac=trail_from, finer=finer
    )
    assert_equal(found, expected)


@settings(max_examples=100, deadline=None)
@markets
def test_grid_trades_side_by_side_equal_grid_trades_one_by_one(
    seed: int, count: int, horizon: int, with_fine: bool
) -> None:
    rng = np.random.default_rng(seed)
    path = gapping_path(count, seed=seed)
    start = np.arange(count)
    end = np.minimum(start + horizon, count)
    levels = 1 - np.cumsum(rng.uniform(0.0005, 0.01, (count, 4)), axis=1)
    # Some first orders lie above the open and are filled there.
    orders = path.prices[:, :1] * (levels + rng.uniform(0, 0.01, (count, 1)))
    tp_frac, sl_frac = rng.uniform(0.002, 0.03, count), rng.uniform(0.002, 0.03, count)
    finer = fine_of(path, seed) if with_fine else None

    def replay(number: int, held: Path, of_bar: Finer) -> Trade | None:
        return grid_trade.replay(
            held,
            orders[number].tolist(),
            tp_frac=float(tp_frac[number]),
            sl_frac=float(sl_frac[number]),
            finer=of_bar,
        )

    expected = one_by_one(path, start, end, replay, finer or (lambda _: NOTHING))
    found = grid_trades.replay_all(path, start, end, orders, tp_frac=tp_frac, sl_frac=sl_frac, finer=finer)
    assert_equal(found, expected)
