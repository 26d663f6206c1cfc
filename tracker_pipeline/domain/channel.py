"""The CHANNEL strategy: buy at the lower line of a price channel.

What belongs here: its parameters and the rule that finds a setup. What does not: the fit of the lines
(`channel_fit.py`), what all strategies share (`setup_events.py`), what became of a setup (`labels.py`).

Choices:

- Regime. BULL, NEUTRAL and BEAR are allowed; stress PANIC, and UNKNOWN of trend or stress, are not tradable.
- The condition that price must leave before the same event may fire again is being in the buy zone of a channel. A
  bar without 100 bars in a row does not tell. The cool-down of 24 bars makes a day of one event.
- Width is compared to four digits: .01996 counts as .02.
- 90 % of the way to the upper line is measured from the close of the signal, on logarithms as everything else.

A close in the upper part of a channel is never a setup: the account is long-only, and to leave there is the target's
part.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from math import exp, log1p
from typing import ClassVar, Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.bar_grid import SERIES, BarGrid, known_bars
from tracker_pipeline.domain.channel_fit import WINDOW, Channel, Windows
from tracker_pipeline.domain.setup_events import (
    events,
    of_tier,
    setups_frame,
    with_recorded_features,
    with_regime,
    with_tier,
)
from tracker_pipeline.domain.strategy_config import MEMORY, Band, Exits, StrategyConfig, by_tier
from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.domain.windows import IntArray

# A bar at 23:45 remembers events from 7 days before its UTC day on, and the window of the first of those is 100 bars.
LOOKBACK: Final = timedelta(days=1) + MEMORY + timedelta(days=2)
_TRADABLE_TREND: Final = ("BULL", "NEUTRAL", "BEAR")
_AT_ONCE: Final = 8192  # windows fitted together: 8,192 x 100 values x 8 bytes = 7 MB per matrix
_WIDTH_DIGITS: Final = 4
_EVIDENCE: Final = (
    "direction",
    "slope_frac",
    "lower",
    "upper",
    "width_frac",
    "position_frac",
    "upper_episodes",
    "lower_episodes",
    "half_width_ratio",
    "inside_frac",
    "strength",
    "target_price",
    "stop_price",
    "reward_risk",
    "rsi_14",
    "volume_ratio",
    "feature_set_version",
)


@dataclass(frozen=True, kw_only=True)
class ChannelConfig(StrategyConfig):
    """Everything that decides setups and labels of the CHANNEL strategy, beside what all strategies have.

    Attributes:
        width_frac: how wide a channel may be, by tier.
        min_episodes: fewest runs of touches of each line.
        half_width_ratio: range of the width over the second half of the window / over the first.
        min_strength: weakest channel, 0 to 1.
        buy_zone_frac: highest position in the channel that is bought.
        target_frac: take profit at this share of the way from the close to the upper line.
        stop_width_frac: stop loss this share of the width below the lower line, as a fraction of the price.
        min_stop_pct: but at least so far below the lower line, %.
        min_reward_risk: least distance of the target / distance of the stop.
    """

    strategy: ClassVar[str] = "channel"
    timeframe: ClassVar[str] = "15m"

    horizon_hours: int = 18
    cool_down_bars: int = 24
    width_frac: Mapping[str, Band] = field(
        default_factory=lambda: by_tier(
            Band(0.02, 0.08), Band(0.03, 0.10), Band(0.04, 0.12), Band(0.05, 0.15)
        )
    )
    min_episodes: int = 3
    half_width_ratio: Band = field(default_factory=lambda: Band(0.75, 1.33))
    min_strength: float = 0.70
    buy_zone_frac: float = 0.15
    target_frac: float = 0.90
    stop_width_frac: float = 0.10
    min_stop_pct: float = 1.0
    min_reward_risk: float = 1.5

    def _tables(self) -> Mapping[str, Mapping[str, object]]:
        return {"width_frac": self.width_frac}

    def _rules(self) -> Mapping[str, bool]:
        halves = self.half_width_ratio
        return {
            "width_frac must be a range between 0 and 1": all(
                0 < width.low <= width.high < 1 for width in self.width_frac.values()
            ),
            "min_episodes must be positive": self.min_episodes > 0,
            "half_width_ratio must be a range around 1": 0 < halves.low <= 1 <= halves.high,
            "min_strength must be between 0 and 1": 0 <= self.min_strength <= 1,
            "buy_zone_frac must be between 0 and 1": 0 <= self.buy_zone_frac < 1,
            "target_frac must be above 0 and at most 1": 0 < self.target_frac <= 1,
            "stop_width_frac must be between 0 and 1": 0 <= self.stop_width_frac < 1,
            "min_reward_risk must not be negative": self.min_reward_risk >= 0,
        }

    def _exits(self) -> Mapping[tuple[str, str], Exits]:
        """Those of the narrowest channel bought at the top of its buy zone, the smallest there can be."""
        way = self.target_frac * (1 - self.buy_zone_frac)
        return {
            (f"{tier} narrowest-channel", tier): Exits(100 * (exp(way * log1p(w.low)) - 1), self.min_stop_pct)
            for tier, w in self.width_frac.items()
        }


def fit_channel(window: pl.DataFrame) -> Channel:
    """Fit the channel of one window.

    Args:
        window: 100 bars of 15m, one after the other: ts, high, low, close.

    Raises:
        ValueError: there are not 100 bars, they do not ascend in time without a hole, or a price is not positive.
    """
    if window.height != WINDOW:
        raise ValueError(f"a channel is fitted to {WINDOW} bars, not to {window.height}")
    steps = window["ts"].diff().drop_nulls()
    if not (steps == duration(ChannelConfig.timeframe)).all():
        raise ValueError("the bars of a channel must ascend in time, each 15 minutes after the one before")
    windows = Windows(*(window[name].cast(pl.Float64).to_numpy() for name in ("high", "low", "close")))
    if not windows.complete[-1]:
        raise ValueError("the prices of a channel must be positive")
    end = np.array([WINDOW - 1])
    return Channel(**windows.judge(end, windows.fit(end)).row(0, named=True))


def flaws(channel: Channel, tier: str, config: ChannelConfig) -> list[str]:
    """Why a channel is none for coins of a tier: `width`, `episodes`, `wedge`, `strength`; nothing if it is one."""
    found = pl.DataFrame([{**asdict(channel), "tier": tier}]).select(**_flaws(config)).row(0, named=True)
    return [name for name, present in found.items() if present]


def _flaws(config: ChannelConfig) -> dict[str, pl.Expr]:
    narrowest = of_tier({tier: width.low for tier, width in config.width_frac.items()})
    widest = of_tier({tier: width.high for tier, width in config.width_frac.items()})
    halves = config.half_width_ratio
    return {
        "width": ~pl.col("width_frac").round(_WIDTH_DIGITS).is_between(narrowest, widest),
        "episodes": pl.min_horizontal("upper_episodes", "lower_episodes") < config.min_episodes,
        "wedge": ~pl.col("half_width_ratio").is_between(halves.low, halves.high),
        "strength": ~(pl.col("strength") >= config.min_strength),
    }


def detect_channel(
    bars: pl.DataFrame, features: pl.DataFrame, regimes: pl.DataFrame, config: ChannelConfig
) -> pl.DataFrame:
    """Find the closes near the lower line of a channel, which CHANNEL buys.

    Args:
        bars: 15m bars with high, low and close.
        features: rows of `features.ml_features_15m`; recorded, never required.
        regimes: rows of `market.regimes`.
        config: parameters.
    """
    step = duration(config.timeframe)
    known = with_tier(known_bars(bars, config.timeframe, columns=("high", "low", "close")), config)
    grid = BarGrid.place(known, step, pad=max(MEMORY // step, WINDOW))
    windows = Windows(*(grid.spread(known[name]) for name in ("high", "low", "close")))
    complete = windows.complete[grid.slot]
    channels = _in_buy_zone(known, grid, windows, np.flatnonzero(complete), config)
    in_zone = np.zeros(known.height, np.bool_)
    in_zone[channels["row"].to_numpy()] = True
    # A bar whose window has a hole does not tell whether price has left.
    left = complete & ~in_zone
    judged = with_regime(_planned(channels, config), regimes, config, trends=_TRADABLE_TREND)
    wanted = judged.filter("tradable", pl.col("reward_risk") >= config.min_reward_risk)
    candidate = np.zeros(known.height, np.bool_)
    candidate[wanted["row"].to_numpy()] = True
    fires = pl.Series(events(grid, candidate, episode=np.cumsum(left), config=config))
    found = wanted.filter(fires.gather(wanted["row"]))
    return setups_frame(with_recorded_features(found, features, config), config, evidence=_EVIDENCE)


def _in_buy_zone(
    bars: pl.DataFrame, grid: BarGrid, windows: Windows, rows: IntArray, config: ChannelConfig
) -> pl.DataFrame:
    """The rows that end a channel and lie in its buy zone, with its figures."""
    found = []
    for start in range(0, max(len(rows), 1), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        lines = windows.fit(grid.slot[part])
        position = lines.position_frac
        low_enough = (position >= 0) & (position <= config.buy_zone_frac)
        part = part[low_enough]
        figures = windows.judge(grid.slot[part], lines.of(low_enough))
        signals = bars[part].select(*SERIES, "ts", "available_at", "close", "tier")
        found.append(
            pl.concat([signals.with_columns(row=pl.Series(part)), figures], how="horizontal").filter(
                ~pl.any_horizontal(*_flaws(config).values())
            )
        )
    return pl.concat(found)


def _planned(channels: pl.DataFrame, config: ChannelConfig) -> pl.DataFrame:
    """Add target, stop, their distances from the close, and the score."""
    close, upper, lower = pl.col("close"), pl.col("upper"), pl.col("lower")
    below_lower = pl.max_horizontal(config.min_stop_pct / 100, config.stop_width_frac * pl.col("width_frac"))
    return (
        channels.with_columns(
            target_price=(close.log() + config.target_frac * (upper.log() - close.log())).exp(),
            stop_price=lower * (1 - below_lower),
            score=100 * pl.col("strength"),
        )
        .with_columns(
            tp_pct=100 * (pl.col("target_price") / close - 1), sl_pct=100 * (1 - pl.col("stop_price") / close)
        )
        .with_columns(reward_risk=pl.col("tp_pct") / pl.col("sl_pct"))
    )
