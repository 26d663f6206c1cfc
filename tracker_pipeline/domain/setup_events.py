"""What the detectors of all strategies share: tier and regime of a bar, each event once, identity, and the frame.

What belongs here: steps that do not depend on a strategy's rule. What does not: the rules (`dca.py`, `swing.py`,
`channel.py`).

When an event repeats. The rule is one event until price leaves the condition or the horizon ends, and a cool-down
from one event to the next. Taken literally that is a state machine whose state reaches back to the first bar ever,
so the events found would depend on where the input starts. Here the machine starts afresh `MEMORY` before each UTC
day: the events of a day are a function of what lies within the strategy's look-back and of nothing older. A cool-down
outside the condition resets the literal machine too, so the two differ only where a coin has no such rest for a week,
and there only by an early event. On a year of eight coins they agree on all of DCA's 734.
The simpler rule "no signal in the cool-down before" is bounded as well, but it swallows a second crash that follows
the first within a day, because the first keeps the condition alive until its high leaves the window.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.bar_grid import SERIES, BarGrid
from tracker_pipeline.domain.schemas import SETUPS
from tracker_pipeline.domain.strategy_config import MEMORY, StrategyConfig
from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.domain.windows import BoolArray, IntArray

# The bars of regimes and features.
_QUARTER: Final = duration("15m")
_UNTRADABLE_STRESS: Final = ("PANIC", "UNKNOWN")


def with_tier(bars: pl.DataFrame, config: StrategyConfig) -> pl.DataFrame:
    """Add the tier of each bar's coin."""
    base = pl.col("symbol").str.split("/").list.first()
    tier = base.replace_strict(dict(config.tiers), default=config.default_tier, return_dtype=pl.String)
    return bars.with_columns(tier=tier)


def of_tier(values: Mapping[str, float]) -> pl.Expr:
    """The value of a row's tier."""
    return pl.col("tier").replace_strict(
        {tier: float(value) for tier, value in values.items()}, return_dtype=pl.Float64
    )


def with_regime(
    bars: pl.DataFrame, regimes: pl.DataFrame, config: StrategyConfig, *, trends: Sequence[str]
) -> pl.DataFrame:
    """Add the regime of each bar and whether it allows to buy.

    It is that of the newest 15m bar within the bar, UNKNOWN where there is none or where it was known later than
    the bar itself.

    Args:
        bars: sorted by series and time, with `available_at`.
        regimes: rows of `market.regimes`.
        config: tells the bars' timeframe.
        trends: trends in which the strategy buys. It never does in PANIC or where the stress is UNKNOWN.
    """
    span = duration(config.timeframe) - _QUARTER
    regime = regimes.select("venue", "trend", "stress", moment="ts", regime_known="available_at")
    moments = bars.select("venue", moment=pl.col("ts") + span).unique().sort("moment")
    newest = moments.join_asof(
        regime.sort("moment"),
        on="moment",
        by="venue",
        tolerance=span,
        check_sortedness=False,  # both are sorted, which polars cannot verify by venue
    )
    seen = pl.col("regime_known") <= pl.col("available_at")
    verdicts = [
        pl.when(seen).then(name).otherwise(pl.lit("UNKNOWN")).alias(name) for name in ("trend", "stress")
    ]
    tradable = pl.col("trend").is_in(trends) & ~pl.col("stress").is_in(_UNTRADABLE_STRESS)
    return (
        bars.with_columns(moment=pl.col("ts") + span)
        .join(newest, on=["venue", "moment"], how="left", maintain_order="left")
        .with_columns(verdicts)
        .with_columns(tradable=tradable)
        .drop("moment", "regime_known")
    )


def with_recorded_features(
    found: pl.DataFrame, features: pl.DataFrame, config: StrategyConfig
) -> pl.DataFrame:
    """Add the features that every setup records: those of the 15m bar that closes with the signal bar."""
    recorded = features.select(
        *SERIES,
        (pl.col("ts") + _QUARTER - duration(config.timeframe)).alias("ts"),
        "rsi_14",
        "volume_ratio",
        "feature_set_version",
    )
    return found.join(recorded, on=[*SERIES, "ts"], how="left")


def events(grid: BarGrid, candidate: BoolArray, *, episode: IntArray, config: StrategyConfig) -> BoolArray:
    """Which candidate bars are events of their own.

    Args:
        grid: places of the bars, padded by `MEMORY` at least.
        candidate: bars at which the strategy would buy, were there no event before.
        episode: number that grows wherever price is seen outside the condition.
        config: cool-down and horizon, after which the condition may fire again without having been left.
    """
    memory, per_day = MEMORY // grid.step, timedelta(days=1) // grid.step
    horizon = timedelta(hours=config.horizon_hours) // grid.step
    rows = np.flatnonzero(candidate)
    slots, episodes = grid.slot[rows], episode[rows]
    fires = np.zeros(len(candidate), np.bool_)
    for day in np.unique(grid.day_slot[rows]):
        first, last = np.searchsorted(slots, [day - memory, day + per_day])
        previous: int | None = None
        for index in range(first, last):
            if previous is not None:
                passed = slots[index] - slots[previous]
                left = episodes[index] != episodes[previous]
                if passed < config.cool_down_bars or not (left or passed >= horizon):
                    continue
            previous = index
            if slots[index] >= day:
                fires[rows[index]] = True
    return fires


def _setup_id(strategy: str, venue: str, symbol: str, signal_time: str, config_version: str) -> str:
    identity = "|".join((strategy, venue, symbol, signal_time, config_version))
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def setups_frame(found: pl.DataFrame, config: StrategyConfig, *, evidence: Sequence[str]) -> pl.DataFrame:
    """Give setups their identity and the columns of `labels.strategy_setups`, sorted by key.

    Args:
        found: signal bars with close, tier, trend, stress, tp_pct, sl_pct, and a score where the strategy has one.
        config: the strategy's parameters.
        evidence: columns of `found` that made the setup.
    """
    version = config.config_version
    # dt.to_string keeps the offset, so that an identity can be recomputed from the row in any language.
    times = found["ts"].dt.to_string("%Y-%m-%dT%H:%M:%S%:z")
    identities = [
        _setup_id(config.strategy, venue, symbol, time, version)
        for venue, symbol, time in zip(found["venue"], found["symbol"], times, strict=True)
    ]
    return SETUPS.conform(
        found.select(
            pl.Series("setup_id", identities, dtype=pl.String),
            pl.lit(config.strategy).alias("strategy"),
            "venue",
            "symbol",
            pl.lit(config.timeframe).alias("timeframe"),
            pl.col("ts").alias("signal_ts"),
            pl.lit("BUY").alias("side"),
            pl.col("close").alias("ref_price"),
            "tp_pct",
            "sl_pct",
            pl.lit(config.horizon_hours, pl.Int64).alias("horizon_hours"),
            "tier",
            "trend",
            "stress",
            *(["score"] if "score" in found.columns else []),
            pl.struct(evidence).struct.json_encode().alias("evidence"),
            pl.lit(version).alias("config_version"),
        )
    )
