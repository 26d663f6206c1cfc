"""Nothing of the future is in the whole chain: cut data give what was known, and chance gives no edge."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain.dca import DcaConfig
from tracker_pipeline.domain.feature_catalogue import NUMBERS
from tracker_pipeline.domain.setups import STRATEGIES
from tracker_pipeline_tests.domain.chain import Chain, chain
from tracker_pipeline_tests.domain.market import (
    START,
    bars_from_closes,
    daily_bars,
    daily_from,
    random_closes,
    real_bars,
)

DAYS = 50
COINS = [f"C{number}/USDT" for number in range(12)]
FINAL = ("WIN", "LOSS", "BREAKEVEN", "TIMEOUT")
# Rising by a steady 1 % a day, so that the trend is BULL throughout; the bars themselves are chance.
DAILY = daily_bars(100 * 1.01 ** np.arange(270), last=START + timedelta(days=DAYS)).with_columns(
    available_at=pl.col("ts") + timedelta(days=1, minutes=10)
)
CONFIG = DcaConfig(drop_pct=-5.0, cool_down_bars=20)


def available(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.with_columns(available_at=pl.col("ts") + timedelta(minutes=17))


def walk(days: int, seed: int, symbol: str, scale: float) -> pl.DataFrame:
    """A coin that walks by chance, with some bars missing and volumes by chance."""
    rng = np.random.default_rng(seed)
    count = days * 96
    closes = random_closes(count, seed=seed, scale=scale)
    bars = bars_from_closes(closes, symbol=symbol, wick=0.1, volume=rng.uniform(0, 100, count))
    return available(bars.filter(pl.Series(rng.uniform(size=count) > 0.002)))


def market(days: int, coins: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Coins that fall by 5 % within four hours every other day, and BTC, which is calm enough to trade."""
    btc = walk(days, 99, "BTC/USDT", 0.0005)
    return pl.concat([btc, *(walk(days, number, coin, 0.009) for number, coin in enumerate(coins))]), btc


@pytest.fixture(scope="module")
def walked() -> Chain:
    bars, btc = market(DAYS, COINS)
    return chain("dca", bars, btc, DAILY, config=CONFIG)


def auc(score: np.ndarray, won: np.ndarray) -> float:
    """Chance that a winner scores above a loser."""
    ranks = np.argsort(np.argsort(score)) + 1.0
    wins = won.sum()
    return float((ranks[won].sum() - wins * (wins + 1) / 2) / (wins * (len(won) - wins)))


def edge(rows: pl.DataFrame, won: np.ndarray, extra: np.ndarray | None = None) -> float:
    """AUC, on the later half, of a ridge regression on the earlier half without labels that reach into the later."""
    given = rows.select(NUMBERS).fill_null(0.0).to_numpy()
    given = given if extra is None else np.column_stack([given, extra])
    middle = rows["signal_ts"].median()
    early = ((rows["signal_ts"] < middle) & (rows["label_end"] <= middle)).to_numpy()
    late = (rows["signal_ts"] >= middle).to_numpy()
    mean, spread = given[early].mean(axis=0), given[early].std(axis=0) + 1e-12
    scaled = (given - mean) / spread
    penalty = 10.0 * np.eye(given.shape[1])
    target = won[early] - won[early].mean()
    weights = np.linalg.solve(scaled[early].T @ scaled[early] + penalty, scaled[early].T @ target)
    return auc(scaled[late] @ weights, won[late])


def test_chance_gives_no_edge_and_a_leak_does(walked: Chain) -> None:
    rows = walked.training.sort("signal_ts")
    won = (rows["actual_return"] > 0).to_numpy()
    assert rows.height > 300
    assert abs(edge(rows, won) - 0.5) < 0.1  # three standard errors of an AUC of 200 rows
    rng = np.random.default_rng(1)
    shuffled = [edge(rows, rng.permutation(won)) for _ in range(40)]
    assert abs(np.mean(shuffled) - 0.5) < 0.02
    leak = rows["actual_return"].to_numpy() + rng.normal(0, 5, rows.height)
    assert edge(rows, won, extra=leak) > 0.7


def test_no_feature_alone_tells_the_outcome(walked: Chain) -> None:
    rows = walked.training
    won = (rows["actual_return"] > 0).to_numpy()
    alone = {name: auc(rows[name].fill_null(0.0).to_numpy(), won) for name in NUMBERS}
    assert {name: found for name, found in alone.items() if abs(found - 0.5) > 0.2} == {}


@settings(max_examples=6, deadline=None)
@given(cut=st.integers(5 * 96, 20 * 96), seed=st.integers(0, 3))
def test_everything_known_at_a_random_moment_is_what_the_full_run_has(cut: int, seed: int) -> None:
    bars, btc = market(20, [f"X{seed}/USDT"])
    daily = DAILY
    then = START + cut * timedelta(minutes=15) + timedelta(minutes=2)
    whole = chain("dca", bars, btc, daily, config=CONFIG)
    known = chain("dca", bars, btc, daily, config=CONFIG, as_of=then)
    for name in ("regimes", "features"):
        own, full = getattr(known, name), getattr(whole, name)
        assert own.equals(full.filter(pl.col("available_at") <= then)), name
    signalled = pl.col("signal_ts") + timedelta(minutes=17) <= then
    assert known.setups.equals(whole.setups.filter(signalled))
    final = known.labels.filter(pl.col("outcome").is_in(FINAL))
    assert final.join(whole.labels, on=final.columns, how="anti", nulls_equal=True).height == 0


@pytest.mark.parametrize(("strategy", "days"), [("dca", 320.3), ("channel", 341.7)])
def test_everything_known_then_on_a_real_year_is_what_the_whole_year_has(
    shared_data: Path, strategy: str, days: float
) -> None:
    bars = available(real_bars(shared_data).filter(pl.col("symbol").str.contains("^(BTC|SOL|DOT)/")))
    btc = bars.filter(pl.col("symbol").str.starts_with("BTC/"))
    daily = daily_from(btc).with_columns(available_at=pl.col("ts") + timedelta(days=1, minutes=10))
    moment = bars["ts"].min() + timedelta(days=days)
    config = STRATEGIES[strategy].config(default_tier="mid_cap")
    whole = chain(strategy, bars, btc, daily, config=config)
    then = chain(strategy, bars, btc, daily, config=config, as_of=moment)
    assert then.features.equals(whole.features.filter(pl.col("available_at") <= moment))
    assert then.setups.equals(whole.setups.filter(pl.col("signal_ts") <= moment - timedelta(minutes=17)))
    final = then.labels.filter(pl.col("outcome").is_in(FINAL))
    assert final.equals(whole.labels.join(final, on="setup_id", how="semi"))
    assert 10 < final.height < whole.labels.height
