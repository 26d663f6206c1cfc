"""The DCA strategy: buy a coin that has fallen, in steps further down.

What belongs here: its parameters and the rule that finds a setup. What does not: what all strategies share
(`setup_events.py`), and what became of a setup (`labels.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar, Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.bar_grid import SERIES, BarGrid, known_bars
from tracker_pipeline.domain.setup_events import (
    events,
    of_tier,
    setups_frame,
    with_recorded_features,
    with_regime,
    with_tier,
)
from tracker_pipeline.domain.strategy_config import (
    LARGE,
    MEME,
    MEMORY,
    MID,
    SMALL,
    STRICT,
    TIERS,
    Exits,
    StrategyConfig,
    by_tier,
)
from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.domain.windows import FloatArray, ratio, window_count, window_max

# A bar at 23:45 remembers events from 7 days before its UTC day on, and the first of those has a high of up to one
# day before.
LOOKBACK: Final = timedelta(days=9)
_TRADABLE_TREND: Final = ("BULL", "NEUTRAL")


@dataclass(frozen=True)
class Grid:
    """Buy orders below the entry, of equal amounts.

    Attributes:
        levels: number of orders.
        spacing_pct: distance from one level to the next.
        start_frac: first level as a fraction of the entry.
    """

    __pydantic_config__: ClassVar = STRICT

    levels: int = 5
    spacing_pct: float = 1.0
    start_frac: float = 0.995

    def prices(self, entry: FloatArray) -> FloatArray:
        """The prices of the orders, highest first, in a row for each entry."""
        steps = np.array([(1 - self.spacing_pct / 100) ** level for level in range(self.levels)])
        return np.multiply.outer(entry * self.start_frac, steps)


def _default_exits() -> dict[str, Exits]:
    return {LARGE: Exits(10, 8), MID: Exits(10, 8), SMALL: Exits(15, 10), MEME: Exits(15, 10)}


@dataclass(frozen=True, kw_only=True)
class DcaConfig(StrategyConfig):
    """Everything that decides setups and labels of the DCA strategy, beside what all strategies have.

    Attributes:
        drop_pct: a setup needs the close this far below the highest high of `drop_bars`, negative, %.
        drop_pct_by_tier: the same by tier, used instead where `use_tier_drops`.
        use_tier_drops: whether the drop depends on the tier; off, as tier values are not calibrated.
        drop_bars: 15m bars of the high, signal bar included.
        min_drop_bars: how many of them must exist.
        exits: take profit and stop loss by tier, from the average entry.
        grid: the orders.
    """

    strategy: ClassVar[str] = "dca"
    timeframe: ClassVar[str] = "15m"

    horizon_hours: int = 72
    cool_down_bars: int = 60
    drop_pct: float = -5.0
    drop_pct_by_tier: Mapping[str, float] = field(default_factory=lambda: by_tier(-3.0, -4.0, -5.0, -6.0))
    use_tier_drops: bool = False
    drop_bars: int = 16
    min_drop_bars: int = 14
    exits: Mapping[str, Exits] = field(default_factory=_default_exits)
    grid: Grid = field(default_factory=Grid)

    def _tables(self) -> Mapping[str, Mapping[str, object]]:
        return {"exits": self.exits, "drop_pct_by_tier": self.drop_pct_by_tier}

    def _rules(self) -> Mapping[str, bool]:
        drops = self.drop_pct_by_tier.values()
        return {
            "drop_pct must be between -100 and 0": -100 < self.drop_pct < 0,
            "drop_pct_by_tier must be between -100 and 0": all(-100 < drop < 0 for drop in drops),
            "min_drop_bars must be between 1 and drop_bars": 1 <= self.min_drop_bars <= self.drop_bars,
            "drop_bars must be at most 96": self.drop_bars <= 96,
            "grid.levels must be positive": self.grid.levels > 0,
            "grid.start_frac must be above 0 and at most 1": 0 < self.grid.start_frac <= 1,
            "grid.spacing_pct must be between 0 and 100": 0 < self.grid.spacing_pct < 100,
        }

    def _exits(self) -> Mapping[tuple[str, str], Exits]:
        return {(tier, tier): exits for tier, exits in self.exits.items()}

    def drop_of(self, tier: str) -> float:
        """The drop that a setup of this tier needs, negative, %."""
        return self.drop_pct_by_tier[tier] if self.use_tier_drops else self.drop_pct


def detect_dca(
    bars: pl.DataFrame, features: pl.DataFrame, regimes: pl.DataFrame, config: DcaConfig
) -> pl.DataFrame:
    """Find the falls that DCA buys.

    The trend must be BULL or NEUTRAL and the stress neither PANIC nor UNKNOWN. RSI and volume ratio are recorded,
    never required.

    Args:
        bars: 15m bars with high and close.
        features: rows of `features.ml_features_15m`.
        regimes: rows of `market.regimes`.
        config: parameters.
    """
    step = duration(config.timeframe)
    known = known_bars(bars, config.timeframe, columns=("high", "close")).filter(pl.col("close") > 0)
    grid = BarGrid.place(known, step, pad=MEMORY // step)
    judged = with_tier(known, config).pipe(_with_drop, grid, config)
    judged = with_regime(judged, regimes, config, trends=_TRADABLE_TREND)
    in_drop = judged["in_drop"].to_numpy()
    fires = events(
        grid,
        in_drop & judged["tradable"].to_numpy(),
        # Neither a missing bar nor one that cannot be judged tells that price has left the condition.
        episode=np.cumsum(~in_drop & judged["judged"].to_numpy()),
        config=config,
    )
    found = with_recorded_features(judged.filter(pl.Series(fires)), features, config).with_columns(
        of_tier({tier: exits.tp_pct for tier, exits in config.exits.items()}).alias("tp_pct"),
        of_tier({tier: exits.sl_pct for tier, exits in config.exits.items()}).alias("sl_pct"),
    )
    evidence = ("drop_pct", "high_16", "bars_16", "rsi_14", "volume_ratio", "feature_set_version")
    return setups_frame(found, config, evidence=evidence)


def _with_drop(bars: pl.DataFrame, grid: BarGrid, config: DcaConfig) -> pl.DataFrame:
    """Add the fall from the highest high, the bar's own included."""
    high, close = grid.spread(bars["high"]), grid.spread(bars["close"])
    highest = window_max(high, config.drop_bars)
    present = window_count(close, config.drop_bars)
    drop_pct = 100.0 * (ratio(close, highest) - 1.0)
    threshold = of_tier({tier: config.drop_of(tier) for tier in TIERS})
    return (
        bars.select(*SERIES, "ts", "available_at", "close", "tier")
        .with_columns(
            pl.Series("drop_pct", drop_pct[grid.slot]),
            pl.Series("high_16", highest[grid.slot]),
            pl.Series("bars_16", present[grid.slot].astype(np.int64)),
        )
        .with_columns(judged=pl.col("bars_16") >= config.min_drop_bars)
        .with_columns(in_drop=pl.col("judged") & (pl.col("drop_pct") <= threshold))
    )
