"""Bars of every odd kind: a value or NULL with a reason, never nonsense, and never at the cost of other coins."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from tracker_pipeline.domain.dca import DcaConfig
from tracker_pipeline.domain.feature_catalogue import NUMBERS
from tracker_pipeline.domain.features import features_15m
from tracker_pipeline.domain.setups import STRATEGIES, detect
from tracker_pipeline_tests.domain.chain import chain
from tracker_pipeline_tests.domain.market import START, bars_from_closes, daily_bars, random_closes

COUNT = 12 * 96
DAILY = daily_bars(100 * 1.01 ** np.arange(230), last=START + timedelta(days=12)).with_columns(
    available_at=pl.col("ts") + timedelta(days=1, minutes=10)
)


def series(symbol: str, closes: np.ndarray, volume: float | np.ndarray = 10.0) -> pl.DataFrame:
    bars = bars_from_closes(closes, symbol=symbol, volume=volume)
    return bars.with_columns(available_at=pl.col("ts") + timedelta(minutes=17))


BTC = series("BTC/USDT", random_closes(COUNT, seed=1, scale=0.0005))
GOOD = series("GOOD/USDT", random_closes(COUNT, seed=2, scale=0.009))
ODD = {
    "ten bars": series("ODD/USDT", random_closes(10, seed=3)),
    "one bar": series("ODD/USDT", np.array([5.0])),
    "flat": series("ODD/USDT", np.full(COUNT, 7.0)),
    "nothing traded": series("ODD/USDT", random_closes(COUNT, seed=4), volume=0.0),
    "sub-cent": series("ODD/USDT", random_closes(COUNT, seed=5, scale=0.009, price=0.00001234)),
    "tiny": series("ODD/USDT", random_closes(COUNT, seed=6, price=1e-12)),
    "huge supply": series("ODD/USDT", random_closes(COUNT, seed=7), volume=1e17),
    "huge price": series("ODD/USDT", random_closes(COUNT, seed=8, price=1e12)),
    "price of zero": series("ODD/USDT", np.zeros(COUNT)),
    "falls to zero": series("ODD/USDT", np.r_[random_closes(600, seed=9), np.zeros(COUNT - 600)]),
    "mostly holes": series("ODD/USDT", random_closes(COUNT, seed=10)).filter(pl.int_range(pl.len()) % 7 == 0),
    "a week missing": series("ODD/USDT", random_closes(COUNT, seed=11)).filter(
        ~pl.int_range(pl.len()).is_between(200, 900)
    ),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_no_value_is_nan_or_infinite_and_every_null_has_a_reason(odd: pl.DataFrame) -> None:
    features = features_15m(odd)
    assert features.height == odd.height
    for name in NUMBERS:
        assert features[name].drop_nulls().is_finite().all(), name
        lacking = features["null_reasons"].str.json_path_match(f"$.{name}").is_not_null()
        assert features[name].is_null().equals(lacking.alias(name)), name


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_a_bad_coin_changes_nothing_for_the_others(odd: pl.DataFrame) -> None:
    config = DcaConfig(drop_pct=-4.0)
    alone = chain("dca", pl.concat([BTC, GOOD]), BTC, DAILY, config=config)
    beside = chain("dca", pl.concat([odd, BTC, GOOD]), BTC, DAILY, config=config)
    others = pl.col("symbol") != "ODD/USDT"
    assert alone.setups.height
    for name in ("features", "setups", "labels"):
        assert getattr(beside, name).filter(others).equals(getattr(alone, name)), name


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_detectors_take_odd_bars_as_they_come(strategy: str, odd: pl.DataFrame) -> None:
    config = STRATEGIES[strategy].config()
    bars = odd if config.timeframe == "15m" else odd.filter(pl.col("ts").dt.minute() == 0)
    regimes = chain("dca", BTC, BTC, DAILY).regimes
    found = detect(strategy, bars, features_15m(odd), regimes, config)
    assert set(found["side"]) <= {"BUY"}
    assert found["ref_price"].is_finite().all()


def test_a_price_below_a_cent_keeps_its_digits() -> None:
    factor = 1e-7
    small = GOOD.with_columns(pl.col("open", "high", "low", "close") * factor)
    ours, theirs = features_15m(small), features_15m(GOOD)
    for name in ("ret_24h", "rsi_14", "bb_position", "atr_14", "stoch_k", "vol_24h"):
        np.testing.assert_allclose(ours[name].drop_nulls(), theirs[name].drop_nulls(), rtol=1e-9, atol=1e-9)
    found = chain("dca", pl.concat([BTC, small]), BTC, DAILY, config=DcaConfig(drop_pct=-4.0))
    assert 0 < found.setups["ref_price"].max() < 1e-4
    assert (found.labels["entry_price"].drop_nulls() > 0).all()


def test_bars_given_twice_are_one_clear_error() -> None:
    with pytest.raises(ValueError, match="share venue, symbol and ts with another bar"):
        features_15m(pl.concat([GOOD, GOOD.head(1)]))


def test_without_btc_nothing_is_bought_and_features_say_why() -> None:
    found = chain("dca", GOOD, BTC.clear(), DAILY.clear(), config=DcaConfig(drop_pct=-4.0))
    assert found.setups.is_empty()
    assert found.features["null_reasons"].str.contains('"btc_ret_1h":"no_reference"').all()
