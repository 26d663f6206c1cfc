import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tracker_pipeline.domain.feature_catalogue import CATALOGUE, FEATURE_SET_VERSION, NUMBERS
from tracker_pipeline.domain.feature_surroundings import Surroundings
from tracker_pipeline.domain.features import LOOKBACK, REFERENCE_LOOKBACK, features_15m
from tracker_pipeline.domain.regimes import regimes
from tracker_pipeline.domain.schemas import ML_FEATURES_15M
from tracker_pipeline_tests.domain.market import (
    BAR,
    START,
    bars_from_closes,
    daily_bars,
    daily_from,
    golden_bars,
    random_bars,
    random_closes,
    real_bars,
)

NAMES = [feature.name for feature in CATALOGUE]

# What needs more than the bars of the series and BTC's daily ones.
BESIDE = {"ret_5m", "btc_ret_1h", "btc_ret_24h", "regime_trend", "regime_stress", "tier"}

GOLDEN = {
    "ret_15m": -0.161238,
    "ret_1h": -1.118162,
    "ret_4h": -3.980780,
    "ret_24h": 3.822945,
    "rsi_14": 29.426425,
    "rsi_30": 43.608742,
    "macd": -0.376727,
    "macd_signal": 0.196528,
    "macd_diff": -0.573254,
    "bb_width": 0.058699,
    "bb_position": 0.047207,
    "dist_sma20": -2.657845,
    "dist_sma50": -1.602382,
    "dist_support": 0.171096,
    "dist_resistance": -4.373265,
    "vol_4h": 36.661640,
    "vol_24h": 67.492042,
    "volume_ratio": 1.165655,
    "volume_sma_ratio": 1.166667,
    "roc_12": -4.081165,
    "stoch_k": 3.600360,
    "flow_24h": 0.020797,
}


def last_row(bars: pl.DataFrame, **options: object) -> dict[str, object]:
    return features_15m(bars, **options).row(-1, named=True)  # type: ignore[arg-type]


def reasons(row: dict[str, object]) -> dict[str, str]:
    found: dict[str, str] = json.loads(str(row["null_reasons"]))
    return found


def same_bytes(left: pl.DataFrame, right: pl.DataFrame) -> bool:
    """Equality down to the sign of zero, unlike that of frames."""
    return left.equals(right) and all(
        left[name].to_numpy().tobytes() == right[name].to_numpy().tobytes() for name in NUMBERS
    )


def test_the_golden_series_gives_the_golden_figures() -> None:
    row = last_row(golden_bars())
    assert {name: row[name] for name in GOLDEN} == pytest.approx(GOLDEN, abs=1e-5)


def test_a_missing_bar_takes_the_change_that_ends_there_and_no_windowed_feature() -> None:
    hole = golden_bars().filter(pl.int_range(pl.len()) != 383)
    row, whole = last_row(hole), last_row(golden_bars())
    assert row["ret_4h"] is None
    assert reasons(row)["ret_4h"] == "gap"
    for name in ("ret_15m", "ret_1h", "ret_24h", "roc_12"):
        assert row[name] == whole[name]
    assert all(row[name] is not None for name in GOLDEN if name != "ret_4h")


def test_no_return_is_computed_across_a_hole() -> None:
    jump = [100.0] * 200 + [150.0] * 200
    bars = bars_from_closes(jump, wick=1.0).filter(pl.int_range(pl.len()) != 200)
    after = features_15m(bars).filter(pl.col("ts") == START + 201 * BAR).row(0, named=True)
    assert after["ret_15m"] is None
    assert after["vol_24h"] == 0.0
    assert after["flow_24h"] == 0.0
    assert after["rsi_14"] == 50.0


def test_a_hole_changes_no_digit_of_windows_that_do_not_reach_it() -> None:
    bars = random_bars(12 * 96, seed=5)
    hole = START + timedelta(days=10, minutes=30)
    later = pl.col("ts") > hole + timedelta(
        hours=24.25
    )  # the longest window of 15m bars but for the recursions
    of_windows = [
        feature.name for feature in CATALOGUE if feature.rule and feature.window <= timedelta(hours=24.25)
    ]
    with_hole, without = (
        features_15m(given).filter(later).select("ts", *of_windows, "null_reasons")
        for given in (bars.filter(pl.col("ts") != hole), bars)
    )
    assert with_hole.height > 90
    assert with_hole.equals(without)


def test_a_bar_that_is_not_available_yet_is_not_seen() -> None:
    bars = golden_bars()
    last_known = START + 400 * BAR + timedelta(minutes=2) - timedelta(microseconds=1)
    seen = features_15m(bars, as_of=last_known)
    assert seen["ts"].max() == START + 398 * BAR
    assert same_bytes(seen, features_15m(bars.head(399)))


def test_the_frame_has_exactly_the_declared_columns_and_no_value_without_meaning() -> None:
    features = features_15m(random_bars(500, seed=1, holes=0.2))
    assert features.schema == ML_FEATURES_15M.polars_schema
    assert features["feature_set_version"].unique().to_list() == [FEATURE_SET_VERSION]
    for name in NUMBERS:
        assert features[name].drop_nulls().is_finite().all(), name


def test_every_null_has_a_reason_and_every_reason_a_null() -> None:
    for row in features_15m(random_bars(700, seed=2, holes=0.08)).iter_rows(named=True):
        assert set(reasons(row)) == {name for name in NAMES if row[name] is None}


def test_history_that_starts_inside_the_window_is_warmup_and_not_a_gap() -> None:
    row = features_15m(random_bars(97, seed=3)).row(60, named=True)
    assert reasons(row)["ret_24h"] == reasons(row)["vol_24h"] == reasons(row)["rsi_30"] == "warmup"
    assert row["dist_sma50"] is not None


def test_zero_volume_before_a_trade_gives_no_ratio() -> None:
    volume = np.r_[np.zeros(96), np.full(5, 7.0)]
    features = features_15m(bars_from_closes(random_closes(101, seed=4), wick=0.1, volume=volume))
    first_trade = features.row(96, named=True)
    assert first_trade["volume_ratio"] is None
    assert reasons(first_trade)["volume_ratio"] == "zero_volume"
    assert features.row(95, named=True)["volume_sma_ratio"] is None


def test_a_flat_market_has_no_position_within_its_range() -> None:
    row = last_row(bars_from_closes([100.1] * 400))
    assert row["rsi_14"] == 50.0
    assert row["bb_width"] == row["vol_24h"] == row["atr_14"] == 0.0
    flat = {name for name, reason in reasons(row).items() if reason == "flat"}
    assert flat == {"bb_position", "stoch_k"}


@pytest.mark.parametrize(("slope", "expected"), [(0.1, 100.0), (-0.1, 0.0)])
def test_rsi_is_at_its_end_where_price_only_moved_one_way(slope: float, expected: float) -> None:
    assert last_row(bars_from_closes(200 + slope * np.arange(400)))["rsi_14"] == expected


def test_corrections_of_input_bars_are_counted_as_long_as_they_are_input() -> None:
    bars = random_bars(12 * 96, seed=5)
    corrected = bars.with_columns(revision=pl.when(pl.int_range(pl.len()) == 10).then(3).otherwise(1))
    counted = features_15m(corrected)["input_revision"].to_list()
    assert counted[:10] == [0] * 10
    assert set(counted[10 : 8 * 96]) == {2}
    assert set(counted[8 * 96 :]) == {0}  # outside every burn-in, and not the last bar of its day


def test_daily_figures_of_a_day_come_from_days_before_it() -> None:
    bars = random_bars(35 * 96, seed=6, symbol="ETH/USDT")
    reference = daily_from(random_bars(35 * 96, seed=7))
    day = START + timedelta(days=33)
    at_ten = pl.col("ts") == day + timedelta(hours=10)
    changed = reference.with_columns(close=pl.when(pl.col("ts") >= day).then(1.0).otherwise("close"))
    left = features_15m(bars, reference_bars=reference).filter(at_ten)
    assert left.select(pl.col("corr_btc_30d", "btc_ret_1d", "rel_btc_30d").null_count()).row(0) == (0, 0, 0)
    assert same_bytes(left, features_15m(bars, reference_bars=changed).filter(at_ten))


def test_daily_figures_follow_their_definition() -> None:
    bars = random_bars(33 * 96, seed=8, symbol="ETH/USDT")
    reference = daily_from(random_bars(33 * 96, seed=9))
    row = last_row(bars, reference_bars=reference)
    own, btc = daily_from(bars)["close"].to_numpy()[:32], reference["close"].to_numpy()[:32]
    own_returns, btc_returns = own[1:] / own[:-1] - 1, btc[1:] / btc[:-1] - 1
    assert row["vol_7d"] == pytest.approx(own_returns[-7:].std(ddof=1) * 365**0.5 * 100)
    assert row["btc_vol_30d"] == pytest.approx(btc_returns[-30:].std(ddof=1) * 365**0.5 * 100)
    assert row["rel_btc_7d"] == pytest.approx(100 * (own[-1] / own[-8] - btc[-1] / btc[-8]))
    assert row["corr_btc_30d"] == pytest.approx(np.corrcoef(own_returns[-30:], btc_returns[-30:])[0, 1])
    assert row["btc_ret_1d"] == pytest.approx(100 * btc_returns[-1])


def test_without_a_reference_only_what_compares_with_it_is_null() -> None:
    row = last_row(random_bars(33 * 96, seed=10))
    lacking = {name: reason for name, reason in reasons(row).items() if name not in BESIDE}
    assert set(lacking) == {name for name in NAMES if "btc" in name and name not in BESIDE}
    assert set(lacking.values()) == {"no_reference"}


def test_a_daily_bar_that_arrives_late_is_not_used_before() -> None:
    bars = random_bars(33 * 96, seed=11)
    day = START + timedelta(days=32)
    reference = daily_bars(random_closes(33, seed=12), last=day).with_columns(
        available_at=pl.col("ts") + pl.duration(hours=36)
    )
    features = features_15m(bars, reference_bars=reference).filter(pl.col("ts") >= day)
    known = features.filter(pl.col("btc_ret_1d").is_not_null())
    assert known["available_at"].min() == day + timedelta(hours=12, minutes=2)


def test_the_first_days_of_a_series_are_the_same_hour_by_hour() -> None:
    start = START + timedelta(hours=21, minutes=45)
    bars = random_bars(5 * 96, seed=14, start=start)
    whole = features_15m(bars)
    # 270 of the 300 bars of its window must exist.
    assert whole["rsi_30"].is_null().sum() == 269
    for number in range(250, 310):
        since = start + number * BAR
        known = bars.filter(pl.col("ts") <= since)
        assert same_bytes(features_15m(known, since=since), whole.filter(pl.col("ts") == since)), number


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ts": pl.col("ts").dt.replace_time_zone(None)}, "aware"),
        ({"ts": pl.col("ts") + pl.duration(minutes=7)}, "not on the 15m grid"),
        ({"ts": pl.lit(START)}, "share venue, symbol and ts"),
    ],
)
def test_bars_that_are_malformed_are_refused(change: dict[str, pl.Expr], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        features_15m(golden_bars().with_columns(**change))


def test_a_lacking_column_is_named() -> None:
    with pytest.raises(ValueError, match="volume"):
        features_15m(golden_bars().drop("volume"))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_the_input_does_not_matter(seed: int) -> None:
    bars = pl.concat([random_bars(150, seed=1, symbol="A/USDT"), random_bars(150, seed=2, symbol="B/USDT")])
    assert same_bytes(features_15m(bars), features_15m(bars.sample(fraction=1.0, shuffle=True, seed=seed)))


@settings(max_examples=15, deadline=None)
@given(cut=st.integers(1, 10 * 96), seed=st.integers(0, 5))
def test_what_was_known_then_equals_the_full_run(cut: int, seed: int) -> None:
    bars = random_bars(10 * 96, seed=seed, holes=0.05)
    then = START + cut * BAR + timedelta(minutes=2)
    known = features_15m(bars, as_of=then)
    assert same_bytes(known, features_15m(bars).filter(pl.col("available_at") <= then))


def test_day_by_day_and_hour_by_hour_equal_one_run_byte_for_byte() -> None:
    bars = pl.concat(
        [
            random_bars(40 * 96, seed=1, symbol="BTC/USDT"),
            random_bars(40 * 96, seed=2, symbol="X/USDT", holes=0.06),
        ]
    )
    reference = daily_from(bars.filter(pl.col("symbol") == "BTC/USDT"))
    whole = features_15m(bars, reference_bars=reference)
    for start, length in [(34, 24.0), (35, 24.0), (39, 24.0), (36.5, 1.0), (38.9375, 0.25)]:
        since = START + timedelta(days=start)
        end = since + timedelta(hours=length)
        day = since.replace(hour=0, minute=0)
        part = features_15m(
            bars.filter(pl.col("ts").is_between(since - LOOKBACK, end, closed="left")),
            reference_bars=reference.filter(
                pl.col("ts").is_between(day - REFERENCE_LOOKBACK, end, closed="left")
            ),
            since=since,
        )
        assert part.height
        assert same_bytes(part, whole.filter(pl.col("ts").is_between(since, end, closed="left")))


def test_a_real_year_computes_without_gaps_or_nonsense(shared_data: Path) -> None:
    bars = real_bars(shared_data)
    btc = bars.filter(pl.col("symbol") == "BTC/USDT:USDT")
    start = datetime(2025, 9, 1, tzinfo=UTC)
    features = features_15m(
        bars.filter(pl.col("ts") >= start - LOOKBACK),
        reference_bars=daily_from(btc),
        surroundings=Surroundings(reference_15m=btc, regimes=regimes(daily_from(btc), btc)),
        since=start,
    )
    assert_frame_equal(
        features.select("symbol", "ts"),
        bars.filter(pl.col("ts") >= start).sort("symbol", "ts").select("symbol", "ts"),
    )
    with_btc = features.filter(pl.col("ts") <= btc["ts"].max())  # other series end some bars later
    assert with_btc["null_reasons"].unique().to_list() == ['{"ret_5m":"no_fine_bars","tier":"no_tier"}']
    assert features["rsi_14"].is_between(0, 100).all()
    assert features["stoch_k"].is_between(0, 100).all()
    btc = features.filter(pl.col("symbol") == "BTC/USDT:USDT")
    assert btc["btc_ret_24h"].equals(btc["ret_24h"].alias("btc_ret_24h"))
    assert btc["corr_btc_30d"].to_numpy() == pytest.approx(1.0)
    assert btc["rel_btc_30d"].to_numpy() == pytest.approx(0.0, abs=1e-9)
