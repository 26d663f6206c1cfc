import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain.dca import DcaConfig
from tracker_pipeline.domain.features import features_15m
from tracker_pipeline.domain.regimes import regimes
from tracker_pipeline.domain.schemas import SETUPS
from tracker_pipeline.domain.setups import detect
from tracker_pipeline_tests.domain.market import (
    BAR,
    START,
    bars_from_closes,
    calm,
    daily_from,
    golden_bars,
    random_bars,
    real_bars,
)

CONFIG = DcaConfig(tiers={"BTC": "large_cap", "PEPE": "memecoin"})


def found(bars: pl.DataFrame, regime: pl.DataFrame | None = None, config: DcaConfig = CONFIG) -> pl.DataFrame:
    return detect("dca", bars, features_15m(bars), calm(bars) if regime is None else regime, config)


def fired(bars: pl.DataFrame, config: DcaConfig = CONFIG) -> list[int]:
    """Numbers of the bars that are events."""
    return sorted(int((ts - START) / BAR) for ts in found(bars, config=config)["signal_ts"])


def crashes(*, at: list[int], count: int, depth: float = 0.06, last: int = 1) -> np.ndarray:
    """A flat price that falls by `depth` at some bars, for a number of bars each."""
    closes = np.full(count, 100.0)
    for bar in at:
        closes[bar : bar + last] = 100 * (1 - depth)
    return closes


def test_a_fall_of_five_percent_from_the_four_hour_high_is_a_setup() -> None:
    setup = found(bars_from_closes(crashes(at=[200], count=230, last=30))).row(0, named=True)
    assert setup["signal_ts"] == START + 200 * BAR
    assert (setup["strategy"], setup["timeframe"], setup["side"]) == ("dca", "15m", "BUY")
    assert (setup["ref_price"], setup["tier"], setup["tp_pct"], setup["sl_pct"]) == (
        94.0,
        "large_cap",
        10.0,
        8.0,
    )
    assert (setup["horizon_hours"], setup["trend"], setup["stress"]) == (72, "BULL", "NORMAL")
    evidence = json.loads(setup["evidence"])
    assert evidence["drop_pct"] == pytest.approx(-6.0)
    assert (evidence["high_16"], evidence["bars_16"]) == (100.0, 16)
    assert evidence["rsi_14"] == 0.0
    assert setup["score"] is None


def test_the_golden_series_ends_with_a_fall_of_four_percent_and_not_of_five() -> None:
    tail = golden_bars().tail(30)
    assert found(tail).height == 0
    setup = found(tail, config=DcaConfig(drop_pct=-4.373)).row(0, named=True)
    assert setup["signal_ts"] == START + 399 * BAR
    assert json.loads(setup["evidence"])["drop_pct"] == pytest.approx(-4.373265, abs=1e-6)


def test_the_deepest_fall_of_the_golden_series_is_its_first_event() -> None:
    deepest = found(golden_bars(), config=DcaConfig(drop_pct=-5.241)).row(0, named=True)
    assert deepest["signal_ts"] == START + 23 * BAR
    assert json.loads(deepest["evidence"])["drop_pct"] == pytest.approx(-5.241178, abs=1e-6)


def test_the_high_before_the_window_does_not_count() -> None:
    slow = np.r_[np.full(40, 100.0), np.linspace(100, 80, 400)]  # 20 % in all, 0.75 % in any four hours
    assert fired(bars_from_closes(slow)) == []


@pytest.mark.parametrize(("missing", "events"), [(2, 1), (3, 0)])
def test_fourteen_of_the_sixteen_bars_must_exist(missing: int, events: int) -> None:
    bars = bars_from_closes(crashes(at=[40], count=41)).filter(
        ~pl.int_range(pl.len()).is_between(30, 29 + missing)
    )
    assert len(fired(bars)) == events


@pytest.mark.parametrize(
    ("trend", "stress", "events"),
    [
        ("BULL", "NORMAL", 1),
        ("NEUTRAL", "CAUTION", 1),
        ("BULL", "EUPHORIA", 1),
        ("BEAR", "NORMAL", 0),
        ("UNKNOWN", "NORMAL", 0),
        ("BULL", "PANIC", 0),
        ("BULL", "UNKNOWN", 0),
    ],
)
def test_nothing_is_bought_in_a_regime_that_forbids_it(trend: str, stress: str, events: int) -> None:
    bars = bars_from_closes(crashes(at=[40], count=41))
    assert found(bars, calm(bars, trend=trend, stress=stress)).height == events


def test_a_bar_without_a_regime_or_with_a_later_one_is_not_tradable() -> None:
    bars = bars_from_closes(crashes(at=[40], count=41))
    late = calm(bars).with_columns(pl.col("available_at") + pl.duration(minutes=1))
    assert found(bars, calm(bars).clear()).height == 0
    assert found(bars, late).height == 0


def test_an_event_fires_once_while_price_stays_in_the_condition() -> None:
    falling = 100 * 0.994 ** np.arange(250)  # 9 % below the four-hour high for 2.5 days
    assert fired(bars_from_closes(np.r_[np.full(20, 100.0), falling])) == [29]


def test_an_event_fires_again_when_the_horizon_ends_within_the_condition() -> None:
    falling = 100 * 0.994 ** np.arange(400)
    assert fired(bars_from_closes(np.r_[np.full(20, 100.0), falling])) == [29, 29 + 288]


@pytest.mark.parametrize(("second", "events"), [(159, [100]), (160, [100, 160])])
def test_events_are_sixty_bars_apart(second: int, events: list[int]) -> None:
    assert fired(bars_from_closes(crashes(at=[100, second], count=220))) == events


def test_missing_bars_do_not_count_as_having_left_the_condition() -> None:
    falling = np.r_[np.full(20, 100.0), 100 * 0.99 ** np.arange(150)]
    hole = bars_from_closes(falling).filter(~pl.int_range(pl.len()).is_between(60, 64))
    assert len(fired(hole)) == 1


def test_a_signal_that_the_regime_forbade_fires_when_the_regime_allows_it() -> None:
    bars = bars_from_closes(crashes(at=[100], count=130, last=30))
    panic = pl.col("ts") < START + 105 * BAR
    regime = calm(bars).with_columns(stress=pl.when(panic).then(pl.lit("PANIC")).otherwise("stress"))
    assert found(bars, regime)["signal_ts"].to_list() == [START + 105 * BAR]


def test_tiers_set_exits_and_only_if_asked_the_drop() -> None:
    bars = bars_from_closes(crashes(at=[40], count=41, depth=0.055), symbol="PEPE/USDT")
    meme = found(bars).row(0, named=True)
    assert (meme["tier"], meme["tp_pct"], meme["sl_pct"]) == ("memecoin", 15.0, 10.0)
    assert found(bars, config=DcaConfig(tiers=CONFIG.tiers, use_tier_drops=True)).height == 0


def test_a_coin_that_is_not_listed_is_a_small_cap() -> None:
    bars = bars_from_closes(crashes(at=[40], count=41), symbol="NEW/USDT:USDT")
    assert found(bars)["tier"].to_list() == ["small_cap"]


def test_identity_follows_from_what_was_found_and_by_which_rules() -> None:
    bars = bars_from_closes(crashes(at=[40], count=41))
    first, again = found(bars), found(bars)
    other = found(bars, config=DcaConfig(tiers=CONFIG.tiers, drop_pct=-4.0))
    assert first.equals(again)
    assert first.schema == SETUPS.polars_schema
    assert first["setup_id"][0] != other["setup_id"][0]
    assert first["config_version"][0] == CONFIG.config_version


def test_features_that_are_not_there_are_recorded_as_unknown() -> None:
    bars = bars_from_closes(crashes(at=[40], count=41))
    setup = detect("dca", bars, features_15m(bars).clear(), calm(bars), CONFIG).row(0, named=True)
    assert json.loads(setup["evidence"])["rsi_14"] is None


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 50), at=st.integers(20, 190), deeper=st.floats(0.01, 0.3))
def test_a_deeper_fall_never_takes_a_first_event_away(seed: int, at: int, deeper: float) -> None:
    bars = random_bars(200, seed=seed).with_columns(pl.col("close") * 0.999)
    events = fired(bars)
    if not events or events[0] != at:
        closes = pl.when(pl.int_range(pl.len()) == at).then(pl.col("high") * 0.94).otherwise("close")
        bars = bars.with_columns(close=closes)
        events = fired(bars)
    first = pl.int_range(pl.len()) == events[0]
    lower = bars.with_columns(close=pl.when(first).then(pl.col("close") * (1 - deeper)).otherwise("close"))
    assert events[0] in fired(lower)


def test_a_real_year_has_events_and_none_within_the_cool_down(shared_data: Path) -> None:
    bars = real_bars(shared_data)
    btc = bars.filter(pl.col("symbol") == "BTC/USDT:USDT")
    judged = regimes(daily_from(btc), btc)
    setups = detect("dca", bars, features_15m(bars.clear()), judged, CONFIG)
    assert setups.height == 213
    assert set(setups["trend"]) <= {"BULL", "NEUTRAL"}
    too_close = pl.col("signal_ts").diff().over("symbol") < 60 * BAR
    assert setups.sort("symbol", "signal_ts").filter(too_close).height == 0
