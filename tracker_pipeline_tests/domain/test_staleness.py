"""What a changed bar makes different lies within the days that are made again, and making those gives the whole."""

from datetime import datetime, timedelta

import polars as pl
import pytest

from tracker_pipeline.domain import setups as setup_rules
from tracker_pipeline.domain.dca import DcaConfig
from tracker_pipeline.domain.feature_surroundings import Surroundings
from tracker_pipeline.domain.features import features_15m
from tracker_pipeline.domain.regimes import regimes
from tracker_pipeline.domain.staleness import Change, reach
from tracker_pipeline_tests.domain.market import BAR, START, daily_bars, random_closes, stormy

DAYS = 60
BTC = stormy(DAYS * 96, seed=1)
ETH = stormy(DAYS * 96, seed=2, symbol="ETH/USDT")
# Trend turns with the newest closes: the average of 50 days lies by that of 200, and the close by both.
DAILY = daily_bars(100 + random_closes(270, seed=3, scale=0.01, price=1.0), last=START + timedelta(days=DAYS))
CONFIG = DcaConfig(drop_pct=-9.0)


def made_of(btc: pl.DataFrame, eth: pl.DataFrame, daily: pl.DataFrame) -> dict[str, pl.DataFrame]:
    judged = regimes(daily, btc)
    bars = pl.concat([btc, eth])
    features = features_15m(
        bars, reference_bars=daily, surroundings=Surroundings(reference_15m=btc, regimes=judged)
    )
    found = setup_rules.detect("dca", bars, features, judged, CONFIG)
    return {
        "regimes": judged,
        "features": features.drop("input_revision"),
        "setups": found.rename({"signal_ts": "ts"}),
    }


def changed_days(before: pl.DataFrame, after: pl.DataFrame) -> set[object]:
    columns = before.columns
    apart = [
        one.join(other, on=columns, how="anti", nulls_equal=True)
        for one, other in ((before, after), (after, before))
    ]
    return set(pl.concat(apart)["ts"].dt.date())


def struck(bars: pl.DataFrame, moment: datetime) -> pl.DataFrame:
    here = pl.col("ts") == moment
    return bars.with_columns(
        close=pl.when(here).then(pl.col("close") * 0.9).otherwise("close"),
        low=pl.when(here).then(pl.col("low") * 0.88).otherwise("low"),
        high=pl.when(here).then(pl.col("high") * 1.2).otherwise("high"),
    )


WHOLE = made_of(BTC, ETH, DAILY)


@pytest.mark.parametrize("at", [timedelta(days=10, hours=9), timedelta(days=12, hours=23, minutes=45)])
@pytest.mark.parametrize("of", ["reference", "other", "daily"])
def test_changes_lie_within_the_days_that_are_made_again(of: str, at: timedelta) -> None:
    moment = START + at
    if of == "daily":
        moment = moment.replace(hour=0, minute=0)
        again = made_of(BTC, ETH, struck(DAILY, moment))
        change = Change("1d", moment, moment + timedelta(days=1), is_reference=True)
    elif of == "reference":
        again = made_of(struck(BTC, moment), ETH, DAILY)
        change = Change("15m", moment, moment + BAR, is_reference=True)
    else:
        again = made_of(BTC, struck(ETH, moment), DAILY)
        change = Change("15m", moment, moment + BAR, is_reference=False)
    reached = reach(change, horizon=timedelta(hours=72))
    differ = {name: changed_days(WHOLE[name], again[name]) for name in WHOLE}
    assert differ["features"]
    for name, days in differ.items():
        first, last = reached.get(name, (None, None))  # type: ignore[call-overload]
        assert all(first is not None and first <= day <= last for day in days), (name, sorted(days))
