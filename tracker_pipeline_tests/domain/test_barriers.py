import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain.barriers import Barriers
from tracker_pipeline_tests.domain.market import random_closes


def by_loop(
    high: np.ndarray, low: np.ndarray, start: int, end: int, lower: float, upper: float
) -> tuple[int, bool, bool]:
    for index in range(start, end):
        stopped, reached = bool(low[index] <= lower), bool(high[index] >= upper)
        if stopped or reached:
            return index, stopped, reached
    return end, False, False


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 300),
    longest=st.integers(1, 300),
    width=st.sampled_from([0.0, 0.002, 0.01, 0.05, 0.5]),
)
def test_touches_equal_those_of_a_plain_loop(seed: int, count: int, longest: int, width: float) -> None:
    rng = np.random.default_rng(seed)
    close = random_closes(count, seed=seed)
    high, low = close * (1 + rng.uniform(0, 0.01, count)), close * (1 - rng.uniform(0, 0.01, count))
    start = rng.integers(0, count, 200)
    end = np.minimum(count, start + rng.integers(0, longest + 1, 200))
    lower = np.where(rng.uniform(size=200) < 0.1, -np.inf, close[start] * (1 - width * rng.uniform(size=200)))
    upper = np.where(rng.uniform(size=200) < 0.1, np.inf, close[start] * (1 + width * rng.uniform(size=200)))
    touches = Barriers(high, low, longest).first_touches(start, end, lower, upper)
    expected = [by_loop(high, low, *trade) for trade in zip(start, end, lower, upper, strict=True)]
    found = zip(touches.index.tolist(), touches.stopped.tolist(), touches.reached.tolist(), strict=True)
    assert list(found) == expected


def test_a_price_that_meets_a_barrier_exactly_touches_it() -> None:
    high, low = np.array([10.0, 11.0, 12.0]), np.array([9.0, 9.5, 8.0])
    barriers = Barriers(high, low, 3)
    start, end = np.array([0, 0]), np.array([3, 3])
    touches = barriers.first_touches(start, end, np.array([8.0, 1.0]), np.array([99.0, 11.0]))
    assert touches.index.tolist() == [2, 1]
    assert touches.stopped.tolist() == [True, False]
    assert touches.reached.tolist() == [False, True]


def test_a_bar_may_touch_both_barriers() -> None:
    touches = Barriers(np.array([12.0]), np.array([8.0]), 1).first_touches(
        np.array([0]), np.array([1]), np.array([9.0]), np.array([11.0])
    )
    assert (touches.stopped[0], touches.reached[0]) == (True, True)


def test_no_trades_have_no_touches() -> None:
    nothing = np.empty(0, np.int64)
    touches = Barriers(np.ones(3), np.ones(3), 3).first_touches(nothing, nothing, np.empty(0), np.empty(0))
    assert len(touches.index) == len(touches.stopped) == 0


@pytest.mark.parametrize(("end", "longest"), [(4, 9), (3, 1)])
def test_a_trade_beyond_the_bars_or_the_tables_is_refused(end: int, longest: int) -> None:
    barriers = Barriers(np.ones(3), np.ones(3), longest)
    with pytest.raises(ValueError, match="longer"):
        barriers.first_touches(np.array([0]), np.array([end]), np.zeros(1), np.full(1, 2.0))
