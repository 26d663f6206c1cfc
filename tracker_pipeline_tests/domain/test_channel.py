import json
from itertools import groupby
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain.channel import ChannelConfig, detect_channel, fit_channel, flaws
from tracker_pipeline.domain.features import features_15m
from tracker_pipeline.domain.regimes import regimes
from tracker_pipeline.domain.strategy_config import Band, by_tier
from tracker_pipeline_tests.domain.market import (
    BAR,
    START,
    bars_from_closes,
    calm,
    daily_from,
    random_bars,
    real_bars,
)

CONFIG = ChannelConfig(tiers={"BTC": "large_cap", "PEPE": "memecoin"})


def wave(
    *,
    slope: float = 0.0,
    amplitude: float = 2.0,
    until: float | None = None,
    count: int = 100,
    scale: float = 1.0,
    symbol: str = "BTC/USDT",
) -> pl.DataFrame:
    """A sine of 12 bars between parallel lines, or between lines that approach `until` within 100 bars."""
    i = np.arange(count)
    sizes = amplitude + ((amplitude if until is None else until) - amplitude) * i / 100
    closes = scale * (100 + slope * i + sizes * np.sin(2 * np.pi * i / 12))
    return bars_from_closes(closes, symbol=symbol).with_columns(
        high=pl.col("close") + 0.01 * scale, low=pl.col("close") - 0.01 * scale
    )


def found(
    bars: pl.DataFrame, regime: pl.DataFrame | None = None, config: ChannelConfig = CONFIG
) -> pl.DataFrame:
    return detect_channel(bars, features_15m(bars.clear()), calm(bars) if regime is None else regime, config)


def fired(bars: pl.DataFrame, config: ChannelConfig = CONFIG) -> list[int]:
    """Numbers of the bars that are events."""
    return sorted(int((ts - START) / BAR) for ts in found(bars, config=config)["signal_ts"])


@pytest.mark.parametrize("scale", [1.0, 1e-5])
@pytest.mark.parametrize("slope", [0.0, 0.02, 0.05, 0.1])
@pytest.mark.parametrize("amplitude", [1.0, 2.0, 3.0])
def test_a_sine_between_parallel_lines_is_a_channel_unless_it_is_too_narrow(
    scale: float, slope: float, amplitude: float
) -> None:
    channel = fit_channel(wave(slope=slope, amplitude=amplitude, scale=scale))
    narrow = {(0.05, 1.0): 0.0196, (0.1, 1.0): 0.0190}.get((slope, amplitude))
    assert flaws(channel, "large_cap", CONFIG) == ([] if narrow is None else ["width"])
    assert narrow is None or round(channel.width_frac, 4) == narrow
    assert (channel.upper_episodes, channel.lower_episodes) == (9, 8)
    assert channel.direction == ("HORIZONTAL" if slope == 0 else "ASCENDING")


@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_a_flat_channel_has_the_golden_width(scale: float) -> None:
    channel = fit_channel(wave(scale=scale))
    assert round(channel.width_frac, 4) == 0.0406
    assert channel.upper / channel.lower == pytest.approx(1 + channel.width_frac)


@pytest.mark.parametrize(("amplitude", "until", "ratio"), [(3.0, 0.5, 0.559), (1.0, 4.0, 1.722)])
def test_a_wedge_is_no_channel(amplitude: float, until: float, ratio: float) -> None:
    channel = fit_channel(wave(amplitude=amplitude, until=until))
    assert round(channel.half_width_ratio, 3) == ratio
    assert flaws(channel, "large_cap", CONFIG) == ["wedge"]


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (wave().reverse(), "must ascend in time"),
        (wave(count=101).filter(pl.int_range(pl.len()) != 50), "must ascend in time"),
        (wave(count=99), "100 bars, not to 99"),
        (
            wave().with_columns(low=pl.when(pl.int_range(pl.len()) != 7).then("low").otherwise(0.0)),
            "positive",
        ),
    ],
)
def test_a_window_that_is_not_one_hundred_bars_in_order_is_refused(
    window: pl.DataFrame, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_channel(window)


def test_a_falling_channel_descends_and_a_mirrored_one_has_mirrored_touches() -> None:
    channel = fit_channel(wave(slope=-0.1))
    assert (channel.direction, channel.slope_frac < 0) == ("DESCENDING", True)
    assert flaws(channel, "large_cap", CONFIG) == []


def test_a_bar_that_touches_both_lines_ends_one_run_and_starts_the_other() -> None:
    spike = pl.int_range(pl.len()) % 10 == 5
    spikes = bars_from_closes(np.full(100, 100.0)).with_columns(
        high=pl.when(spike).then(102.0).otherwise("high"), low=pl.when(spike).then(98.0).otherwise("low")
    )
    channel = fit_channel(spikes)  # ten spikes: the first starts both, each of the others ends one
    assert (channel.upper_episodes, channel.lower_episodes) == (5, 6)


def test_the_lower_line_is_bought_with_target_and_stop_at_the_lines() -> None:
    setup = found(wave(count=106)).sort("signal_ts").row(0, named=True)
    evidence = json.loads(setup["evidence"])
    assert (setup["strategy"], setup["timeframe"], setup["side"]) == ("channel", "15m", "BUY")
    assert (setup["horizon_hours"], setup["tier"]) == (18, "large_cap")
    assert 0 <= evidence["position_frac"] <= 0.15
    close, lower, upper = setup["ref_price"], evidence["lower"], evidence["upper"]
    assert evidence["target_price"] == pytest.approx(close * (upper / close) ** 0.9)
    assert evidence["stop_price"] == pytest.approx(lower * 0.99)  # 10 % of the width is less than 1 %
    assert setup["tp_pct"] == pytest.approx(100 * (evidence["target_price"] / close - 1))
    assert setup["sl_pct"] == pytest.approx(100 * (1 - evidence["stop_price"] / close))
    assert evidence["reward_risk"] == pytest.approx(setup["tp_pct"] / setup["sl_pct"])
    assert setup["score"] == pytest.approx(100 * evidence["strength"])


def test_the_stop_of_a_wide_channel_is_a_tenth_of_its_width_below() -> None:
    config = ChannelConfig(width_frac=by_tier(*[Band(0.03, 0.5)] * 4))
    evidence = json.loads(found(wave(amplitude=8.0, count=106), config=config)["evidence"][0])
    assert evidence["stop_price"] == pytest.approx(evidence["lower"] * (1 - 0.1 * evidence["width_frac"]))


def test_only_the_lower_line_opens_and_each_event_once_in_24_bars() -> None:
    events = fired(wave(count=220))
    assert events
    assert all(
        bar % 12 in (8, 9, 10) for bar in events
    )  # the troughs; at the crests the position is above .9
    assert min(np.diff(events)) >= 24


def test_a_position_of_nine_tenths_opens_nothing() -> None:
    bars = wave(count=100)  # ends on a crest
    assert fit_channel(bars.tail(100)).position_frac > 0.9
    assert fired(bars) == []


def test_a_price_below_the_channel_is_not_bought() -> None:
    bars = wave(count=105)
    last = pl.int_range(pl.len()) == 104
    broken = bars.with_columns(
        close=pl.when(last).then(97.0).otherwise("close"), low=pl.when(last).then(97.0).otherwise("low")
    )
    assert fired(bars) == [104]
    assert fired(broken) == []


def test_a_hole_in_the_last_hundred_bars_leaves_nothing_to_judge() -> None:
    bars = wave(count=105)
    assert fired(bars.filter(pl.int_range(pl.len()) != 50)) == []
    assert fired(bars.filter(pl.int_range(pl.len()) != 4)) == [104]


def test_bars_that_cannot_be_judged_do_not_count_as_having_left_the_buy_zone() -> None:
    holed = wave(count=213).filter(~pl.int_range(pl.len()).is_between(105, 112))
    assert fired(holed) == [104, 212]  # 212 is the first bar that can be judged again, beyond the horizon
    assert fired(holed, ChannelConfig(tiers=CONFIG.tiers, horizon_hours=48)) == [104]


def test_the_width_must_suit_the_tier() -> None:
    assert fired(wave(count=105)) == [104]
    assert fired(wave(count=105, symbol="PEPE/USDT")) == []
    assert fired(wave(count=105, amplitude=3.5, symbol="PEPE/USDT")) == [104]


def test_a_reward_below_one_and_a_half_times_the_risk_is_not_bought() -> None:
    assert fired(wave(count=106), ChannelConfig(tiers=CONFIG.tiers, min_stop_pct=2.0)) == [104]
    assert fired(wave(count=106), ChannelConfig(tiers=CONFIG.tiers, min_stop_pct=2.2)) == []


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
    bars = wave(count=106)
    assert found(bars, calm(bars, trend=trend, stress=stress)).height == events


def test_flat_and_impossible_prices_are_no_channel_and_do_not_fail_the_others() -> None:
    flat = bars_from_closes(np.full(106, 5.0), symbol="FLAT/USDT")
    zero = bars_from_closes(np.zeros(106), symbol="ZERO/USDT")
    setups = found(pl.concat([flat, wave(count=106), zero]))
    assert setups["symbol"].to_list() == ["BTC/USDT"]


def plain_channel(high: np.ndarray, low: np.ndarray, close: np.ndarray) -> dict[str, float]:
    """The figures of one window, written down from the definition."""
    high, low, close, i = np.log(high), np.log(low), np.log(close), np.arange(100)
    middle = np.polyval(np.polyfit(i, close, 1), i)

    def edges(part: slice) -> tuple[float, float]:
        return np.percentile((high - middle)[part], 95), np.percentile((low - middle)[part], 5)

    up, down = edges(slice(None))
    width = up - down
    sides: list[int] = []
    for above, below in zip(high - middle - up, low - middle - down, strict=True):
        touches = [side for side, far in ((-1, below), (1, above)) if abs(far) <= 0.15 * width]
        sides += [-sides[-1]] if len(touches) == 2 and sides else touches
    runs = [side for side, _ in groupby(sides)]
    second, first = (np.subtract(*edges(part)) for part in (slice(50, None), slice(50)))
    inside = np.mean((close <= middle + up) & (close >= middle + down))
    strength = 0.3 * min(1, len(runs) / 10) + 0.5 * inside + 0.2 * max(0, 1 - abs(np.log(second / first)))
    return {
        "width_frac": np.expm1(width),
        "position_frac": (close[-1] - middle[-1] - down) / width,
        "upper_episodes": runs.count(1),
        "lower_episodes": runs.count(-1),
        "half_width_ratio": second / first,
        "inside_frac": inside,
        "strength": strength,
        "lower": np.exp(middle[-1] + down),
        "upper": np.exp(middle[-1] + up),
    }


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1.0, 1e-7, 1e5]))
def test_a_fit_equals_the_plain_definition(seed: int, scale: float) -> None:
    window = random_bars(100, seed=seed).with_columns(pl.col("open", "high", "low", "close") * scale)
    channel = fit_channel(window)
    expected = plain_channel(*(window[name].to_numpy() for name in ("high", "low", "close")))
    for name, value in expected.items():
        assert getattr(channel, name) == pytest.approx(value, rel=1e-6, abs=1e-12 * scale), name


def plain_events(bars: pl.DataFrame, widths: Band) -> list[int]:
    """The rules for coins of one tier bar by bar, with one state from the first bar to the last."""
    high, low, close = (bars[name].to_numpy() for name in ("high", "low", "close"))
    fires, left = list[int](), True
    for t in range(99, len(close)):
        window = slice(t - 99, t + 1)
        c = plain_channel(high[window], low[window], close[window])
        in_zone = (
            0 <= c["position_frac"] <= 0.15
            and widths.low <= round(c["width_frac"], 4) <= widths.high
            and min(c["upper_episodes"], c["lower_episodes"]) >= 3
            and 0.75 <= c["half_width_ratio"] <= 1.33
            and c["strength"] >= 0.7
        )
        if not in_zone:
            left = True
            continue
        target = close[t] ** 0.1 * c["upper"] ** 0.9
        stop = c["lower"] * (1 - max(0.01, 0.1 * c["width_frac"]))
        rested = not fires or (t - fires[-1] >= 24 and (left or t - fires[-1] >= 72))
        if (target - close[t]) / (close[t] - stop) >= 1.5 and rested:
            fires.append(t)
            left = False
    return fires


def test_a_real_quarter_equals_a_plain_walk_bar_by_bar(shared_data: Path) -> None:
    bars = real_bars(shared_data).filter(pl.col("symbol").is_in(["SOL/USDT:USDT", "FET/USDT:USDT"]))
    bars = bars.filter(pl.col("ts") >= pl.col("ts").max() - pl.duration(days=45))
    setups = found(bars, config=ChannelConfig(default_tier="mid_cap"))
    expected = {
        symbol: part["ts"].gather(plain_events(part, Band(0.03, 0.10))).to_list()
        for (symbol,), part in bars.sort("ts").partition_by("symbol", as_dict=True).items()
    }
    assert {s: setups.filter(symbol=s)["signal_ts"].sort().to_list() for s in expected} == expected
    assert setups.height == 10


def test_a_real_year_has_about_one_event_a_week_and_coin(shared_data: Path) -> None:
    bars = real_bars(shared_data)
    btc = bars.filter(pl.col("symbol") == "BTC/USDT:USDT")
    judged = regimes(daily_from(btc), btc)
    mid_caps = ChannelConfig(default_tier="mid_cap")
    ungated = judged.with_columns(trend=pl.lit("BULL"), stress=pl.lit("NORMAL"))
    assert found(bars, ungated, config=mid_caps).height == 299
    gated = found(bars, judged, config=mid_caps)
    assert gated.height == 92
    assert not set(gated["trend"]) & {"UNKNOWN"}
    assert not set(gated["stress"]) & {"UNKNOWN", "PANIC"}
