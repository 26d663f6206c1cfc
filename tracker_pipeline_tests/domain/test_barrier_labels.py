"""Labels of the strategies that buy once: SWING, with a trailing stop, and CHANNEL."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain.bars import resample
from tracker_pipeline.domain.channel import ChannelConfig
from tracker_pipeline.domain.features import features_15m
from tracker_pipeline.domain.labels import label
from tracker_pipeline.domain.schemas import CHANNEL_LABELS, SETUPS, SWING_LABELS
from tracker_pipeline.domain.setups import STRATEGIES, detect
from tracker_pipeline.domain.strategy_config import StrategyConfig
from tracker_pipeline.domain.swing import SwingConfig
from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline_tests.domain.market import (
    BAR,
    START,
    bars_from_prices,
    calm,
    random_bars,
    real_bars,
)

Prices = tuple[float, float, float, float]
LATER = START + timedelta(days=30)
FLAT = (100.0, 100.0, 100.0, 100.0)
CONFIGS: dict[str, StrategyConfig] = {"swing": SwingConfig(), "channel": ChannelConfig()}
EVIDENCE = {
    "swing": {
        "breakout_pct": 1.1,
        "volume_surge": 2.5,
        "momentum_points": 10.0,
        "sma_20": 99.0,
        "sma_50": 98.0,
        "trail_pct": 2.5,
        "trail_from_pct": 2.5,
    },
    "channel": {
        "position_frac": 0.05,
        "strength": 0.81,
        "width_frac": 0.041,
        "lower": 99.8,
        "target_price": 105.0,
    },
}


def a_setup(
    strategy: str = "swing", *, signal: int = 0, symbol: str = "BTC/USDT", **changes: Any
) -> pl.DataFrame:
    """A setup of a mid-cap coin at 100 with a target of 5 % and a stop of 3 %; bars are counted in 15 minutes."""
    config = CONFIGS[strategy]
    values: dict[str, object] = {
        "setup_id": f"{symbol}-{signal}",
        "strategy": strategy,
        "venue": "bybit",
        "symbol": symbol,
        "timeframe": config.timeframe,
        "signal_ts": START + signal * BAR,
        "side": "BUY",
        "ref_price": 100.0,
        "tp_pct": 5.0,
        "sl_pct": 3.0,
        "horizon_hours": config.horizon_hours,
        "tier": "mid_cap",
        "trend": "BULL",
        "stress": "NORMAL",
        "score": 75.0,
        "evidence": json.dumps(EVIDENCE[strategy]),
        "config_version": config.config_version,
    }
    return SETUPS.conform(pl.DataFrame({**values, **changes}))


def outcome(
    *after: Prices,
    rest: Prices = FLAT,
    strategy: str = "swing",
    signal: Prices = FLAT,
    fine: pl.DataFrame | None = None,
    as_of: datetime = LATER,
    **changes: Any,
) -> dict[str, object]:
    """The label of a setup whose signal bar is followed by some bars and then by equal ones."""
    quarters = duration(CONFIGS[strategy].timeframe) // BAR
    prices = [*[signal] * quarters, *after, *[rest] * 220]
    labels = label(
        a_setup(strategy, **changes),
        bars_from_prices(prices),
        fine_bars=fine,
        as_of=as_of,
        config=CONFIGS[strategy],
    )
    return labels.row(0, named=True)


def minutes(bar: int, *prices: Prices) -> pl.DataFrame:
    """Minutes of a bar after the hour of the signal."""
    return bars_from_prices(prices, start=START + (3 + bar) * BAR, step=timedelta(minutes=1))


UP_THREE = (100.0, 103.0, 100.0, 103.0)


def test_swing_enters_at_the_open_of_the_quarter_after_the_hour_of_the_signal() -> None:
    row = outcome((99.0, 99.5, 98.5, 99.0), rest=(99.0, 99.0, 99.0, 99.0))
    assert (row["entry_ts"], row["entry_price"], row["fills"]) == (START + 4 * BAR, 99.0, 1)
    assert (row["timestamp"], row["hold_time_hours"]) == (START, 48.0)


def test_channel_enters_at_the_open_of_the_next_quarter_and_holds_for_18_hours() -> None:
    row = outcome(strategy="channel")
    assert (row["entry_ts"], row["exit_ts"], row["hold_time_hours"]) == (START + BAR, START + 72 * BAR, 18.0)


@pytest.mark.parametrize("strategy", CONFIGS)
def test_the_target_wins_the_golden_net_return(strategy: str) -> None:
    row = outcome(FLAT, (100.0, 105.2, 100.0, 105.1), strategy=strategy)
    assert (row["outcome"], row["exit_reason"], row["ambiguous"]) == ("WIN", "TP", False)
    assert row["exit_price"] == pytest.approx(105.0)
    assert row["actual_return"] == pytest.approx(3.86288, abs=1e-5)


@pytest.mark.parametrize("strategy", CONFIGS)
def test_the_stop_loses(strategy: str) -> None:
    row = outcome(FLAT, (100.0, 100.0, 96.9, 97.2), strategy=strategy)
    assert (row["outcome"], row["exit_reason"], row["exit_price"]) == ("LOSS", "SL", pytest.approx(97.0))
    assert row["gross_return_pct"] == pytest.approx(-3.0)


@pytest.mark.parametrize("strategy", CONFIGS)
def test_a_bar_that_touches_both_barriers_is_an_ambiguous_loss(strategy: str) -> None:
    for path in ([(100.0, 106.0, 96.0, 100.0)], [FLAT, (100.0, 106.0, 96.0, 100.0)]):
        row = outcome(*path, strategy=strategy)
        assert (row["outcome"], row["exit_reason"], row["ambiguous"]) == ("LOSS", "SL", True)


@pytest.mark.parametrize("strategy", CONFIGS)
def test_a_spike_in_the_signal_bar_is_ignored(strategy: str) -> None:
    row = outcome(strategy=strategy, signal=(100.0, 150.0, 50.0, 100.0))
    assert (row["exit_reason"], row["outcome"], row["mfe_pct"], row["mae_pct"]) == ("TIME", "BREAKEVEN", 0, 0)


def test_ten_hours_of_the_horizon_are_pending() -> None:
    row = outcome((100.0, 106.0, 100.0, 106.0), as_of=START + timedelta(hours=10))
    assert (row["outcome"], row["exit_reason"], row["actual_return"]) == ("PENDING", None, None)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([(100.0, 106.0, 100.0, 106.0), (106.0, 106.0, 96.0, 100.0)], ("WIN", "TP", False)),
        ([(100.0, 100.0, 96.0, 96.0), (96.0, 106.0, 96.0, 100.0)], ("LOSS", "SL", False)),
        ([(100.0, 106.0, 96.0, 100.0)], ("LOSS", "SL", True)),  # the minute itself touches both
        (
            [(100.0, 104.0, 100.0, 100.0)],
            ("LOSS", "SL", True),
        ),  # minutes that lack the extremes decide nothing
        ([UP_THREE, (103.0, 103.0, 96.0, 106.0), (106.0, 106.0, 100.0, 100.0)], ("LOSS", "SL", True)),
        (
            [UP_THREE, (103.0, 103.0, 100.0, 100.0), (100.0, 106.0, 96.0, 100.0)],
            ("BREAKEVEN", "TRAIL", False),
        ),
    ],
)
def test_finer_bars_decide_which_barrier_came_first(
    path: list[Prices], expected: tuple[str, str, bool]
) -> None:
    row = outcome((100.0, 106.0, 96.0, 100.0), fine=minutes(1, *path))
    assert (row["outcome"], row["exit_reason"], row["ambiguous"]) == expected


def test_the_trailing_stop_follows_the_highest_price() -> None:
    row = outcome(UP_THREE, (103.0, 104.0, 103.0, 104.0), (104.0, 104.0, 101.0, 102.0))
    assert (row["exit_reason"], row["exit_price"]) == ("TRAIL", pytest.approx(104 * 0.975))
    assert (row["mfe_pct"], row["exit_ts"]) == (pytest.approx(4.0), START + 6 * BAR)


def test_the_trailing_stop_is_not_armed_below_its_gain() -> None:
    almost = (100.0, 102.4, 100.0, 102.4)
    assert outcome(almost, (102.4, 102.4, 98.0, 98.0), rest=(98.0,) * 4)["exit_reason"] == "TIME"
    assert outcome((100.0, 102.5, 100.0, 102.4), (102.4, 102.4, 98.0, 98.0))["exit_reason"] == "TRAIL"


def test_a_spike_that_price_came_down_from_within_the_bar_leaves_there() -> None:
    row = outcome((100.0, 104.0, 100.0, 100.5))
    assert (row["exit_reason"], row["exit_price"]) == ("TRAIL", pytest.approx(104 * 0.975))
    assert row["exit_ts"] == START + 4 * BAR


def test_a_spike_after_the_low_of_its_bar_stays_in_unless_finer_bars_show_the_low_came_later() -> None:
    bar = (100.0, 104.0, 100.0, 103.0)
    later = minutes(1, (100.0, 104.0, 100.0, 104.0), (104.0, 104.0, 101.0, 103.0))
    earlier = minutes(1, FLAT, (100.0, 104.0, 100.0, 103.0))
    end = (103.0, 103.0, 103.0, 103.0)
    assert outcome(bar, rest=end)["exit_reason"] == "TIME"
    assert outcome(bar, rest=end, fine=earlier)["exit_reason"] == "TIME"
    row = outcome(bar, rest=end, fine=later)
    assert (row["exit_reason"], row["exit_price"]) == ("TRAIL", pytest.approx(104 * 0.975))


def test_inside_a_bar_the_order_is_stop_target_trailing_stop() -> None:
    everything = outcome(UP_THREE, (102.0, 106.0, 96.0, 102.0))
    assert (everything["exit_reason"], everything["ambiguous"]) == ("SL", True)
    two = outcome(UP_THREE, (102.0, 106.0, 99.0, 102.0))
    assert (two["exit_reason"], two["exit_price"], two["ambiguous"]) == ("TP", pytest.approx(105.0), True)


def test_a_gap_through_a_barrier_leaves_at_the_open() -> None:
    assert outcome(FLAT, (95.0, 96.0, 94.0, 95.0))["exit_price"] == 95.0
    assert outcome(FLAT, (107.0, 108.0, 90.0, 107.0))["exit_price"] == 107.0
    trailed = outcome(UP_THREE, (99.0, 110.0, 90.0, 99.0))
    assert (trailed["exit_reason"], trailed["exit_price"]) == ("TRAIL", 99.0)


@pytest.mark.parametrize(("high", "expected"), [(103.0, "BREAKEVEN"), (106.0, "WIN")])
def test_a_trailing_stop_is_classed_by_its_net_return(high: float, expected: str) -> None:
    row = outcome((100.0, high, 100.0, high), (high, high, 90.0, 100.0), tp_pct=20.0, sl_pct=15.0)
    assert (row["exit_reason"], row["outcome"]) == ("TRAIL", expected)
    gap = outcome((100.0, high, 100.0, high), (96.0, 96.0, 95.0, 95.0), tp_pct=20.0, sl_pct=15.0)
    assert (gap["exit_reason"], gap["outcome"]) == ("TRAIL", "LOSS")


def test_a_setup_without_a_trailing_stop_has_none() -> None:
    row = outcome(UP_THREE, (103.0, 103.0, 98.0, 98.0), rest=(98.0,) * 4, evidence="{}")
    assert (row["exit_reason"], row["trend_alignment"], row["breakout_strength"]) == ("TIME", None, None)


@pytest.mark.parametrize(("last", "expected"), [(100.0, "BREAKEVEN"), (98.5, "TIMEOUT"), (104.0, "TIMEOUT")])
def test_time_ends_a_trade_at_the_last_close_of_the_horizon(last: float, expected: str) -> None:
    row = outcome(strategy="channel", rest=(100.0, max(100.0, last), min(100.0, last), last))
    assert (row["outcome"], row["exit_reason"], row["exit_price"]) == (expected, "TIME", last)


def test_target_and_stop_of_a_channel_stay_at_its_lines() -> None:
    row = outcome((101.0, 101.0, 101.0, 101.0), (101.0, 105.1, 101.0, 105.0), strategy="channel")
    assert (row["exit_reason"], row["exit_price"]) == ("TP", pytest.approx(105.0))
    assert row["gross_return_pct"] == pytest.approx(100 * (105 / 101 - 1))


@pytest.mark.parametrize("opened", [96.0, 106.0])
def test_a_channel_that_opens_beyond_its_barriers_is_not_bought(opened: float) -> None:
    row = outcome((opened,) * 4, strategy="channel")
    assert (row["outcome"], row["fills"], row["actual_return"]) == ("TIMEOUT", 0, None)


def test_excursions_count_all_of_the_entry_bar_and_only_the_exit_of_the_last() -> None:
    row = outcome((100.0, 102.0, 98.0, 100.0), (100.0, 101.0, 99.0, 100.0), (100.0, 150.0, 50.0, 100.0))
    assert (row["mfe_pct"], row["mae_pct"]) == (pytest.approx(2.0), pytest.approx(-3.0))


def test_the_columns_of_each_strategy_come_from_its_evidence() -> None:
    swing = outcome()
    assert [swing[name] for name in SWING_LABELS.polars_schema][4:9] == [True, 1.1, 2.5, 10.0, "UPTREND"]
    assert outcome(ref_price=97.0)["trend_alignment"] == "SIDEWAYS"
    channel = outcome(strategy="channel")
    values = [channel[name] for name in CHANNEL_LABELS.polars_schema][4:9]
    assert values == ["BOTTOM", pytest.approx(81.0), pytest.approx(4.1), 99.8, 105.0]
    for position, expected in ((0.5, "MIDDLE"), (0.9, "TOP")):
        evidence = json.dumps({**EVIDENCE["channel"], "position_frac": position})
        assert outcome(strategy="channel", evidence=evidence)["channel_position"] == expected


def test_large_prices_and_prices_far_below_a_cent_fit_the_columns() -> None:
    evidence = json.dumps({**EVIDENCE["channel"], "lower": 123456.7, "target_price": 1.234e-8})
    row = outcome(strategy="channel", evidence=evidence)
    assert (row["optimal_entry"], row["optimal_exit"]) == (123456.7, 1.234e-8)


@pytest.mark.parametrize(("strategy", "table"), [("swing", SWING_LABELS), ("channel", CHANNEL_LABELS)])
def test_no_setups_give_an_empty_frame_of_the_declared_columns(strategy: str, table: object) -> None:
    bars = bars_from_prices([FLAT])
    labels = label(a_setup(strategy).clear(), bars, as_of=LATER, config=CONFIGS[strategy])
    assert labels.schema == table.polars_schema  # type: ignore[attr-defined]
    assert labels.height == 0


@pytest.mark.parametrize("strategy", CONFIGS)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 3), cut=st.integers(1, 800))
def test_a_final_label_stays_what_it_was_and_order_does_not_matter(
    strategy: str, seed: int, cut: int
) -> None:
    config = CONFIGS[strategy]
    symbols = ("A/USDT", "B/USDT")
    bars = pl.concat([random_bars(800, seed=seed + i, symbol=s, holes=0.01) for i, s in enumerate(symbols)])
    setups = pl.concat([a_setup(strategy, signal=i, symbol=s) for i in range(4, 600, 40) for s in symbols])
    whole = label(setups, bars, as_of=LATER, config=config)
    then = START + cut * BAR + timedelta(minutes=2)
    shuffled = bars.sample(fraction=1.0, shuffle=True, seed=cut)
    known = label(setups, shuffled, as_of=then, config=config)
    final = known.filter(pl.col("outcome") != "PENDING")
    assert final.equals(whole.filter(pl.col("setup_id").is_in(final["setup_id"].implode())))
    visible = bars.filter(pl.col("ts") + timedelta(minutes=17) <= then)
    assert known.equals(label(setups, visible, as_of=then, config=config))


def plain_walk(prices: list[Prices], target: float, stop: float, trail: float | None) -> tuple[str, float]:
    """The same rules bar by bar, without a search: reason and exit price."""
    entry = highest = prices[0][0]

    def level(peak: float) -> float:
        return peak * (1 - trail) if trail and peak >= entry * (1 + trail) else 0.0

    for opened, high, low, close in prices:
        before, highest = level(highest), max(highest, high)
        if opened <= stop:
            return "SL", opened
        if opened <= before:
            return "TRAIL", opened
        if opened >= target:
            return "TP", opened
        if low <= stop:
            return "SL", stop
        if high >= target:
            return "TP", target
        if low <= before:
            return "TRAIL", before
        if close <= level(highest):
            return "TRAIL", level(highest)
    return "TIME", prices[-1][3]


@pytest.mark.parametrize(
    ("strategy", "setups_count", "expected"),
    [
        ("swing", 209, {"WIN": 78, "LOSS": 94, "BREAKEVEN": 29, "TIMEOUT": 8}),
        ("channel", 299, {"WIN": 78, "LOSS": 208, "BREAKEVEN": 10, "TIMEOUT": 1, "PENDING": 2}),
    ],
)
def test_a_real_year_of_labels_equals_a_plain_walk_bar_by_bar(
    shared_data: Path, strategy: str, setups_count: int, expected: dict[str, int]
) -> None:
    bars = real_bars(shared_data)
    config = STRATEGIES[strategy].config(default_tier="mid_cap")  # type: ignore[call-arg]
    judged = resample(bars, "1h").filter(pl.col("n_src") == 4) if strategy == "swing" else bars
    setups = detect(strategy, judged, features_15m(bars.clear()), calm(bars), config)
    labels = label(setups, bars, as_of=datetime.fromisoformat("2026-01-01T00:00:00+00:00"), config=config)
    assert setups.height == setups_count
    assert dict(labels["outcome"].value_counts().iter_rows()) == expected
    by_symbol = bars.sort("ts").partition_by("symbol", as_dict=True)
    final = labels.filter(pl.col("outcome") != "PENDING").join(setups, on=["setup_id", "symbol"])
    for row in final.iter_rows(named=True):
        end = row["entry_ts"] + timedelta(hours=config.horizon_hours)
        held = by_symbol[(row["symbol"],)].filter(
            pl.col("ts").is_between(row["entry_ts"], end, closed="left")
        )
        anchor = row["ref_price"] if strategy == "channel" else row["entry_price"]
        target, stop = anchor * (1 + row["tp_pct"] / 100), anchor * (1 - row["sl_pct"] / 100)
        trail = json.loads(row["evidence"]).get("trail_pct", 0.0) / 100
        prices = held.select("open", "high", "low", "close").rows()
        assert (row["exit_reason"], row["exit_price"]) == plain_walk(prices, target, stop, trail)
