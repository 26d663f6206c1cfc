"""All trades of a series at once end as each of them does on its own."""

from dataclasses import fields

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain import barrier_trade
from tracker_pipeline.domain.barrier_trade import Barriers
from tracker_pipeline.domain.barrier_trades import replay_all
from tracker_pipeline.domain.trade import Finer, Path, Trades, shifted

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
    path: Path, start: np.ndarray, end: np.ndarray, stop: np.ndarray, target: np.ndarray, finer: Finer
) -> Trades:
    trades = Trades.empty(len(start))
    for number, (first, last) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        held = Path(path.ts_us[first:last], path.prices[first:last])
        barriers = Barriers(float(held.prices[0, 0]), float(target[number]), float(stop[number]))
        trade = barrier_trade.replay(held, barriers, finer=shifted(finer, first))
        if trade is not None:
            trades.put(number, trade, first, held)
    return trades


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(2, 120),
    horizon=st.integers(1, 60),
    with_fine=st.booleans(),
)
def test_trades_side_by_side_equal_trades_one_by_one(
    seed: int, count: int, horizon: int, with_fine: bool
) -> None:
    rng = np.random.default_rng(seed)
    path = gapping_path(count, seed=seed)
    start = np.arange(count)
    end = np.minimum(start + horizon, count)
    stop = path.prices[:, 0] * (1 - rng.uniform(-0.002, 0.03, count))
    target = path.prices[:, 0] * (1 + rng.uniform(-0.002, 0.03, count))
    finer = fine_of(path, seed)
    expected = one_by_one(path, start, end, stop, target, finer if with_fine else lambda _: NOTHING)
    found = replay_all(path, start, end, stop, target, finer=finer if with_fine else None)
    bought = expected.bought
    np.testing.assert_array_equal(found.bought, bought)
    for field in fields(Trades):
        np.testing.assert_array_equal(
            getattr(found, field.name)[bought], getattr(expected, field.name)[bought], err_msg=field.name
        )
