from datetime import datetime, timedelta
from pathlib import Path
from statistics import harmonic_mean

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain.dca import DcaConfig, Grid
from tracker_pipeline.domain.features import features_15m
from tracker_pipeline.domain.labels import label
from tracker_pipeline.domain.regimes import regimes
from tracker_pipeline.domain.schemas import DCA_LABELS, SETUPS
from tracker_pipeline.domain.setups import detect
from tracker_pipeline.domain.strategy_config import Costs
from tracker_pipeline_tests.domain.market import (
    BAR,
    START,
    bars_from_closes,
    bars_from_prices,
    daily_from,
    random_bars,
    real_bars,
)

CONFIG = DcaConfig()
HORIZON = 288
LATER = START + timedelta(days=30)
FLAT = (100.0, 100.0, 100.0, 100.0)
LEVELS = [99.5, 98.505, 97.51995, 96.54475, 95.57930]


def a_setup(*, signal: int = 0, symbol: str = "BTC/USDT", tier: str = "mid_cap") -> pl.DataFrame:
    return SETUPS.conform(
        pl.DataFrame(
            {
                "setup_id": f"{symbol}-{signal}",
                "strategy": "dca",
                "venue": "bybit",
                "symbol": symbol,
                "timeframe": "15m",
                "signal_ts": START + signal * BAR,
                "side": "BUY",
                "ref_price": 100.0,
                "tp_pct": 10.0,
                "sl_pct": 8.0,
                "horizon_hours": 72,
                "tier": tier,
                "trend": "BULL",
                "stress": "NORMAL",
                "evidence": '{"drop_pct":-6.5,"rsi_14":28.25,"volume_ratio":null}',
                "config_version": CONFIG.config_version,
            }
        )
    )


def outcome(
    *after: tuple[float, float, float, float],
    rest: tuple[float, float, float, float] = FLAT,
    signal: tuple[float, float, float, float] = FLAT,
    fine: pl.DataFrame | None = None,
    tier: str = "mid_cap",
    as_of: datetime = LATER,
) -> dict[str, object]:
    """The label of a setup at bar 0 that is followed by some bars and then by equal ones to the horizon's end."""
    prices = [signal, *after, *[rest] * (HORIZON + 10 - len(after))]
    bars = bars_from_prices(prices)
    labels = label(a_setup(tier=tier), bars, fine_bars=fine, as_of=as_of, config=CONFIG)
    assert labels.schema == DCA_LABELS.polars_schema
    return labels.row(0, named=True)


def minutes(bar: int, *prices: tuple[float, float, float, float]) -> pl.DataFrame:
    return bars_from_prices(prices, start=START + bar * BAR, step=timedelta(minutes=1))


ALL_FILLED = (100.0, 100.0, 95.5, 96.0)
THREE_FILLED = (100.0, 100.0, 97.5, 98.0)


def test_the_grid_from_one_hundred_has_the_golden_levels() -> None:
    assert Grid().prices(np.array([100.0]))[0] == pytest.approx(LEVELS, abs=1e-5)


@pytest.mark.parametrize(
    ("bar", "fills", "average"), [(ALL_FILLED, 5, 97.510100), (THREE_FILLED, 3, 98.501683)]
)
def test_the_average_entry_is_that_of_equal_money_at_each_level(
    bar: tuple[float, float, float, float], fills: int, average: float
) -> None:
    row = outcome(bar, rest=(98.0, 98.0, 98.0, 98.0))
    assert (row["fills"], row["entry_price"]) == (fills, pytest.approx(average, abs=1e-6))
    assert row["entry_ts"] == START + BAR


def test_the_target_hangs_from_the_average_of_what_was_filled() -> None:
    row = outcome(ALL_FILLED, (100.0, 107.27, 100.0, 107.0))
    assert (row["outcome"], row["exit_reason"], row["ambiguous"]) == ("WIN", "TP", False)
    assert row["exit_price"] == pytest.approx(107.261110, abs=1e-6)
    assert row["gross_return_pct"] == pytest.approx(10.0)
    assert (row["exit_ts"], row["hold_time_hours"]) == (START + 2 * BAR, 0.25)


def test_the_stop_hangs_from_the_average_of_what_was_filled() -> None:
    row = outcome(ALL_FILLED, (96.0, 96.0, 89.70, 90.0))
    assert (row["outcome"], row["exit_reason"]) == ("LOSS", "SL")
    assert row["exit_price"] == pytest.approx(89.709292, abs=1e-6)


def test_costs_of_both_sides_leave_the_golden_net_return() -> None:
    assert Costs().net_return_pct("mid_cap", 5.0) == pytest.approx(3.86288, abs=1e-5)
    for tier, break_even in {"large_cap": 0.90, "mid_cap": 1.11, "small_cap": 1.61, "memecoin": 2.12}.items():
        assert Costs().break_even_pct(tier) == pytest.approx(break_even, abs=0.005)
        assert Costs().net_return_pct(tier, Costs().break_even_pct(tier)) == pytest.approx(0.0, abs=1e-9)


def test_a_bar_that_touches_both_barriers_is_an_ambiguous_loss() -> None:
    row = outcome(ALL_FILLED, (96.0, 120.0, 80.0, 100.0))
    assert (row["outcome"], row["exit_reason"], row["ambiguous"]) == ("LOSS", "SL", True)


def test_the_entry_bar_itself_may_touch_both_barriers() -> None:
    row = outcome((100.0, 120.0, 80.0, 100.0))
    assert (row["outcome"], row["ambiguous"], row["fills"]) == ("LOSS", True, 5)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([(96.0, 120.0, 96.0, 120.0), (120.0, 120.0, 80.0, 100.0)], ("WIN", False)),
        ([(96.0, 96.0, 80.0, 80.0), (80.0, 120.0, 80.0, 100.0)], ("LOSS", False)),
        ([(96.0, 120.0, 80.0, 100.0)], ("LOSS", True)),  # the minute itself touches both
        ([(96.0, 110.0, 96.0, 100.0)], ("LOSS", True)),  # minutes that lack the bar's extremes decide nothing
    ],
)
def test_finer_bars_decide_which_barrier_came_first(
    path: list[tuple[float, float, float, float]], expected: tuple[str, bool]
) -> None:
    row = outcome(ALL_FILLED, (96.0, 120.0, 80.0, 100.0), fine=minutes(2, *path))
    assert (row["outcome"], row["ambiguous"]) == expected


def test_a_spike_before_the_entry_is_ignored() -> None:
    row = outcome(ALL_FILLED, signal=(100.0, 200.0, 10.0, 100.0), rest=(97.0, 97.0, 97.0, 97.0))
    assert (row["exit_reason"], row["fills"]) == ("TIME", 5)


def test_a_spike_in_the_bar_of_the_fill_does_not_win_unless_price_ends_there() -> None:
    assert outcome((100.0, 115.0, 99.0, 100.0))["exit_reason"] == "TIME"
    assert outcome((100.0, 115.0, 99.0, 112.0))["exit_reason"] == "TP"


def test_finer_bars_show_whether_the_spike_came_after_the_fill() -> None:
    bar = (100.0, 115.0, 99.0, 100.0)
    after = minutes(1, (100.0, 100.0, 99.0, 99.0), (99.0, 115.0, 99.0, 100.0))
    before = minutes(1, (100.0, 115.0, 100.0, 100.0), (100.0, 100.0, 99.0, 100.0))
    assert outcome(bar, fine=after)["exit_reason"] == "TP"
    assert outcome(bar, fine=before)["exit_reason"] == "TIME"


def test_a_gap_through_a_barrier_leaves_at_the_open() -> None:
    assert outcome(ALL_FILLED, (85.0, 86.0, 84.0, 85.0))["exit_price"] == 85.0
    assert outcome(ALL_FILLED, (112.0, 113.0, 111.0, 112.0))["exit_price"] == 112.0


def test_orders_above_the_open_fill_at_the_open() -> None:
    row = outcome((100.0, 100.0, 99.0, 99.0), (97.0, 97.0, 97.0, 97.0), rest=(97.0, 97.0, 97.0, 97.0))
    assert row["fills"] == 3
    assert row["entry_price"] == pytest.approx(3 / (1 / 99.5 + 2 / 97.0))


@pytest.mark.parametrize(("last", "expected"), [(98.0, "BREAKEVEN"), (95.7, "TIMEOUT"), (103.0, "TIMEOUT")])
def test_time_ends_a_trade_at_the_last_close_of_the_horizon(last: float, expected: str) -> None:
    row = outcome(THREE_FILLED, rest=(last, last, last, last))
    assert (row["outcome"], row["exit_reason"], row["exit_price"]) == (expected, "TIME", last)
    assert (row["exit_ts"], row["hold_time_hours"]) == (START + HORIZON * BAR, 72.0)


def test_a_price_that_never_comes_down_buys_nothing_and_returns_nothing() -> None:
    row = outcome((100.0, 105.0, 99.6, 105.0), rest=(105.0, 120.0, 104.0, 105.0))
    assert (row["outcome"], row["fills"], row["actual_return"]) == ("TIMEOUT", 0, None)


def test_excursions_are_those_between_fill_and_exit() -> None:
    row = outcome(ALL_FILLED, (96.0, 101.0, 93.0, 97.0), (97.0, 99.0, 60.0, 70.0))
    average = 97.510100
    assert row["mfe_pct"] == pytest.approx(100 * (101 / average - 1), abs=1e-4)
    assert row["mae_pct"] == pytest.approx(-8.0)


def test_ten_hours_of_the_horizon_are_pending() -> None:
    bars = bars_from_prices([FLAT, ALL_FILLED, *[(80.0, 80.0, 80.0, 80.0)] * 39])
    for as_of in (START + timedelta(hours=10), LATER):
        row = label(a_setup(), bars, as_of=as_of, config=CONFIG).row(0, named=True)
        assert (row["outcome"], row["exit_reason"], row["actual_return"]) == ("PENDING", None, None)


def test_a_label_is_final_when_the_last_bar_of_the_horizon_is() -> None:
    final = START + (HORIZON + 1) * BAR + timedelta(minutes=2)
    assert outcome(ALL_FILLED, as_of=final - timedelta(microseconds=1))["outcome"] == "PENDING"
    assert outcome(ALL_FILLED, as_of=final)["outcome"] != "PENDING"


@pytest.mark.parametrize(("missing", "resolved"), [(14, True), (15, False)])
def test_less_than_95_percent_of_the_bars_is_unresolved(missing: int, resolved: bool) -> None:
    bars = bars_from_prices([FLAT, ALL_FILLED, *[(97.0, 97.0, 97.0, 97.0)] * (HORIZON + 5)])
    bars = bars.filter(~pl.int_range(pl.len()).is_between(100, 99 + missing))
    row = label(a_setup(), bars, as_of=LATER, config=CONFIG).row(0, named=True)
    assert (row["outcome"] != "UNRESOLVED") == resolved
    assert row["coverage_frac"] == pytest.approx((HORIZON - missing) / HORIZON)


@pytest.mark.parametrize(("missing", "entry"), [(0, 1), (1, 2), (2, 3), (3, None)])
def test_a_missing_entry_bar_is_replaced_within_two_intervals(missing: int, entry: int | None) -> None:
    bars = bars_from_prices([FLAT] * (HORIZON + 10)).filter(~pl.int_range(pl.len()).is_between(1, missing))
    row = label(a_setup(), bars, as_of=LATER, config=CONFIG).row(0, named=True)
    assert row["entry_ts"] == (None if entry is None else START + entry * BAR)
    assert row["outcome"] == ("UNRESOLVED" if entry is None else "TIMEOUT")


def test_a_sub_cent_price_keeps_its_digits() -> None:
    scale = 1.234e-7
    prices = [
        tuple(price * scale for price in bar)
        for bar in (FLAT, ALL_FILLED, *[(96.0, 110.0, 96.0, 96.0)] * 300)
    ]
    row = label(a_setup(), bars_from_prices(prices), as_of=LATER, config=CONFIG).row(0, named=True)  # type: ignore[arg-type]
    assert row["exit_price"] == pytest.approx(107.261110 * scale, rel=1e-7)


def test_the_columns_of_the_strategy_come_from_the_evidence() -> None:
    row = outcome(ALL_FILLED)
    assert (row["drop_percentage"], row["rsi"], row["volume_ratio"], row["btc_regime"]) == (
        -6.5,
        28.25,
        None,
        "BULL",
    )
    assert (row["setup_detected"], row["timestamp"]) == (True, START)


def test_setups_of_another_strategy_than_the_configuration_are_refused() -> None:
    with pytest.raises(ValueError, match="setups of swing with the configuration of dca"):
        label(
            a_setup().with_columns(strategy=pl.lit("swing")),
            bars_from_closes([1.0]),
            as_of=LATER,
            config=CONFIG,
        )


def test_no_setups_give_an_empty_frame_of_the_declared_columns() -> None:
    labels = label(a_setup().clear(), bars_from_closes([1.0]), as_of=LATER, config=CONFIG)
    assert labels.schema == DCA_LABELS.polars_schema
    assert labels.height == 0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 3), cut=st.integers(1, 1200))
def test_a_final_label_stays_what_it_was_and_order_does_not_matter(seed: int, cut: int) -> None:
    bars = pl.concat(
        [random_bars(1200, seed=seed, symbol=symbol, holes=0.01) for symbol in ("A/USDT", "B/USDT")]
    )
    setups = pl.concat([a_setup(signal=i, symbol=s) for i in range(5, 900, 40) for s in ("A/USDT", "B/USDT")])
    whole = label(setups, bars, as_of=LATER, config=CONFIG)
    then = START + cut * BAR + timedelta(minutes=2)
    shuffled = bars.sample(fraction=1.0, shuffle=True, seed=cut)
    known = label(setups, shuffled, as_of=then, config=CONFIG)
    final = known.filter(pl.col("outcome") != "PENDING")
    assert final.equals(whole.filter(pl.col("setup_id").is_in(final["setup_id"].implode())))
    assert known.equals(
        label(setups, bars.filter(pl.col("ts") + timedelta(minutes=17) <= then), as_of=then, config=CONFIG)
    )


def plain_walk(prices: list[tuple[float, float, float, float]]) -> tuple[str, float | None]:
    """The same rules bar by bar, without a search: reason and exit price."""
    waiting, filled = Grid().prices(np.array(prices[0][:1]))[0].tolist(), list[float]()
    for opened, high, low, close in prices:
        average = harmonic_mean(filled) if filled else None
        if average and not 0.92 * average < opened < 1.10 * average:
            return ("SL" if opened < average else "TP"), opened
        new = [level for level in waiting if low <= level]
        filled, waiting = filled + [min(level, opened) for level in new], waiting[len(new) :]
        if filled and low <= 0.92 * harmonic_mean(filled):
            return "SL", 0.92 * harmonic_mean(filled)
        if average and high >= 1.10 * average:
            return "TP", 1.10 * average
        if new and close >= 1.10 * harmonic_mean(filled):
            return "TP", 1.10 * harmonic_mean(filled)
    return "TIME", prices[-1][3] if filled else None


def test_a_real_year_of_labels_equals_a_plain_walk_bar_by_bar(shared_data: Path) -> None:
    bars = real_bars(shared_data)
    btc = bars.filter(pl.col("symbol") == "BTC/USDT:USDT")
    open_gate = regimes(daily_from(btc), btc).with_columns(trend=pl.lit("BULL"), stress=pl.lit("NORMAL"))
    setups = detect("dca", bars, features_15m(bars.clear()), open_gate, DcaConfig(default_tier="mid_cap"))
    labels = label(setups, bars, as_of=datetime.fromisoformat("2026-01-01T00:00:00+00:00"), config=CONFIG)
    counts = dict(labels["outcome"].value_counts().iter_rows())
    assert counts.keys() == {"WIN", "LOSS", "BREAKEVEN", "TIMEOUT", "PENDING"}
    assert labels.height == 734
    assert counts["PENDING"] < 10
    by_symbol = bars.sort("ts").partition_by("symbol", as_dict=True)
    for row in labels.filter(pl.col("outcome") != "PENDING").iter_rows(named=True):
        end = row["entry_ts"] + timedelta(hours=72)
        part = by_symbol[(row["symbol"],)].filter(
            pl.col("ts").is_between(row["entry_ts"], end, closed="left")
        )
        reason, price = plain_walk(part.select("open", "high", "low", "close").rows())
        assert (row["exit_reason"], row["exit_price"]) == (
            reason,
            None if price is None else pytest.approx(price),
        )
