from collections.abc import Callable
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain.channel import ChannelConfig
from tracker_pipeline.domain.dca import DcaConfig
from tracker_pipeline.domain.features import features_15m
from tracker_pipeline.domain.schemas import SETUPS
from tracker_pipeline.domain.setups import STRATEGIES, detect
from tracker_pipeline.domain.strategy_config import Band, StrategyConfig, by_tier
from tracker_pipeline.domain.swing import SwingConfig
from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline_tests.domain.market import START, bars_from_closes, calm, random_bars, stormy

HOUR = timedelta(hours=1)


def eager(count: int, *, seed: int, symbol: str = "BTC/USDT") -> pl.DataFrame:
    """Hours that break out often, some of them missing, with volumes that reach a million dollars a day."""
    rng = np.random.default_rng(seed)
    closes = 100 * np.exp(np.cumsum(rng.normal(0.001, 0.008, count)))
    bars = bars_from_closes(closes, step=HOUR, symbol=symbol, wick=0.05, volume=rng.uniform(500, 2000, count))
    return bars.filter(pl.Series(rng.uniform(size=count) >= 0.01))


def waves(count: int, *, seed: int, symbol: str = "BTC/USDT") -> pl.DataFrame:
    """Bars that swing between lines, some of them missing."""
    rng = np.random.default_rng(seed)
    closes = 100 + 2 * np.sin(np.arange(count) / 2.3) + rng.normal(0, 0.4, count)
    bars = bars_from_closes(closes, symbol=symbol, wick=0.05)
    return bars.filter(pl.Series(rng.uniform(size=count) >= 0.001))


WIDE = by_tier(*[Band(0.03, 0.5)] * 4)
# Rules that fire often, and bars for them.
EAGER: dict[str, tuple[StrategyConfig, Callable[..., pl.DataFrame]]] = {
    "dca": (DcaConfig(tiers={"BTC": "large_cap"}), stormy),
    "swing": (SwingConfig(breakout_factor=by_tier(*[1.0] * 4), cool_down_bars=3), eager),
    "channel": (ChannelConfig(width_frac=WIDE, cool_down_bars=2), waves),
}


def found(strategy: str, bars: pl.DataFrame) -> pl.DataFrame:
    config, _ = EAGER[strategy]
    return detect(strategy, bars, features_15m(bars.clear()), calm(bars), config)


def test_an_unknown_strategy_is_refused_by_name() -> None:
    bars = bars_from_closes([1.0])
    with pytest.raises(ValueError, match="unknown strategy 'hodl'; known are dca, swing, channel"):
        detect("hodl", bars, features_15m(bars), calm(bars), DcaConfig())


def test_the_configuration_of_another_strategy_is_refused() -> None:
    bars = bars_from_closes([1.0])
    with pytest.raises(ValueError, match="swing needs a SwingConfig, not a DcaConfig"):
        detect("swing", bars, features_15m(bars), calm(bars), DcaConfig())


def test_bars_of_another_timeframe_are_refused() -> None:
    bars = random_bars(50, seed=0)
    with pytest.raises(ValueError, match="not on the 1h grid"):
        detect("swing", bars, features_15m(bars), calm(bars), SwingConfig())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_bars_give_no_setups(strategy: str) -> None:
    none = random_bars(1, seed=0).clear()
    setups = found(strategy, none)
    assert setups.schema == SETUPS.polars_schema
    assert setups.height == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=12, deadline=None)
@given(cut=st.integers(1, 899), seed=st.integers(0, 5))
def test_what_was_known_then_equals_the_full_run_in_any_order(strategy: str, cut: int, seed: int) -> None:
    config, bars_of = EAGER[strategy]
    bars = bars_of(900, seed=seed)
    end = START + cut * duration(config.timeframe)
    known = bars.filter(pl.col("ts") < end)
    whole = found(strategy, bars)
    assert whole.height
    shuffled = known.sample(fraction=1.0, shuffle=True, seed=cut)
    assert found(strategy, shuffled).equals(whole.filter(pl.col("signal_ts") < end))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_setups_of_a_day_do_not_depend_on_where_the_input_starts(strategy: str) -> None:
    config, bars_of = EAGER[strategy]
    lookback = STRATEGIES[strategy].lookback
    days = lookback.days + 30
    count = timedelta(days=days) // duration(config.timeframe)
    bars = pl.concat([bars_of(count, seed=1), bars_of(count, seed=2, symbol="X/USDT")])
    whole, compared = found(strategy, bars), 0
    for day in range(lookback.days, days):
        start = START + timedelta(days=day)
        end = start + timedelta(days=1)
        window = bars.filter(pl.col("ts").is_between(start - lookback, end, closed="left"))
        of_day = pl.col("signal_ts").is_between(start, end, closed="left")
        expected = whole.filter(of_day)
        assert found(strategy, window).filter(of_day).equals(expected)
        compared += expected.height
    assert compared > 20, compared
