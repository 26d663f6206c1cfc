"""What lies beside a series is used as far as it was known at the bar, and NULL with a reason where it was not."""

import json
from datetime import timedelta

import polars as pl
import pytest

from tracker_pipeline.domain.feature_surroundings import Surroundings
from tracker_pipeline.domain.features import features_15m
from tracker_pipeline_tests.domain.market import (
    BAR,
    START,
    bars_from_closes,
    calm,
    random_bars,
    random_closes,
)

ETH = random_bars(200, seed=1, symbol="ETH/USDT")
BTC = random_bars(200, seed=2)


def row(number: int, **beside: object) -> dict[str, object]:
    return features_15m(ETH, surroundings=Surroundings(**beside)).row(number, named=True)  # type: ignore[arg-type]


def reason(found: dict[str, object], name: str) -> object:
    return json.loads(str(found["null_reasons"])).get(name)


def test_changes_of_btc_are_those_of_its_own_bars() -> None:
    own = features_15m(BTC).row(150, named=True)
    found = row(150, reference_15m=BTC)
    assert (found["btc_ret_1h"], found["btc_ret_24h"]) == (own["ret_1h"], own["ret_24h"])
    assert row(50, reference_15m=BTC)["btc_ret_24h"] is None


def test_a_bar_of_btc_that_came_after_the_row_is_not_seen() -> None:
    late = BTC.with_columns(
        available_at=pl.col("ts")
        + pl.duration(minutes=pl.when(pl.int_range(pl.len()) == 150).then(18).otherwise(17))
    )
    found = row(150, reference_15m=late)
    assert found["btc_ret_1h"] is None
    assert reason(found, "btc_ret_1h") == "no_reference"
    assert row(151, reference_15m=late)["btc_ret_1h"] is not None


def test_a_hole_of_btc_takes_the_changes_that_end_there() -> None:
    hole = BTC.filter(pl.int_range(pl.len()) != 146)
    found = row(150, reference_15m=hole)
    assert found["btc_ret_1h"] is None
    assert found["btc_ret_24h"] is not None


def fine(**changes: pl.Expr) -> pl.DataFrame:
    return bars_from_closes(
        random_closes(600, seed=3), step=timedelta(minutes=5), symbol="ETH/USDT"
    ).with_columns(**changes)


def test_the_last_five_minutes_are_measured_from_the_5m_bar_before_them() -> None:
    bars = fine()
    moment = START + 150 * BAR
    before = bars.filter(pl.col("ts") == moment + timedelta(minutes=5))["close"].item()
    close = ETH.filter(pl.col("ts") == moment)["close"].item()
    assert row(150, fine_bars=bars)["ret_5m"] == pytest.approx(100 * (close / before - 1), rel=1e-9)


def test_without_that_5m_bar_there_is_no_change_but_a_reason() -> None:
    moment = START + 150 * BAR
    hole = fine().filter(pl.col("ts") != moment + timedelta(minutes=5))
    for beside in (
        {},
        {"fine_bars": hole},
        {"fine_bars": fine(available_at=pl.col("ts") + timedelta(hours=1))},
    ):
        found = row(150, **beside)
        assert found["ret_5m"] is None
        assert reason(found, "ret_5m") == "no_fine_bars"


def test_the_regime_is_the_one_judged_at_the_bar_and_known_with_it() -> None:
    judged = calm(ETH, trend="BEAR", stress="CAUTION")
    found = row(150, regimes=judged)
    assert (found["regime_trend"], found["regime_stress"]) == ("BEAR", "CAUTION")
    late = row(150, regimes=judged.with_columns(pl.col("available_at") + timedelta(minutes=1)))
    assert late["regime_trend"] is None
    assert reason(late, "regime_stress") == reason(row(150), "regime_trend") == "no_regime"


def test_a_coin_outside_the_universe_has_no_tier() -> None:
    assert row(3, tiers={"ETH": "large_cap"})["tier"] == "large_cap"
    assert reason(row(3, tiers={"BTC": "large_cap"}), "tier") == "no_tier"


def test_corrections_of_what_lies_beside_are_counted() -> None:
    corrected = pl.when(pl.int_range(pl.len()) == 146).then(3).otherwise(1)
    found = features_15m(ETH, surroundings=Surroundings(reference_15m=BTC.with_columns(revision=corrected)))
    counted = found["input_revision"].to_list()
    assert [number for number, count in enumerate(counted) if count] == [146, 150]
    five = fine(
        revision=pl.when(pl.col("ts") == START + 100 * BAR + timedelta(minutes=5)).then(2).otherwise(1)
    )
    assert features_15m(ETH, surroundings=Surroundings(fine_bars=five))["input_revision"].to_list()[100] == 1


def test_what_was_known_then_equals_the_full_run() -> None:
    beside = Surroundings(reference_15m=BTC, fine_bars=fine(), regimes=calm(ETH), tiers={"ETH": "large_cap"})
    whole = features_15m(ETH, surroundings=beside)
    for count in (40, 99, 160):
        then = START + count * BAR + timedelta(minutes=2)
        known = features_15m(ETH, surroundings=beside, as_of=then)
        assert known.equals(whole.filter(pl.col("available_at") <= then))


def test_bars_of_two_coins_are_no_reference() -> None:
    with pytest.raises(ValueError, match="one series"):
        features_15m(ETH, surroundings=Surroundings(reference_15m=pl.concat([ETH, BTC])))
