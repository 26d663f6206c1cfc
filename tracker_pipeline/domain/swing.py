"""The SWING strategy: buy a breakout above resistance that volume, momentum and trend confirm.

What belongs here: its parameters and the rule that finds a setup. What does not: figures of a bar
(`swing_figures.py`), what all strategies share (`setup_events.py`), what became of a setup (`labels.py`).

Choices:

- Regime. BULL, NEUTRAL and BEAR are allowed; stress PANIC, and UNKNOWN of trend or stress, are not tradable.
- The condition that price must leave before the same event may fire again is the breakout itself. Each breakout bar
  lifts the resistance of the next, so a rally would fire at nearly every bar; the cool-down of 24 bars makes
  one event of it.
- A missing bar of the 24 h counts as no volume: the dollar volume is what is known to have been traded, at least.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar, Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.bar_grid import BarGrid, known_bars
from tracker_pipeline.domain.setup_events import (
    events,
    of_tier,
    setups_frame,
    with_recorded_features,
    with_regime,
    with_tier,
)
from tracker_pipeline.domain.strategy_config import MEMORY, TIERS, Band, Exits, StrategyConfig, by_tier
from tracker_pipeline.domain.swing_figures import BURN_IN, momentum_figures, window_figures
from tracker_pipeline.domain.timeframes import duration

CLASSES: Final = ("stable", "moderate", "volatile")
# A bar at 23:00 remembers events from 7 days before its UTC day on, and the recursions of the first of those days
# start 14 days earlier.
LOOKBACK: Final = timedelta(days=1) + MEMORY + BURN_IN
_TRADABLE_TREND: Final = ("BULL", "NEUTRAL", "BEAR")
_BREAKOUT_POINTS: Final = 30.0
_VOLUME_POINTS: Final = 20.0
_TREND_POINTS: Final = 20.0
_MOMENTUM_POINTS: Final = 5.0  # for each of three signs
_DAY_CHANGE_POINTS: Final = 15.0
_STEADY_RSI: Final = Band(45, 75)
_STEADY_DAY_PCT: Final = Band(3, 15)
_RISE_PCT: Final = 5.0
_EVIDENCE: Final = (
    "resistance",
    "breakout_pct",
    "volume_surge",
    "rsi_14_1h",
    "sma_20",
    "sma_50",
    "change_24h_pct",
    "change_14h_pct",
    "dollar_volume_24h_usd",
    "atr_14_pct",
    "volatility_pct",
    "volatility_class",
    "breakout_points",
    "volume_points",
    "trend_points",
    "momentum_points",
    "day_change_points",
    "trail_pct",
    "trail_from_pct",
    "rsi_14",
    "volume_ratio",
    "feature_set_version",
)


def _default_exits() -> dict[str, Exits]:
    return dict(zip(CLASSES, (Exits(5, 3), Exits(8, 4), Exits(12, 5)), strict=True))


@dataclass(frozen=True, kw_only=True)
class SwingConfig(StrategyConfig):
    """Everything that decides setups and labels of the SWING strategy, beside what all strategies have.

    Attributes:
        breakout_factor: the close must exceed the highest high of the 20 bars before by this factor, by tier.
        min_volume_surge: the volume must exceed this many times its mean over the 20 bars before, by tier.
        rsi_band: where the hourly RSI must lie, by tier.
        min_dollar_volume_usd: what must have been traded in 24 h.
        max_atr_pct: largest ATR, % of the close.
        moderate_from_pct: standard deviation of 20 hourly returns from which a coin is `moderate`, %.
        volatile_from_pct: the same for `volatile`.
        exits: take profit and stop loss by volatility class.
        trail_pct: distance of the trailing stop below the highest price, armed at the same gain, %, by tier.
    """

    strategy: ClassVar[str] = "swing"
    timeframe: ClassVar[str] = "1h"

    horizon_hours: int = 48
    cool_down_bars: int = 24
    breakout_factor: Mapping[str, float] = field(default_factory=lambda: by_tier(1.008, 1.010, 1.015, 1.020))
    min_volume_surge: Mapping[str, float] = field(default_factory=lambda: by_tier(1.2, 1.3, 1.4, 1.5))
    rsi_band: Mapping[str, Band] = field(
        default_factory=lambda: by_tier(Band(45, 75), Band(45, 75), Band(40, 80), Band(35, 90))
    )
    min_dollar_volume_usd: float = 1_000_000.0
    max_atr_pct: float = 10.0
    moderate_from_pct: float = 3.0
    volatile_from_pct: float = 5.0
    exits: Mapping[str, Exits] = field(default_factory=_default_exits)
    trail_pct: Mapping[str, float] = field(default_factory=lambda: by_tier(2.5, 4.0, 6.0, 8.0))

    def _tables(self) -> Mapping[str, Mapping[str, object]]:
        return {
            "breakout_factor": self.breakout_factor,
            "min_volume_surge": self.min_volume_surge,
            "rsi_band": self.rsi_band,
            "trail_pct": self.trail_pct,
        }

    def _rules(self) -> Mapping[str, bool]:
        bands = self.rsi_band.values()
        return {
            f"exits must name exactly the volatility classes {', '.join(CLASSES)}": set(self.exits)
            == set(CLASSES),
            "breakout_factor must be at least 1": min(self.breakout_factor.values()) >= 1,
            "min_volume_surge must not be negative": min(self.min_volume_surge.values()) >= 0,
            "rsi_band must be a range within 0 to 100": all(0 <= b.low <= b.high <= 100 for b in bands),
            "min_dollar_volume_usd must not be negative": self.min_dollar_volume_usd >= 0,
            "max_atr_pct must be positive": self.max_atr_pct > 0,
            "moderate_from_pct must lie between 0 and volatile_from_pct": 0
            <= self.moderate_from_pct
            <= self.volatile_from_pct,
            "trail_pct must be between 0 and 100": all(0 < trail < 100 for trail in self.trail_pct.values()),
        }

    def _exits(self) -> Mapping[tuple[str, str], Exits]:
        return {(f"{tier} {name}", tier): exits for name, exits in self.exits.items() for tier in TIERS}


def detect_swing(
    bars: pl.DataFrame, features: pl.DataFrame, regimes: pl.DataFrame, config: SwingConfig
) -> pl.DataFrame:
    """Find the breakouts that SWING buys.

    Args:
        bars: 1h bars with high, low, close and volume.
        features: rows of `features.ml_features_15m`; recorded, never required.
        regimes: rows of `market.regimes`.
        config: parameters.
    """
    step = duration(config.timeframe)
    known = known_bars(bars, config.timeframe, columns=("high", "low", "close", "volume")).filter(
        pl.col("close") > 0
    )
    grid = BarGrid.place(known, step, pad=max(MEMORY, BURN_IN) // step)
    judged = with_tier(known, config).with_columns(window_figures(grid, known))
    breakout = pl.col("close") > pl.col("resistance") * of_tier(config.breakout_factor)
    judged = (
        with_regime(judged, regimes, config, trends=_TRADABLE_TREND)
        .with_columns(breakout=_holds(breakout))
        .with_columns(likely=_holds(pl.col("breakout") & pl.col("tradable") & _confirmed(config)))
    )
    # The recursions cost the most, so they are run only over days that may have a setup.
    judged = judged.with_columns(momentum_figures(grid, known, judged["likely"].to_numpy()))
    candidate = judged.select(_holds(pl.col("likely") & _steady(config))).to_series()
    # A bar without a resistance cannot tell that price has left the condition.
    left = ~judged["breakout"] & judged["resistance"].is_not_null()
    fires = events(grid, candidate.to_numpy(), episode=np.cumsum(left.to_numpy()), config=config)
    found = with_recorded_features(judged.filter(pl.Series(fires)), features, config)
    return setups_frame(_planned(found, config), config, evidence=_EVIDENCE)


def _holds(condition: pl.Expr) -> pl.Expr:
    """A condition on figures that may be unknown; it does not hold of those."""
    return condition.fill_null(value=False)


def _confirmed(config: SwingConfig) -> pl.Expr:
    """Volume, trend, liquidity and a known volatility: all conditions on windows beside the breakout."""
    return (
        (pl.col("volume_surge") > of_tier(config.min_volume_surge))
        & (pl.col("close") > pl.col("sma_20"))
        & (pl.col("sma_20") > pl.col("sma_50"))
        & (pl.col("dollar_volume_24h_usd") >= config.min_dollar_volume_usd)
        & pl.col("volatility_pct").is_not_null()
    )


def _steady(config: SwingConfig) -> pl.Expr:
    """The conditions on RSI and ATR."""
    low = of_tier({tier: band.low for tier, band in config.rsi_band.items()})
    high = of_tier({tier: band.high for tier, band in config.rsi_band.items()})
    return pl.col("rsi_14_1h").is_between(low, high) & (pl.col("atr_14_pct") <= config.max_atr_pct)


def _points(condition: pl.Expr, points: float) -> pl.Expr:
    return pl.when(condition).then(points).otherwise(0.0)


def _planned(found: pl.DataFrame, config: SwingConfig) -> pl.DataFrame:
    """Add volatility class, exits, trailing stop and score to setups."""
    steady_rsi = pl.col("rsi_14_1h").is_between(_STEADY_RSI.low, _STEADY_RSI.high)
    steady_day = pl.col("change_24h_pct").is_between(_STEADY_DAY_PCT.low, _STEADY_DAY_PCT.high)
    signs = (steady_rsi, pl.col("macd_crossed_up"), pl.col("change_14h_pct") > _RISE_PCT)
    points = {
        "breakout_points": pl.lit(_BREAKOUT_POINTS),
        "volume_points": pl.lit(_VOLUME_POINTS),
        "trend_points": pl.lit(_TREND_POINTS),
        "momentum_points": pl.sum_horizontal(_points(sign, _MOMENTUM_POINTS) for sign in signs),
        "day_change_points": _points(steady_day, _DAY_CHANGE_POINTS),
    }
    volatility_class = (
        pl.when(pl.col("volatility_pct") < config.moderate_from_pct)
        .then(pl.lit("stable"))
        .when(pl.col("volatility_pct") < config.volatile_from_pct)
        .then(pl.lit("moderate"))
        .otherwise(pl.lit("volatile"))
    )
    of_class = pl.col("volatility_class").replace_strict
    exits = config.exits.items()
    return found.with_columns(**points, volatility_class=volatility_class).with_columns(
        score=pl.sum_horizontal(*points),
        tp_pct=of_class({name: float(e.tp_pct) for name, e in exits}, return_dtype=pl.Float64),
        sl_pct=of_class({name: float(e.sl_pct) for name, e in exits}, return_dtype=pl.Float64),
        trail_pct=of_tier(config.trail_pct),
        trail_from_pct=of_tier(config.trail_pct),
    )
