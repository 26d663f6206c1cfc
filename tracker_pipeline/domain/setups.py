"""Moments at which a strategy would buy, each event once.

What belongs here: the strategies there are, and the way in to their detectors. What does not: rules and parameters
(`dca.py`, `swing.py`, `channel.py`), what they share (`setup_events.py`), what became of a setup (`labels.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import polars as pl

from tracker_pipeline.domain import channel, dca, swing
from tracker_pipeline.domain.strategy_config import StrategyConfig


@dataclass(frozen=True)
class Strategy:
    """What a caller must know to run a strategy.

    Attributes:
        config: the class of its configuration, which also tells the timeframe of its bars.
        detect: its detector: bars, features, regimes and configuration to setups.
        lookback: all that decides whether a bar is a setup lies within this before it. Bars and regimes must reach
            back so far; features only need the bars that signal.
    """

    config: type[StrategyConfig]
    detect: Callable[..., pl.DataFrame]
    lookback: timedelta


STRATEGIES: Final[Mapping[str, Strategy]] = {
    "dca": Strategy(dca.DcaConfig, dca.detect_dca, dca.LOOKBACK),
    "swing": Strategy(swing.SwingConfig, swing.detect_swing, swing.LOOKBACK),
    "channel": Strategy(channel.ChannelConfig, channel.detect_channel, channel.LOOKBACK),
}


def detect(
    strategy: str, bars: pl.DataFrame, features: pl.DataFrame, regimes: pl.DataFrame, config: StrategyConfig
) -> pl.DataFrame:
    """Find the setups of a strategy.

    The events of the first days of `bars` may be events already counted before, or be absent for want of history;
    take those of days whose `STRATEGIES[strategy].lookback` is covered.

    Args:
        strategy: `dca`, `swing` or `channel`.
        bars: closed bars of any series in any order, of the strategy's timeframe: 15m, for swing 1h. Columns venue,
            symbol, ts, high and close, for channel low, for swing low and volume.
        features: rows of `features.ml_features_15m`; RSI and volume ratio of a signal are recorded, never required.
        regimes: rows of `market.regimes`. Where a bar has none, the regime is UNKNOWN and nothing is bought.
        config: the strategy's parameters.

    Returns:
        The columns of `labels.strategy_setups`, sorted by key. Only buys: the account is long-only.

    Raises:
        ValueError: the strategy is not known, the configuration is another strategy's, a column is absent, or a
            time is naive or off the timeframe's grid.
    """
    known = STRATEGIES.get(strategy)
    if known is None:
        raise ValueError(f"unknown strategy {strategy!r}; known are {', '.join(STRATEGIES)}")
    if not isinstance(config, known.config):
        raise ValueError(f"{strategy} needs a {known.config.__name__}, not a {type(config).__name__}")
    return known.detect(bars, features, regimes, config)
