import json
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain.bars import resample
from tracker_pipeline.domain.features import features_15m
from tracker_pipeline.domain.regimes import regimes
from tracker_pipeline.domain.setups import detect
from tracker_pipeline.domain.strategy_config import by_tier
from tracker_pipeline.domain.swing import SwingConfig
from tracker_pipeline_tests.domain.market import (
    BAR,
    START,
    bars_from_closes,
    calm,
    daily_from,
    random_bars,
    random_closes,
    real_bars,
)

HOUR = timedelta(hours=1)
CONFIG = SwingConfig(tiers={"BTC": "large_cap", "ETH": "mid_cap", "PEPE": "memecoin"})


def found(
    bars: pl.DataFrame, regime: pl.DataFrame | None = None, config: SwingConfig = CONFIG
) -> pl.DataFrame:
    return detect("swing", bars, features_15m(bars.clear()), calm(bars) if regime is None else regime, config)


def fired(bars: pl.DataFrame, config: SwingConfig = CONFIG) -> list[int]:
    """Numbers of the bars that are events."""
    return sorted(int((ts - START) / HOUR) for ts in found(bars, config=config)["signal_ts"])


def breakout(
    *,
    rise_pct: float = 1.1,
    surge: float = 2.0,
    before: int = 100,
    drift: float = 0.02,
    swing: float = 0.5,
    sag: float = 0.0,
    volume: float = 1000.0,
    symbol: str = "BTC/USDT",
) -> pl.DataFrame:
    """Hours that zigzag around a line, sag at its end, and close above the highest high of the 20 before."""
    i = np.arange(before)
    closes = 100 + drift * i + swing * (i % 2) - sag * np.maximum(0, i - before + 20)
    bars = bars_from_closes(closes, step=HOUR, symbol=symbol)
    last = bars["high"].tail(20).max() * (1 + rise_pct / 100)  # type: ignore[operator]
    volumes = np.r_[np.full(before, volume), surge * volume]
    return bars_from_closes(np.r_[closes, last], step=HOUR, symbol=symbol, volume=volumes)


def evidence_of(bars: pl.DataFrame, config: SwingConfig = CONFIG) -> dict[str, float]:
    evidence: dict[str, float] = json.loads(found(bars, config=config)["evidence"][0])
    return evidence


def test_a_close_above_the_high_of_the_twenty_bars_before_is_a_setup() -> None:
    setup = found(breakout()).row(0, named=True)
    assert setup["signal_ts"] == START + 100 * HOUR
    assert (setup["strategy"], setup["timeframe"], setup["side"]) == ("swing", "1h", "BUY")
    assert (setup["tier"], setup["tp_pct"], setup["sl_pct"]) == ("large_cap", 5.0, 3.0)
    assert (setup["horizon_hours"], setup["trend"], setup["stress"]) == (48, "BULL", "NORMAL")
    evidence = json.loads(setup["evidence"])
    assert evidence["breakout_pct"] == pytest.approx(1.1)
    assert evidence["volume_surge"] == pytest.approx(2.0)
    assert setup["ref_price"] == pytest.approx(1.011 * evidence["resistance"])
    assert (evidence["trail_pct"], evidence["trail_from_pct"]) == (2.5, 2.5)


@pytest.mark.parametrize("seed", range(5))
def test_a_random_walk_without_breakout_has_no_setup(seed: int) -> None:
    closes = random_closes(600, seed=seed, scale=0.001)
    bars = bars_from_closes(closes, step=HOUR, volume=np.random.default_rng(seed).uniform(500, 5000, 600))
    assert fired(bars) == []


def test_the_own_high_of_a_bar_does_not_hide_its_breakout() -> None:
    last = pl.int_range(pl.len()) == 100
    spike = breakout().with_columns(high=pl.when(last).then(pl.col("high") * 1.05).otherwise("high"))
    assert fired(spike) == [100]


@pytest.mark.parametrize(
    ("symbol", "rise_pct", "surge"),
    [
        ("BTC/USDT", 0.8, 1.2),
        ("ETH/USDT", 1.0, 1.3),
        ("NEW/USDT", 1.5, 1.4),
        ("PEPE/USDT:USDT", 2.0, 1.5),
    ],
)
def test_breakout_and_volume_must_exceed_the_thresholds_of_the_tier(
    symbol: str, rise_pct: float, surge: float
) -> None:
    more = 1.001
    assert fired(breakout(symbol=symbol, rise_pct=rise_pct * more, surge=surge * more)) == [100]
    assert fired(breakout(symbol=symbol, rise_pct=rise_pct / more, surge=surge * more)) == []
    assert fired(breakout(symbol=symbol, rise_pct=rise_pct * more, surge=surge / more)) == []


@pytest.mark.parametrize(
    ("bars", "why"),
    [
        (breakout(swing=0.1, drift=0.1), "the RSI is above its band"),
        (breakout(drift=-0.01), "the short average is below the long one"),
        (breakout(volume=350.0), "less than a million dollars were traded in 24 hours"),
        (breakout(volume=0.0), "nothing was traded before"),
    ],
)
def test_a_breakout_that_nothing_confirms_is_not_bought(bars: pl.DataFrame, why: str) -> None:
    assert fired(bars) == [], why


def test_the_dollar_volume_is_that_of_24_hours() -> None:
    evidence = evidence_of(breakout(volume=500.0))
    bars = breakout(volume=500.0).tail(24)
    assert evidence["dollar_volume_24h_usd"] == pytest.approx((bars["close"] * bars["volume"]).sum())
    assert evidence["dollar_volume_24h_usd"] > 1e6


def test_a_coin_that_moves_too_much_in_an_hour_is_not_bought() -> None:
    wild = breakout().with_columns(low=pl.col("close") * 0.85)
    assert fired(wild) == []
    assert fired(wild, SwingConfig(tiers=CONFIG.tiers, max_atr_pct=20.0)) == [100]


@pytest.mark.parametrize(
    ("moderate", "volatile", "expected"),
    [(3.0, 5.0, ("stable", 5, 3)), (0.3, 5.0, ("moderate", 8, 4)), (0.2, 0.3, ("volatile", 12, 5))],
)
def test_exits_follow_the_volatility_of_twenty_hours(
    moderate: float, volatile: float, expected: tuple[str, float, float]
) -> None:
    config = SwingConfig(tiers=CONFIG.tiers, moderate_from_pct=moderate, volatile_from_pct=volatile)
    setup = found(breakout(), config=config).row(0, named=True)
    evidence = json.loads(setup["evidence"])
    assert (evidence["volatility_class"], setup["tp_pct"], setup["sl_pct"]) == expected
    returns = breakout()["close"].pct_change().tail(20)
    assert evidence["volatility_pct"] == pytest.approx(100 * returns.std())  # type: ignore[operator]


@pytest.mark.parametrize(
    ("trend", "stress", "events"),
    [
        ("BULL", "NORMAL", 1),
        ("NEUTRAL", "CAUTION", 1),
        ("BEAR", "EUPHORIA", 1),
        ("UNKNOWN", "NORMAL", 0),
        ("BULL", "PANIC", 0),
        ("BULL", "UNKNOWN", 0),
    ],
)
def test_nothing_is_bought_in_a_regime_that_forbids_it(trend: str, stress: str, events: int) -> None:
    bars = breakout()
    assert found(bars, calm(bars, trend=trend, stress=stress)).height == events


def test_the_regime_of_an_hour_is_that_of_its_last_quarter_if_known_by_then() -> None:
    bars = breakout()
    quarters = calm(pl.concat([bars.select("venue", pl.col("ts") + k * BAR) for k in range(4)]))
    last_quarter = pl.col("ts") == START + 100 * HOUR + 3 * BAR
    panic = quarters.with_columns(stress=pl.when(last_quarter).then(pl.lit("PANIC")).otherwise("stress"))
    late = quarters.with_columns(pl.col("available_at") + pl.duration(minutes=1))
    assert found(bars, quarters).height == 1
    assert found(bars, panic).height == 0
    assert found(bars, late).height == 0
    assert found(bars, quarters.filter(pl.col("ts") < START + 100 * HOUR)).height == 0


def test_the_score_adds_up_and_momentum_has_three_signs() -> None:
    setup = found(breakout()).row(0, named=True)
    evidence = json.loads(setup["evidence"])
    parts = [evidence[f"{part}_points"] for part in ("breakout", "volume", "trend", "momentum", "day_change")]
    assert parts[:3] == [30, 20, 20]
    assert setup["score"] == sum(parts)
    assert parts[3:] == [5, 0]  # the RSI lies within 45 to 75; MACD was above its signal before


def test_momentum_counts_rsi_a_crossing_of_macd_and_a_rise_of_five_percent_in_14_hours() -> None:
    sagging = breakout(sag=0.04)
    assert evidence_of(sagging)["momentum_points"] == 10
    assert evidence_of(sagging.filter(pl.int_range(pl.len()) != 99))["momentum_points"] == 5
    far = evidence_of(breakout(rise_pct=5.0, swing=2.5))
    assert far["change_14h_pct"] > 5
    assert far["momentum_points"] == 10


def test_a_day_that_rose_between_three_and_fifteen_percent_scores() -> None:
    steep = breakout(drift=0.12, swing=1.5, rise_pct=1.0)
    evidence = evidence_of(steep)
    assert 3 < evidence["change_24h_pct"] < 15
    assert evidence["day_change_points"] == 15


@pytest.mark.parametrize(("second", "events"), [(123, [100]), (124, [100, 124])])
def test_events_are_24_bars_apart(second: int, events: list[int]) -> None:
    first = breakout()
    price = first["close"][-1]
    rest = price - 0.4 * (np.arange(second - 101) % 2)
    closes = np.r_[first["close"].to_numpy(), rest, price * 1.02]
    volumes = np.r_[first["volume"].to_numpy(), np.full(second - 101, 1000.0), 3000.0]
    wide = SwingConfig(tiers=CONFIG.tiers, rsi_band=by_tier(*[CONFIG.rsi_band["memecoin"]] * 4))
    assert fired(bars_from_closes(closes, step=HOUR, volume=volumes), wide) == events


@pytest.mark.parametrize(("missing", "events"), [(2, 1), (3, 0)])
def test_eighteen_of_the_twenty_bars_before_must_exist(missing: int, events: int) -> None:
    bars = breakout().filter(~pl.int_range(pl.len()).is_between(85, 84 + missing))
    assert len(fired(bars)) == events


def wilder(bars: pl.DataFrame) -> tuple[float, float]:
    """RSI and ATR in % by a plain loop over the whole history."""
    gain = loss = 0.0
    rows = bars.select("high", "low", "close").rows()
    atr = rows[0][0] - rows[0][1]
    for (_, _, before), (high, low, close) in pairwise(rows):
        gain += (max(close - before, 0.0) - gain) / 14
        loss += (max(before - close, 0.0) - loss) / 14
        atr += (max(high - low, abs(high - before), abs(low - before)) - atr) / 14
    return 100 * gain / (gain + loss), 100 * atr / rows[-1][2]


def test_rsi_and_atr_are_wilders_from_whatever_history_there_is() -> None:
    for before in (60, 100, 700):
        bars = breakout(before=before)
        evidence = evidence_of(bars)
        rsi, atr_pct = wilder(bars)
        assert evidence["rsi_14_1h"] == pytest.approx(rsi, rel=1e-8)
        assert evidence["atr_14_pct"] == pytest.approx(atr_pct, rel=1e-8)


def test_features_of_the_last_quarter_are_recorded() -> None:
    bars = breakout()
    quarters = random_bars(404, seed=1)
    features = features_15m(quarters)
    setup = detect("swing", bars, features, calm(bars), CONFIG).row(0, named=True)
    last = features.filter(pl.col("ts") == START + 100 * HOUR + 3 * BAR).row(0, named=True)
    evidence = json.loads(setup["evidence"])
    assert evidence["rsi_14"] == last["rsi_14"] is not None
    assert evidence["feature_set_version"] == last["feature_set_version"]


def test_prices_far_below_a_cent_are_judged_alike() -> None:
    scale = 1e-7
    small = breakout(volume=1000.0 / scale).with_columns(pl.col("open", "high", "low", "close") * scale)
    assert fired(small) == [100]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100), scale=st.floats(0.001, 0.05))
def test_scores_stay_between_zero_and_one_hundred(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    closes = random_closes(400, seed=seed, scale=scale)
    bars = bars_from_closes(closes, step=HOUR, volume=rng.uniform(1e5, 1e6, 400))
    setups = found(bars, config=SwingConfig(breakout_factor=by_tier(*[1.0] * 4)))
    assert setups["score"].is_between(70, 100).all()
    assert setups["sl_pct"].is_in([3.0, 4.0, 5.0]).all()


def plain_events(bars: pl.DataFrame, factor: float, surge: float) -> list[int]:
    """The rules of a mid-cap coin bar by bar, with one state from the first bar to the last."""
    high, low, close, volume = (bars[name].to_numpy() for name in ("high", "low", "close", "volume"))
    gain = loss = 0.0
    atr, fires, left = high[0] - low[0], list[int](), True
    for t in range(1, len(close)):
        gain += (max(close[t] - close[t - 1], 0.0) - gain) / 14
        loss += (max(close[t - 1] - close[t], 0.0) - loss) / 14
        reach = max(high[t] - low[t], abs(high[t] - close[t - 1]), abs(low[t] - close[t - 1]))
        atr += (reach - atr) / 14
        if t < 50 or close[t] <= high[t - 20 : t].max() * factor:
            left = True
            continue
        confirmed = (
            volume[t] > surge * volume[t - 20 : t].mean()
            and close[t] > close[t - 19 : t + 1].mean() > close[t - 49 : t + 1].mean()
            and (close[t - 23 : t + 1] * volume[t - 23 : t + 1]).sum() >= 1e6
            and 45 <= 100 * gain / (gain + loss) <= 75
            and atr <= 0.1 * close[t]
        )
        rested = not fires or (t - fires[-1] >= 24 and (left or t - fires[-1] >= 48))
        if confirmed and rested:
            fires.append(t)
            left = False
    return fires


def test_a_real_year_equals_a_plain_walk_bar_by_bar(shared_data: Path) -> None:
    bars = real_bars(shared_data)
    hourly = resample(bars, "1h").filter(pl.col("n_src") == 4)
    btc = bars.filter(pl.col("symbol") == "BTC/USDT:USDT")
    judged = regimes(daily_from(btc), btc)
    mid_caps = SwingConfig(default_tier="mid_cap")
    setups = found(
        hourly, judged.with_columns(trend=pl.lit("BULL"), stress=pl.lit("NORMAL")), config=mid_caps
    )
    for (symbol,), part in hourly.sort("ts").partition_by("symbol", as_dict=True).items():
        expected = part["ts"].gather(plain_events(part, 1.010, 1.3))
        events = setups.filter(symbol=symbol)["signal_ts"].sort()
        assert events.equals(expected)
    assert setups.height == 209
    assert found(hourly, judged, config=mid_caps).height == 82
