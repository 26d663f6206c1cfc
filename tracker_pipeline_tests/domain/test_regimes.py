from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain.regimes import DAILY_LOOKBACK, LOOKBACK, regimes
from tracker_pipeline.domain.schemas import REGIMES
from tracker_pipeline_tests.domain.market import (
    BAR,
    START,
    bars_from_closes,
    daily_bars,
    daily_from,
    random_bars,
    random_closes,
)

YESTERDAY = START - timedelta(days=1)
RISING = daily_bars(np.linspace(50, 100, 200), last=YESTERDAY)


def at_end(closes: list[float], daily: pl.DataFrame = RISING) -> dict[str, object]:
    return regimes(daily, bars_from_closes(closes)).row(-1, named=True)


def steps(*parts: tuple[int, float]) -> list[float]:
    """Prices held for a number of bars each."""
    return [price for count, price in parts for _ in range(count)]


def test_a_rise_two_hours_ago_is_no_change_within_the_hour_and_euphoria_by_the_day() -> None:
    row = at_end(steps((96, 100.0), (8, 110.0)))
    assert (row["change_1h_pct"], row["change_4h_pct"]) == pytest.approx((0.0, 10.0))
    assert row["change_24h_pct"] == pytest.approx(10.0)
    assert row["stress"] == "EUPHORIA"


@pytest.mark.parametrize(
    ("closes", "stress"),
    [
        (steps((192, 100.0)), "NORMAL"),
        (steps((192, 100.0), (4, 97.0)), "PANIC"),  # 1h -3 %
        (steps((192, 100.0), (90, 95.0)), "PANIC"),  # 24h -5 %
        (steps((192, 100.0), (10, 88.0), (80, 100.0)), "PANIC"),  # range 12 %
        (steps((192, 100.0), (4, 98.0)), "CAUTION"),  # 1h -2 %
        (steps((192, 100.0), (8, 97.0)), "CAUTION"),  # 4h -3 %
        (steps((192, 100.0), (40, 103.5), (20, 100.3)), "CAUTION"),  # below the 24 h peak
        (steps((150, 100.0), (100, 94.9)), "CAUTION"),  # below the 48 h peak
        (steps((150, 100.0), (100, 95.1)), "NORMAL"),
        (steps((192, 100.0), (4, 103.0)), "EUPHORIA"),  # 1h +3 %
        (steps((192, 100.0), (40, 92.0), (40, 100.0)), "CAUTION"),  # range 8 %
    ],
)
def test_stress_follows_its_thresholds_in_order_of_gravity(closes: list[float], stress: str) -> None:
    assert at_end(closes)["stress"] == stress


def test_euphoria_is_judged_before_the_range() -> None:
    assert at_end(steps((192, 100.0), (8, 108.5)))["stress"] == "EUPHORIA"


@pytest.mark.parametrize(
    ("closes", "trend"),
    [
        (np.linspace(50, 100, 200), "BULL"),
        (np.linspace(100, 50, 200), "BEAR"),
        (np.r_[np.linspace(50, 100, 199), 60.0], "NEUTRAL"),
        (np.linspace(50, 100, 199), "UNKNOWN"),
    ],
)
def test_trend_needs_two_hundred_days(closes: np.ndarray, trend: str) -> None:
    assert at_end([100.0] * 10, daily_bars(closes, last=YESTERDAY))["trend"] == trend


def test_a_daily_bar_counts_from_its_availability_on() -> None:
    daily = daily_bars(np.r_[np.linspace(50, 100, 200), 1.0], last=START)
    rows = regimes(daily, bars_from_closes([100.0] * 100))
    changed = rows.filter(pl.col("daily_close") == 1.0)
    # The day ends at 24:00 and is final ten minutes later; the 23:45 bar is final after two.
    assert changed["ts"].min() == START + timedelta(days=1)
    assert set(changed["trend"]) == {"NEUTRAL"}


def test_a_trend_does_not_outlive_its_daily_bars() -> None:
    stale = daily_bars(np.linspace(50, 100, 200), last=START - timedelta(days=3))
    assert at_end([100.0] * 10, stale)["trend"] == "UNKNOWN"


def test_two_hundred_days_with_a_long_hole_are_not_two_hundred_days() -> None:
    daily = daily_bars(np.linspace(50, 100, 230), last=YESTERDAY)
    hole = daily.filter(~pl.int_range(pl.len()).is_between(100, 114))
    assert at_end([100.0] * 10, hole)["trend"] == "UNKNOWN"


def test_short_history_is_unknown_stress() -> None:
    assert at_end([100.0] * 60)["stress"] == "UNKNOWN"
    assert at_end([100.0] * 120)["stress"] == "UNKNOWN"  # the 48 h peak is not known
    assert at_end([100.0] * 183)["stress"] == "NORMAL"


@pytest.mark.parametrize(("missing", "stress"), [(4, "NORMAL"), (5, "UNKNOWN")])
def test_more_than_five_percent_missing_is_unknown(missing: int, stress: str) -> None:
    bars = bars_from_closes([100.0] * 300).filter(~pl.int_range(pl.len()).is_between(250, 249 + missing))
    assert regimes(RISING, bars)["stress"][-1] == stress


def test_a_change_whose_other_end_is_missing_leaves_the_stress_open() -> None:
    bars = bars_from_closes([100.0] * 300).filter(pl.int_range(pl.len()) != 295)
    row = regimes(RISING, bars).row(-1, named=True)
    assert row["change_1h_pct"] is None
    assert row["stress"] == "UNKNOWN"


def test_bars_of_two_coins_are_refused() -> None:
    two = pl.concat([bars_from_closes([1.0], symbol="BTC/USDT"), bars_from_closes([1.0], symbol="ETH/USDT")])
    with pytest.raises(ValueError, match="one coin"):
        regimes(RISING, two)


def test_without_daily_bars_the_trend_is_unknown_and_the_frame_complete() -> None:
    rows = regimes(RISING.clear(), bars_from_closes([100.0] * 10))
    assert rows.schema == REGIMES.polars_schema
    assert rows["trend"].unique().to_list() == ["UNKNOWN"]


@settings(max_examples=15, deadline=None)
@given(cut=st.integers(1, 399), seed=st.integers(0, 2**32 - 1))
def test_what_was_known_then_equals_the_full_run_in_any_order(cut: int, seed: int) -> None:
    bars = random_bars(400, seed=3, holes=0.03)
    daily = daily_bars(random_closes(215, seed=4, scale=0.03), last=START + timedelta(days=10))
    then = START + cut * BAR + timedelta(minutes=2)
    known_bars = bars.filter(pl.col("ts") < START + cut * BAR).sample(fraction=1.0, shuffle=True, seed=seed)
    known_daily = daily.filter(pl.col("ts") + timedelta(days=1, minutes=10) <= then)
    known = regimes(known_daily, known_bars)
    assert known.equals(regimes(daily, bars).filter(pl.col("available_at") <= then))


def test_a_day_needs_no_more_than_the_look_back() -> None:
    bars = random_bars(230 * 96, seed=5)
    daily = daily_from(bars)
    start = START + timedelta(days=228)
    part = regimes(
        daily.filter(pl.col("ts") >= start - DAILY_LOOKBACK), bars.filter(pl.col("ts") >= start - LOOKBACK)
    )
    wanted = pl.col("ts") >= start
    whole = regimes(daily, bars).filter(wanted)
    assert "UNKNOWN" not in {*whole["trend"], *whole["stress"]}
    assert part.filter(wanted).equals(whole)
