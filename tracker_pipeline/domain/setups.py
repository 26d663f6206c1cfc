"""Moments at which a strategy would buy, each event once.

What belongs here: the rules that find a setup on closed bars. What does not: their parameters
(`strategy_config.py`) and what became of a setup (`labels.py`).

When an event repeats. §18.4 asks for one event until price leaves the condition or the horizon ends, and at least
60 bars from one event to the next. Taken literally that is a state machine whose state reaches back to the first
bar ever, so the events found would depend on where the input starts. Here the machine starts afresh `MEMORY` before
each UTC day: the events of a day are a function of what lies within `SETUP_LOOKBACK` and of nothing older. Fifteen
hours (the cool-down) outside the condition reset the literal machine too, so the two differ only where a coin has
no such rest for a week, and there only by an early event. On a year of eight coins they agree on all of 734.
The simpler rule "no signal in the 60 bars before" is bounded as well, but it swallows a second crash that follows
the first within a day, because the first keeps the condition alive until its high leaves the 4 h window.
"""

import hashlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.bar_grid import SERIES, BarGrid, known_bars
from tracker_pipeline.domain.schemas import SETUPS
from tracker_pipeline.domain.strategy_config import MEMORY, TIERS, StrategyConfig
from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.domain.windows import BoolArray, IntArray, ratio, window_count, window_max

# A bar at 23:45 remembers events from 7 days before its UTC day on, and the first of those has a high of up to one
# day before. Bars and regimes must reach back by this; features only need the bars that signal.
SETUP_LOOKBACK: Final = timedelta(days=9)

_BAR: Final = duration("15m")
_BARS_PER_DAY: Final = timedelta(days=1) // _BAR
_MEMORY_BARS: Final = MEMORY // _BAR
_TRADABLE_TREND: Final = ("BULL", "NEUTRAL")
_UNTRADABLE_STRESS: Final = ("PANIC", "UNKNOWN")


def detect(
    strategy: str, bars: pl.DataFrame, features: pl.DataFrame, regimes: pl.DataFrame, config: StrategyConfig
) -> pl.DataFrame:
    """Find the setups of a strategy.

    The events of the first days of `bars` may be events already counted before; take those of days whose
    `SETUP_LOOKBACK` is covered.

    Args:
        strategy: `dca`.
        bars: closed 15m bars of any series in any order: venue, symbol, ts, high, low, close.
        features: rows of `features.ml_features_15m`; RSI and volume ratio of a signal are recorded, never required.
        regimes: rows of `market.regimes`. Where a bar has none, the regime is UNKNOWN and nothing is bought.
        config: the strategy's parameters.

    Returns:
        The columns of `labels.strategy_setups`, sorted by key. Only buys: the account is long-only.

    Raises:
        ValueError: the strategy is not known, a column is absent, or a time is naive or off the 15m grid.
    """
    try:
        detector = _DETECTORS[strategy]
    except KeyError:
        raise ValueError(f"unknown strategy {strategy!r}; known are {', '.join(_DETECTORS)}") from None
    return detector(bars, features, regimes, config)


def _detect_dca(
    bars: pl.DataFrame, features: pl.DataFrame, regimes: pl.DataFrame, config: StrategyConfig
) -> pl.DataFrame:
    known = known_bars(bars, "15m", columns=("high", "close"))
    grid = BarGrid.place(known, _BAR, pad=_MEMORY_BARS)
    judged = _with_drop(known, grid, config).pipe(_with_regime, regimes)
    in_drop = judged["in_drop"].to_numpy()
    # Neither a missing bar nor one that cannot be judged tells that price has left the condition.
    episode = np.cumsum(~in_drop & judged["judged"].to_numpy())
    candidate = in_drop & judged["tradable"].to_numpy()
    fires = _events(
        grid, candidate, episode, cool_down=config.cool_down_bars, horizon=4 * config.horizon_hours
    )
    found = judged.filter(pl.Series(fires)).join(
        features.select(*SERIES, "ts", "rsi_14", "volume_ratio", "feature_set_version"),
        on=[*SERIES, "ts"],
        how="left",
    )
    evidence = pl.struct("drop_pct", "high_16", "bars_16", "rsi_14", "volume_ratio", "feature_set_version")
    return _setups("dca", found.with_columns(evidence.struct.json_encode().alias("evidence")), config)


def _with_drop(bars: pl.DataFrame, grid: BarGrid, config: StrategyConfig) -> pl.DataFrame:
    """Add the tier and the fall from the highest high, the bar's own included."""
    high, close = grid.spread(bars["high"]), grid.spread(bars["close"])
    highest = window_max(high, config.drop_bars)
    present = window_count(close, config.drop_bars)
    drop_pct = 100.0 * (ratio(close, highest) - 1.0)
    base = pl.col("symbol").str.split("/").list.first()
    tier = base.replace_strict(dict(config.tiers), default=config.default_tier, return_dtype=pl.String)
    threshold = pl.col("tier").replace_strict(
        {tier: config.drop_of(tier) for tier in TIERS}, return_dtype=pl.Float64
    )
    return (
        bars.select(*SERIES, "ts", "available_at", "close", tier.alias("tier"))
        .with_columns(
            pl.Series("drop_pct", drop_pct[grid.slot]),
            pl.Series("high_16", highest[grid.slot]),
            pl.Series("bars_16", present[grid.slot].astype(np.int64)),
        )
        .with_columns(judged=pl.col("bars_16") >= config.min_drop_bars)
        .with_columns(in_drop=pl.col("judged") & (pl.col("drop_pct") <= threshold))
    )


def _with_regime(bars: pl.DataFrame, regimes: pl.DataFrame) -> pl.DataFrame:
    """Add the regime of each bar, UNKNOWN where there is none, and whether it allows to buy."""
    regime = regimes.select("venue", "ts", "trend", "stress", regime_known="available_at")
    seen = pl.col("regime_known") <= pl.col("available_at")
    verdicts = [
        pl.when(seen).then(name).otherwise(pl.lit("UNKNOWN")).alias(name) for name in ("trend", "stress")
    ]
    tradable = pl.col("trend").is_in(_TRADABLE_TREND) & ~pl.col("stress").is_in(_UNTRADABLE_STRESS)
    return (
        bars.join(regime, on=["venue", "ts"], how="left", maintain_order="left")
        .with_columns(verdicts)
        .with_columns(tradable=tradable)
    )


def _events(
    grid: BarGrid, candidate: BoolArray, episode: IntArray, *, cool_down: int, horizon: int
) -> BoolArray:
    """Which candidate bars are events of their own.

    Args:
        grid: places of the bars, padded by `MEMORY` at least.
        candidate: bars at which the strategy would buy, were there no event before.
        episode: number that grows wherever price is seen outside the condition.
        cool_down: fewest bars from one event to the next.
        horizon: bars after which the condition may fire again without having been left.
    """
    rows = np.flatnonzero(candidate)
    slots, episodes = grid.slot[rows], episode[rows]
    fires = np.zeros(len(candidate), np.bool_)
    for day in np.unique(grid.day_slot[rows]):
        first, last = np.searchsorted(slots, [day - _MEMORY_BARS, day + _BARS_PER_DAY])
        previous: int | None = None
        for index in range(first, last):
            if previous is not None:
                passed = slots[index] - slots[previous]
                left = episodes[index] != episodes[previous]
                if passed < cool_down or not (left or passed >= horizon):
                    continue
            previous = index
            if slots[index] >= day:
                fires[rows[index]] = True
    return fires


def _setup_id(strategy: str, venue: str, symbol: str, signal_time: str, config_version: str) -> str:
    identity = "|".join((strategy, venue, symbol, signal_time, config_version))
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def _setups(strategy: str, found: pl.DataFrame, config: StrategyConfig) -> pl.DataFrame:
    version = config.config_version
    # dt.to_string keeps the offset, so that an identity can be recomputed from the row in any language.
    times = found["ts"].dt.to_string("%Y-%m-%dT%H:%M:%S%:z")
    identities = [
        _setup_id(strategy, venue, symbol, time, version)
        for venue, symbol, time in zip(found["venue"], found["symbol"], times, strict=True)
    ]
    by_tier = {
        name: pl.col("tier").replace_strict(
            {tier: float(getattr(exits, name)) for tier, exits in config.exits.items()},
            return_dtype=pl.Float64,
        )
        for name in ("tp_pct", "sl_pct")
    }
    return SETUPS.conform(
        found.select(
            pl.Series("setup_id", identities, dtype=pl.String),
            pl.lit(strategy).alias("strategy"),
            "venue",
            "symbol",
            pl.lit("15m").alias("timeframe"),
            pl.col("ts").alias("signal_ts"),
            pl.lit("BUY").alias("side"),
            pl.col("close").alias("ref_price"),
            by_tier["tp_pct"].alias("tp_pct"),
            by_tier["sl_pct"].alias("sl_pct"),
            pl.lit(config.horizon_hours, pl.Int64).alias("horizon_hours"),
            "tier",
            "trend",
            "stress",
            "evidence",
            pl.lit(version).alias("config_version"),
        )
    )


_Detector = Callable[[pl.DataFrame, pl.DataFrame, pl.DataFrame, StrategyConfig], pl.DataFrame]
_DETECTORS: Final[Mapping[str, _Detector]] = {"dca": _detect_dca}
