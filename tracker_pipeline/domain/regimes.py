"""Trend and stress of the market as known at each closed 15m bar, judged on one coin, BTC.

What belongs here: the two verdicts and the figures they come from. What does not: what a strategy
does with them (`setups.py`).
"""

from datetime import timedelta
from typing import Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.bar_grid import BarGrid, known_bars
from tracker_pipeline.domain.schemas import REGIMES
from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.domain.windows import (
    FloatArray,
    lag,
    ratio,
    window_count,
    window_max,
    window_mean,
    window_min,
)

# What a row depends on: 48 h of 15m bars, and the daily bars of the longest span that may hold 200 of them, plus
# the age that the newest may have.
LOOKBACK: Final = timedelta(hours=48)
DAILY_LOOKBACK: Final = timedelta(days=213)

_VENUE: Final = ("venue",)
_MISSING_FRAC: Final = 0.05  # a window that lacks more than this gives no figure
# When a bar becomes final, the newest daily bar was final at most one day ago. Two days: one is missing. More: stale.
_DAILY_AGE: Final = timedelta(days=2)
_BAR: Final = duration("15m")
_HOUR: Final = 4
_DAY: Final = 24 * _HOUR


def regimes(daily_bars: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    """Judge the market at each 15m bar of BTC.

    *Trend*: BULL where SMA50 > SMA200 and close > SMA50, BEAR where both are reversed, else NEUTRAL; UNKNOWN unless
    there are 200 daily bars (in at most 210 days), none of them seen before its `available_at`, the newest not
    stale.

    *Stress*, in this order: PANIC at 1h <= -3 %, 24h <= -5 % or a 24 h range >= 12 %. CAUTION at 1h <= -2 %, 4h or
    24h <= -3 %, or 3 % below the 24 h peak, or 5 % below the 48 h peak. EUPHORIA at 1h >= 3 % or 24h >= 8 %.
    CAUTION at a 24 h range >= 8 %. Else NORMAL. A verdict stands when its own figures say so and those of every
    graver verdict are known; otherwise it is UNKNOWN. Only the 48 h peak, which decides last, is asked of NORMAL
    alone. A figure is known unless more than 5 % of its window, or an end of its change, is missing.

    Args:
        daily_bars: BTC's daily bars: venue, ts, close, reaching back by `DAILY_LOOKBACK`.
        bars: BTC's 15m bars: venue, ts, open, high, low, close, reaching back by `LOOKBACK`.

    Returns:
        The columns of `market.regimes`, one row per 15m bar, sorted by key.

    Raises:
        ValueError: a column is absent, a time is naive or off its grid, or there is more than one coin.
    """
    _require_one_coin(daily_bars)
    _require_one_coin(bars)
    known = known_bars(bars, "15m", columns=("open", "high", "low", "close"), key=_VENUE)
    figures = known.select("venue", "ts", "available_at", *_stress_figures(known)).sort("available_at")
    judged = figures.join_asof(
        _daily_figures(daily_bars).sort("available_at"),
        on="available_at",
        by="venue",
        tolerance=_DAILY_AGE,
        check_sortedness=False,  # both are sorted, which polars cannot verify by venue
    ).with_columns(_trend().alias("trend"), _stress().alias("stress"))
    return REGIMES.conform(judged)


def _require_one_coin(bars: pl.DataFrame) -> None:
    if "symbol" in bars.columns and bars["symbol"].n_unique() > 1:
        raise ValueError(f"regimes are judged on one coin, not on {bars['symbol'].n_unique()}")


def _daily_figures(daily_bars: pl.DataFrame) -> pl.DataFrame:
    """The close and its averages at each daily bar, NULL where the bars do not exist or span too long."""
    daily = known_bars(daily_bars, "1d", columns=("close",), key=_VENUE)
    close = daily["close"].to_numpy()
    averages = []
    for name, count in (("sma_50d", 50), ("sma_200d", 200)):
        # The window of a venue's early rows reaches into the venue before; its span does not exist there.
        span = pl.col("ts") - pl.col("ts").shift(count - 1).over("venue")
        complete = span < timedelta(days=round(count * (1 + _MISSING_FRAC)))
        averages.append(pl.when(complete).then(pl.Series(window_mean(close, count))).alias(name))
    return daily.select("venue", "available_at", pl.col("close").alias("daily_close"), *averages)


def _stress_figures(bars: pl.DataFrame) -> list[pl.Series]:
    """Changes, range and distance from the peak at each bar, in %.

    A 15m bar stands for its minutes: extremes are its high and low, and the first price of a
    window is the open of its first bar. A change needs the bar exactly that long ago; the next older one would be
    beyond the 10 minutes allowed.
    """
    grid = BarGrid.place(bars, _BAR, pad=2 * _DAY, key=_VENUE)
    opened, high, low, close = (grid.spread(bars[name]) for name in ("open", "high", "low", "close"))
    next_open = pl.Series(opened).fill_nan(None).backward_fill().cast(pl.Float64).to_numpy()
    first = lag(next_open, _DAY - 1)
    day_known, two_days_known = (_is_known(close, width) for width in (_DAY, 2 * _DAY))
    high_24h, low_24h = window_max(high, _DAY), window_min(low, _DAY)
    figures = {
        "change_1h_pct": _change_pct(close, _HOUR),
        "change_4h_pct": _change_pct(close, 4 * _HOUR),
        "change_24h_pct": _change_pct(close, _DAY),
        "range_24h_pct": 100.0 * ratio(high_24h - low_24h, first) + day_known,
        "drawdown_24h_pct": 100.0 * (ratio(close, high_24h) - 1.0) + day_known,
        "drawdown_48h_pct": 100.0 * (ratio(close, window_max(high, 2 * _DAY)) - 1.0) + two_days_known,
    }
    return [pl.Series(name, values[grid.slot], nan_to_null=True) for name, values in figures.items()]


def _change_pct(close: FloatArray, bars: int) -> FloatArray:
    return 100.0 * (ratio(close, lag(close, bars)) - 1.0)


def _is_known(close: FloatArray, width: int) -> FloatArray:
    """0 where enough of the window exists, NaN elsewhere: added to a figure it takes away what is not known."""
    return np.where(window_count(close, width) >= width * (1 - _MISSING_FRAC), 0.0, np.nan)


def _trend() -> pl.Expr:
    close, fast, slow = pl.col("daily_close"), pl.col("sma_50d"), pl.col("sma_200d")
    return (
        pl.when(slow.is_null())
        .then(pl.lit("UNKNOWN"))
        .when((fast > slow) & (close > fast))
        .then(pl.lit("BULL"))
        .when((fast < slow) & (close < fast))
        .then(pl.lit("BEAR"))
        .otherwise(pl.lit("NEUTRAL"))
    )


def _stress() -> pl.Expr:
    hour, four_hours, day = pl.col("change_1h_pct"), pl.col("change_4h_pct"), pl.col("change_24h_pct")
    day_range, below_peak = pl.col("range_24h_pct"), pl.col("drawdown_24h_pct")
    below_peak_48h = pl.col("drawdown_48h_pct")
    unknown = pl.lit("UNKNOWN")
    return (
        pl.when(day_range.is_null())
        .then(unknown)
        .when((hour <= -3) | (day <= -5) | (day_range >= 12))
        .then(pl.lit("PANIC"))
        .when(hour.is_null() | day.is_null())
        .then(unknown)
        .when((hour <= -2) | (four_hours <= -3) | (day <= -3) | (below_peak <= -3) | (below_peak_48h <= -5))
        .then(pl.lit("CAUTION"))
        .when(four_hours.is_null())
        .then(unknown)
        .when((hour >= 3) | (day >= 8))
        .then(pl.lit("EUPHORIA"))
        .when(day_range >= 8)
        .then(pl.lit("CAUTION"))
        .when(below_peak_48h.is_null())
        .then(unknown)
        .otherwise(pl.lit("NORMAL"))
    )
