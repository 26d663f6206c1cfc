"""The whole way from bars to training rows, for tests of it."""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from tracker_pipeline.domain.feature_surroundings import Surroundings
from tracker_pipeline.domain.features import features_15m
from tracker_pipeline.domain.labels import label
from tracker_pipeline.domain.regimes import regimes
from tracker_pipeline.domain.setups import STRATEGIES, detect
from tracker_pipeline.domain.strategy_config import StrategyConfig
from tracker_pipeline.domain.training_set import training_set

_KNOWN = pl.col("available_at")


@dataclass(frozen=True)
class Chain:
    """What is made of bars."""

    regimes: pl.DataFrame
    features: pl.DataFrame
    setups: pl.DataFrame
    labels: pl.DataFrame

    @property
    def training(self) -> pl.DataFrame:
        """Training rows, without the columns of labels that are a strategy's own."""
        return training_set(self.setups, self.labels, self.features)


def chain(
    strategy: str,
    bars: pl.DataFrame,
    reference: pl.DataFrame,
    daily: pl.DataFrame,
    *,
    config: StrategyConfig | None = None,
    as_of: datetime | None = None,
) -> Chain:
    """Run the chain of one strategy on what was known at a moment.

    Args:
        strategy: one on 15m bars.
        bars: 15m bars of all coins, with `available_at`.
        reference: those of BTC.
        daily: daily bars of BTC, with `available_at`.
        config: its configuration, or its defaults.
        as_of: moment of knowledge; None knows everything given.
    """
    settings = config or STRATEGIES[strategy].config()
    if as_of is not None:
        bars, reference, daily = (frame.filter(as_of >= _KNOWN) for frame in (bars, reference, daily))
    judged = regimes(daily, reference)
    beside = Surroundings(reference_15m=reference, regimes=judged)
    features = features_15m(bars, reference_bars=daily, surroundings=beside)
    setups = detect(strategy, bars, features, judged, settings)
    newest = as_of or bars.select(_KNOWN.max()).item()
    return Chain(judged, features, setups, label(setups, bars, as_of=newest, config=settings))
