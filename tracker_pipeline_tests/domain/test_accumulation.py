"""The score is exact, speaks of addresses known on both sides, and cannot be fooled by spelling or staking."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.accumulation import accumulation_score, band, find_baseline, gini
from tracker_pipeline.domain.accumulation_tags import tags
from tracker_pipeline.domain.holdings import common_assets

ETH = 10**18
PAR = Decimal(1)
A, B, C, D = (f"0x{letter * 40}" for letter in "abcd")
T = datetime(2026, 5, 2, 12, tzinfo=UTC)
DAY = timedelta(hours=24)
HOUR = timedelta(hours=1)

Balances = Mapping[str, int | Mapping[str, int | None] | None]


def snapshot(balances: Balances) -> pl.DataFrame:
    """A frame of wei: a number is native ether, a mapping names the assets."""
    rows = [
        (address, asset, None if wei is None else str(wei))
        for address, held in balances.items()
        for asset, wei in (held.items() if isinstance(held, Mapping) else [("ETH", held)])
    ]
    return pl.DataFrame(
        rows, schema=dict.fromkeys(("whale_address", "asset", "balance"), pl.String()), orient="row"
    )


def in_eth(balances: Mapping[str, float | None]) -> pl.DataFrame:
    return snapshot({address: None if eth is None else int(eth * ETH) for address, eth in balances.items()})


def score(then: pl.DataFrame, now: pl.DataFrame, rate: Decimal | None = PAR) -> dict[str, Any]:
    return accumulation_score(now, then, steth_rate=rate)


def sides(result: Mapping[str, Any]) -> tuple[int, int, int]:
    return result["accumulators"], result["distributors"], result["neutral"]


# Worked examples of the definition.


def test_two_that_gain_score_their_common_gain():
    result = score(in_eth({A: 1800, B: 1400}), in_eth({A: 2000, B: 1500}))
    assert result["score_pct"] == result["lst_score_pct"] == Decimal("9.375")
    assert sides(result) == (2, 0, 0)
    assert result["gini"] == Decimal("0.0714285714")
    assert result["trend_score"] == 1


def test_one_without_a_row_then_is_left_out_of_both_sums():
    result = score(in_eth({A: 1800, C: 1000}), in_eth({A: 2000, B: 1500, C: 500}))
    assert result["score_pct"] == result["lst_score_pct"] == Decimal("-10.7142857143")
    assert sides(result) == (1, 1, 0)
    assert (result["matched"], result["missing_historical"], result["missing_current"]) == (2, 1, 0)
    assert (result["universe"], result["entrants"], result["leavers"]) == (3, 1, 0)


@pytest.mark.parametrize("zero_rows", [True, False])
def test_a_pure_stake_is_no_distribution(zero_rows):
    nothing = {"WETH": 0, "STETH": 0} if zero_rows else {}
    then = snapshot({A: {"ETH": 1000 * ETH, **nothing}, B: {"ETH": 1000 * ETH, **nothing}})
    staked = {"STETH": 1000 * ETH, **({"ETH": 0, "WETH": 0} if zero_rows else {})}
    result = score(then, snapshot({A: staked, B: {"ETH": 1000 * ETH, **nothing}}))
    assert result["score_pct"] == -50
    assert result["lst_score_pct"] == 0
    assert sides(result) == (0, 0, 2)


def test_a_read_that_failed_is_not_a_balance_of_zero():
    result = score(in_eth({A: 5000, B: 100}), in_eth({A: None, B: 110}))
    assert result["score_pct"] == result["lst_score_pct"] == 10
    assert sides(result) == (1, 0, 0)
    assert (result["missing_current"], result["leavers"]) == (1, 0)


def test_a_change_from_nothing_has_no_percentage():
    result = score(in_eth({A: 0}), in_eth({A: 100}))
    assert result["score_pct"] is None
    assert result["lst_score_pct"] is None
    assert result["band"] is None
    assert sides(result) == (1, 0, 0)
    assert result["median_change_pct"] is None


def test_one_wei_more_than_27_digits_is_seen():
    wei = 77938775857974546172899779
    result = score(snapshot({A: wei}), snapshot({A: wei + 1}))
    assert format(result["score_pct"], "f") == "0.0000000000"
    assert result["change_wei"] == 1
    assert sides(result) == (0, 0, 1)


def test_the_largest_number_of_a_contract_does_not_overflow():
    result = score(snapshot({A: 1}), snapshot({A: 2**256 - 1}))
    assert result["change_wei"] == 2**256 - 2
    assert result["score_pct"] == Decimal(100 * (2**256 - 2))


# Rules beyond the examples.


def test_the_columns_are_those_of_the_table_in_its_order():
    names = [column.name for column in schemas.ACCUMULATION_SCORES.columns]
    result = score(in_eth({A: 1}), in_eth({A: 2}))
    assert list(result) == names[names.index("score_pct") : names.index("band") + 1]


def test_nobody_known_on_both_sides_gives_counts_and_no_figures():
    result = score(in_eth({A: 1}), in_eth({B: 1}))
    figures = {
        "score_pct",
        "lst_score_pct",
        "trend_score",
        "change_wei",
        "lst_change_wei",
        "gini",
        "band",
        "driver",
    }
    assert {name: result[name] for name in figures} == dict.fromkeys(figures)
    assert (result["universe"], result["matched"], result["entrants"], result["leavers"]) == (2, 0, 1, 1)
    assert score(in_eth({}), in_eth({}))["universe"] == 0


def test_a_token_that_could_not_be_read_makes_the_address_unknown():
    then = snapshot({A: {"ETH": 10 * ETH, "STETH": 0}, B: 10 * ETH})
    result = score(then, snapshot({A: {"ETH": 20 * ETH, "STETH": None}, B: 11 * ETH}))
    assert (result["matched"], result["missing_current"]) == (1, 1)
    assert result["score_pct"] == 10


@pytest.mark.parametrize("rate", [None, Decimal("0.89"), Decimal("1.11")])
def test_without_a_usable_rate_the_native_score_stays(rate):
    then = snapshot({A: {"ETH": 100 * ETH, "STETH": 50 * ETH}, B: 100 * ETH})
    result = score(then, snapshot({A: {"ETH": 100 * ETH, "STETH": 90 * ETH}, B: 120 * ETH}), rate)
    assert result["score_pct"] == 10
    assert result["lst_score_pct"] is None
    assert result["lst_change_wei"] is None
    assert result["steth_rate"] == rate
    assert sides(result) == (1, 0, 0)


def test_both_sides_are_valued_at_one_rate_and_rounded_down_to_the_wei():
    then = snapshot({A: {"ETH": 1, "WETH": 1, "STETH": 3}})
    result = score(then, snapshot({A: {"ETH": 1, "WETH": 1, "STETH": 5}}), Decimal("0.95"))
    assert result["lst_change_wei"] == 4 - 2  # 5 × 0.95 = 4.75, 3 × 0.95 = 2.85
    assert result["lst_score_pct"] == 50


@pytest.mark.parametrize(
    ("then", "now", "side"),
    [
        (0, ETH // 100, "neutral"),
        (0, ETH // 100 + 1, "accumulators"),
        (1000 * ETH, 1000 * ETH - ETH // 5, "neutral"),
        (1000 * ETH, 1000 * ETH - ETH // 5 - 1, "distributors"),
    ],
)
def test_gas_and_rebases_are_neither_gain_nor_loss(then, now, side):
    assert score(snapshot({A: then}), snapshot({A: now}))[side] == 1


def test_the_driver_is_the_outlier_that_moved_most():
    rest = {f"0x{number:040x}": 100.0 for number in range(1, 9)}
    then = in_eth({**rest, A: 10, B: 10_000})
    result = score(then, in_eth({**rest, A: 20, B: 15_000}))
    assert result["outliers"] == 2
    assert result["driver"] == B
    assert result["is_anomaly"]
    assert (result["median_change_pct"], result["mad_pct"], result["outlier_threshold_pct"]) == (0, 0, 1)


def test_of_two_equally_large_outliers_the_lower_address_is_the_driver():
    rest = {f"0x{number:040x}": 100.0 for number in range(1, 6)}
    result = score(in_eth({**rest, B: 50, A: 50}), in_eth({**rest, B: 100, A: 0}))
    assert result["driver"] == A
    assert result["is_anomaly"]


def test_a_move_within_a_point_of_the_median_is_no_outlier():
    rest = {f"0x{number:040x}": 100.0 for number in range(1, 6)}
    assert score(in_eth({**rest, A: 100}), in_eth({**rest, A: 101}))["outliers"] == 0
    assert score(in_eth({**rest, A: 100}), in_eth({**rest, A: 101.5}))["outliers"] == 1


def test_the_median_of_an_even_number_lies_between_the_middle_two():
    result = score(in_eth({A: 100, B: 100, C: 100, D: 100}), in_eth({A: 101, B: 102, C: 104, D: 108}))
    assert result["median_change_pct"] == 3
    assert result["mad_pct"] == Decimal("1.5")


def test_the_trend_weighs_each_address_by_size_and_saturates_at_five_per_cent():
    assert score(in_eth({A: 100}), in_eth({A: 100}))["trend_score"] == Decimal("0.5")
    assert score(in_eth({A: 100}), in_eth({A: 0}))["trend_score"] == 0
    assert score(in_eth({A: 300, B: 100}), in_eth({A: 300, B: 50}))["trend_score"] == Decimal("0.375")
    assert score(in_eth({A: 0}), in_eth({A: 0}))["trend_score"] is None


def test_gini_is_0_for_one_holder_and_none_for_no_holder():
    assert gini([5]) == gini([5, 0]) == gini([7, 7, 7]) == 0
    assert gini([]) is gini([0]) is None
    assert gini([1, 3]) == Fraction(1, 4)


@pytest.mark.parametrize(
    ("score_pct", "name"),
    [
        ("2.0000000001", "strong accumulation"),
        ("2", "accumulation"),
        ("0.51", "accumulation"),
        ("0.5", "neutral"),
        ("0", "neutral"),
        ("-0.49", "neutral"),
        ("-0.5", "distribution"),
        ("-1.99", "distribution"),
        ("-2", "strong distribution"),
        ("-50", "strong distribution"),
    ],
)
def test_the_limits_of_the_bands_belong_to_the_lower_one(score_pct, name):
    assert band(Decimal(score_pct)) == name


@pytest.mark.parametrize(
    ("balances", "message"),
    [
        ([(A, "ETH", "1"), (A.upper().replace("0X", "0x"), "ETH", "2")], "two balances"),
        ([(A, "ETH", "1"), (A, "ETH", None)], "two balances"),
        ([(A, "ETH", "-1")], "no whole number"),
        ([(A, "ETH", "1.5")], "no whole number"),
        ([(A, "stETH", "1")], "only ETH, WETH, STETH"),
    ],
)
def test_rows_that_cannot_be_are_refused(balances, message):
    frame = pl.DataFrame(balances, schema=["whale_address", "asset", "balance"], orient="row")
    with pytest.raises(ValueError, match=message):
        score(frame, in_eth({A: 1}))


@pytest.mark.parametrize("rate", ["0", "-1", "NaN", "Infinity"])
def test_a_rate_that_is_no_positive_number_is_refused(rate):
    with pytest.raises(ValueError, match="no positive number"):
        score(in_eth({A: 1}), in_eth({A: 1}), Decimal(rate))


def test_a_token_that_only_one_snapshot_read_can_be_left_out():
    now, then = snapshot({A: {"ETH": ETH, "STETH": 9 * ETH}}), snapshot({A: ETH})
    assert score(then, now)["lst_score_pct"] == 900
    current, baseline = common_assets(now, then)
    assert score(baseline, current)["lst_score_pct"] == 0


# Properties.

WEI = st.one_of(st.none(), st.integers(0, 10**27))
PAIRS = st.dictionaries(st.sampled_from([f"0x{n:040x}" for n in range(12)]), st.tuples(WEI, WEI), max_size=12)


def both(pairs: Mapping[str, tuple[int | None, int | None]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    return (
        snapshot({address: then for address, (then, _) in pairs.items()}),
        snapshot({address: now for address, (_, now) in pairs.items()}),
    )


@given(PAIRS, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_rows_does_not_matter(pairs, random):
    then, now = both(pairs)
    shuffled = [frame.sample(fraction=1, shuffle=True, seed=random.randrange(99)) for frame in (then, now)]
    assert score(*shuffled) == score(then, now)


@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_a_second_spelling_of_an_address_changes_nothing(pairs):
    then, now = both(pairs)
    capitals = pl.lit("0x") + pl.col("whale_address").str.slice(2).str.to_uppercase()
    doubled = [pl.concat([frame, frame.with_columns(whale_address=capitals)]) for frame in (then, now)]
    assert score(*doubled) == score(then, now)


@given(PAIRS, st.integers(2, 1000))
@settings(max_examples=60, deadline=None)
def test_percentages_do_not_depend_on_the_unit(pairs, factor):
    def larger(wei: int | None) -> int | None:
        return None if wei is None else wei * factor

    result = score(*both(pairs))
    scaled = score(*both({address: (larger(then), larger(now)) for address, (then, now) in pairs.items()}))
    relative = (
        "score_pct",
        "lst_score_pct",
        "trend_score",
        "median_change_pct",
        "mad_pct",
        "gini",
        "band",
        "driver",
    )
    assert {name: scaled[name] for name in relative} == {name: result[name] for name in relative}
    if result["change_wei"] is not None:
        assert scaled["change_wei"] == factor * result["change_wei"]


@given(PAIRS, WEI, st.booleans())
@settings(max_examples=60, deadline=None)
def test_an_address_unknown_on_either_side_changes_counts_alone(pairs, wei, unknown_now):
    result = score(*both(pairs))
    half_known = (wei, None) if unknown_now else (None, wei)
    more = score(*both({**pairs, D: half_known}))
    counts = {"universe", "missing_current", "missing_historical"}
    assert {name: more[name] for name in more.keys() - counts} == {
        name: result[name] for name in result.keys() - counts
    }
    assert more["universe"] == result["universe"] + 1


@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_every_matched_address_is_on_one_side(pairs):
    result = score(*both(pairs))
    assert sum(sides(result)) == result["matched"]
    assert result["universe"] - result["matched"] <= result["missing_current"] + result["missing_historical"]


# The snapshot to compare with.


def baseline(*runs: datetime, lookback: timedelta = DAY, tolerance: timedelta = HOUR) -> datetime | None:
    return find_baseline(runs, at=T, lookback=lookback, tolerance=tolerance)


def test_of_two_equally_near_runs_the_earlier_is_chosen():
    early, late = T - DAY - HOUR, T - DAY + HOUR
    assert baseline(early, late) == baseline(late, early) == early


def test_the_nearest_run_is_chosen():
    near = T - DAY + timedelta(minutes=5)
    assert baseline(T - DAY - HOUR, near, T - DAY + HOUR) == near


def test_a_run_a_second_beyond_the_tolerance_is_none():
    assert baseline(T - DAY - HOUR - timedelta(seconds=1)) is None
    assert baseline() is None


def test_a_run_that_drifted_a_tenth_of_the_look_back_is_none():
    ten_hours = timedelta(hours=10)
    assert baseline(T - ten_hours - HOUR, lookback=ten_hours) is None
    within = T - ten_hours - HOUR + timedelta(microseconds=1)
    assert baseline(within, lookback=ten_hours) == within


def test_times_without_a_zone_and_look_backs_of_nothing_are_refused():
    with pytest.raises(ValueError, match="aware"):
        baseline(datetime(2026, 5, 1, 12))  # noqa: DTZ001
    with pytest.raises(ValueError, match="not positive"):
        baseline(T, lookback=timedelta(0))


# Tags.


def tagged(then: pl.DataFrame, now: pl.DataFrame, rate: Decimal | None = PAR, **context: Any) -> list[str]:
    return tags(score(then, now, rate), now, then, **context)


def crowd(eth: float, *, start: int = 1, size: int = 20) -> dict[str, float]:
    return {f"0x{number:040x}": eth for number in range(start, start + size)}


def test_a_still_market_has_no_tags():
    assert tagged(in_eth(crowd(100)), in_eth(crowd(100))) == []


def test_too_little_data_is_the_only_tag():
    then, now = in_eth(crowd(100)), in_eth(crowd(110))
    assert tagged(then, now, complete=False) == ["Incomplete Data"]
    assert tagged(in_eth(crowd(100, size=13)), now) == ["Insufficient Data"]
    assert "Insufficient Data" not in tagged(in_eth(crowd(100, size=14)), now)
    assert tagged(in_eth({}), in_eth({})) == ["Insufficient Data"]


def test_many_that_gain_are_organic_and_gas_is_no_gain():
    then = in_eth(crowd(100))
    assert "Organic Accumulation" in tagged(then, in_eth({**crowd(100), **crowd(102, size=6)}))
    assert "Organic Accumulation" not in tagged(then, in_eth({**crowd(100), **crowd(102, size=5)}))
    assert tagged(then, in_eth(crowd(100.005))) == []


def test_a_rise_while_the_price_falls_is_a_divergence():
    then, now = in_eth(crowd(100)), in_eth({**crowd(100), **crowd(105, size=1)})
    assert "Bullish Divergence" in tagged(then, now, price_change_48h_pct=Decimal("-2.1"))
    assert "Bullish Divergence" not in tagged(then, now, price_change_48h_pct=Decimal("-2"))
    assert "Bullish Divergence" not in tagged(then, now)


def test_wealth_in_one_hand_is_concentrated():
    assert "Concentrated Signal" in tagged(in_eth({**crowd(1), A: 10_000}), in_eth({**crowd(1), A: 10_000}))


@pytest.mark.parametrize("rate", [Decimal(1), Decimal("0.998"), Decimal("0.95"), None])
def test_a_stake_is_a_migration_at_any_rate_and_gas_is_none(rate):
    others = dict.fromkeys(crowd(1), 100 * ETH)
    then = snapshot({**others, A: {"ETH": 100 * ETH, "STETH": 0}})
    staked = snapshot({**others, A: {"ETH": 0, "STETH": 100 * ETH}})
    gas = snapshot({**others, A: {"ETH": 100 * ETH - ETH // 200, "STETH": 0}})
    sold = snapshot({**others, A: {"ETH": 0, "STETH": 50 * ETH}})
    assert "LST Migration" in tagged(then, staked, rate)
    assert "LST Migration" not in tagged(then, gas, rate)
    assert "LST Migration" not in tagged(then, sold, rate)


def test_conviction_compares_with_the_threshold_once():
    then = in_eth(crowd(100))
    now = in_eth({**crowd(101), **crowd(104, size=5), **crowd(103, start=6, size=5)})
    result = score(then, now)
    assert result["outlier_threshold_pct"] == 3
    assert "High Conviction" not in tagged(then, now)
    everyone = in_eth(crowd(102))
    assert "High Conviction" in tagged(then, everyone)


def test_a_gain_that_is_mostly_steth_is_technical():
    then = snapshot({address: {"ETH": 100 * ETH, "STETH": 0} for address in crowd(1)})
    now = snapshot({address: {"ETH": 101 * ETH, "STETH": 5 * ETH} for address in crowd(1)})
    assert "Technical Activity" in tagged(then, now)
    assert "High Conviction" not in tagged(then, now)


def test_leveraged_holders_are_technical_and_large_ones_are_not():
    def holding(eth: int, steth: int) -> pl.DataFrame:
        others = dict.fromkeys(crowd(1, size=8), 100 * ETH)
        held = {"ETH": eth * ETH, "STETH": steth * ETH}
        return snapshot({**others, A: held, B: held})

    assert "Technical Activity" in tagged(holding(10, 150), holding(10, 150))
    assert "Technical Activity" not in tagged(holding(1000, 150), holding(1000, 150))


def test_a_low_rate_is_a_risk_and_no_conviction():
    then, now = in_eth(crowd(100)), in_eth(crowd(102))
    assert tagged(then, now, Decimal("0.97")) == ["Organic Accumulation", "Depeg Risk"]
    assert "Depeg Risk" in tagged(then, now, Decimal("0.80"))
    assert "Depeg Risk" not in tagged(then, now, Decimal("0.98"))


def test_one_that_moves_everything_is_an_anomaly():
    assert "Anomaly Alert" in tagged(in_eth(crowd(100)), in_eth({**crowd(100), **crowd(300, size=1)}))
