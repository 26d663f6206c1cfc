"""The search finds what a plain walk over the bars finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain.first_touch import tables, touch
from tracker_pipeline_tests.domain.market import random_closes

Found = tuple[int, float, float]


def walked(high: np.ndarray, low: np.ndarray, start: int, end: int, lower: float, upper: float) -> Found:
    top, bottom = -np.inf, np.inf
    for index in range(start, end):
        if low[index] <= lower or high[index] >= upper:
            return index, top, bottom
        top, bottom = max(top, high[index]), min(bottom, low[index])
    return end, top, bottom


def searched(
    high: np.ndarray, low: np.ndarray, start: int, end: int, lower: float, upper: float, longest: int = 3
) -> Found:
    highest, lowest = tables(high, longest, np.maximum), tables(low, longest, np.minimum)
    return touch(highest, lowest, start, end, lower, upper)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 300),
    longest=st.integers(1, 300),
    width=st.sampled_from([0.0, 0.002, 0.01, 0.05, 0.5]),
)
def test_touches_equal_those_of_a_plain_walk(seed: int, count: int, longest: int, width: float) -> None:
    rng = np.random.default_rng(seed)
    close = random_closes(count, seed=seed)
    high, low = close * (1 + rng.uniform(0, 0.01, count)), close * (1 - rng.uniform(0, 0.01, count))
    highest, lowest = tables(high, longest, np.maximum), tables(low, longest, np.minimum)
    for start in rng.integers(0, count, 30).tolist():
        end = min(count, start + int(rng.integers(0, longest + 1)))
        lower = -np.inf if rng.uniform() < 0.1 else close[start] * (1 - width * rng.uniform())
        upper = np.inf if rng.uniform() < 0.1 else close[start] * (1 + width * rng.uniform())
        expected = walked(high, low, start, end, lower, upper)
        assert touch(highest, lowest, start, end, lower, upper) == expected


@pytest.mark.parametrize(("lower", "upper", "index"), [(8.0, 99.0, 2), (1.0, 11.0, 1), (-np.inf, np.inf, 3)])
def test_a_price_that_meets_a_barrier_exactly_touches_it(lower: float, upper: float, index: int) -> None:
    high, low = np.array([10.0, 11.0, 12.0]), np.array([9.0, 9.5, 8.0])
    assert searched(high, low, 0, 3, lower, upper)[0] == index


def test_a_search_over_no_bars_touches_nothing() -> None:
    assert searched(np.ones(3), np.ones(3), 3, 3, 1.0, 1.0) == (3, -np.inf, np.inf)
