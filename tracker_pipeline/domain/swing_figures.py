"""The figures of 1h bars that SWING judges.

What belongs here: formulas over a `BarGrid` of 1h bars. What does not: thresholds and points (`swing.py`).

A figure over a window is unknown unless 90 % of the window's bars exist, and one of an indicator that remembers all
bars unless 45 of the newest 50 do: by then Wilder's average has 97 % of its weight. Its recursion restarts at a fixed
distance before each UTC day, as those of the features do, so no figure depends on where the history starts.
"""

from datetime import timedelta
from typing import Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.bar_grid import BarGrid, DayLanes
from tracker_pipeline.domain.feature_values import needed
from tracker_pipeline.domain.recursions import (
    average_true_range,
    gains_and_losses,
    macd_lines,
    relative_strength,
)
from tracker_pipeline.domain.windows import (
    BoolArray,
    FloatArray,
    lag,
    ratio,
    window_count,
    window_max,
    window_mean,
    window_std,
    window_sum,
)

# What the start of a recursion leaves in Wilder's average of 14 bars by then is (13/14)^336 = 2e-11 of it.
BURN_IN: Final = timedelta(days=14)
_DAY: Final = 24
_SHORT: Final = 20
_LONG: Final = 50
_WILDER: Final = 14


def _known(values: FloatArray, counted: FloatArray, width: int) -> FloatArray:
    """The values where enough of the window exists, NaN elsewhere."""
    return np.where(window_count(counted, width) >= needed(width), values, np.nan)


def _series(name: str, values: FloatArray) -> pl.Series:
    return pl.Series(name, np.where(np.isfinite(values), values, np.nan), nan_to_null=True)


def window_figures(grid: BarGrid, bars: pl.DataFrame) -> list[pl.Series]:
    """The figures over windows at each bar, NULL where they are not known.

    Resistance and mean volume are those of the 20 bars before: the bar's own high cannot hide its breakout.
    """
    high, close, volume = (grid.spread(bars[name]) for name in ("high", "close", "volume"))
    returns = ratio(close, lag(close, 1)) - 1.0
    resistance = lag(_known(window_max(high, _SHORT), high, _SHORT), 1)
    usual_volume = lag(_known(window_mean(volume, _SHORT), volume, _SHORT), 1)
    figures = {
        "resistance": resistance,
        "breakout_pct": 100.0 * (ratio(close, resistance) - 1.0),
        "volume_surge": ratio(volume, usual_volume),
        "sma_20": _known(window_mean(close, _SHORT), close, _SHORT),
        "sma_50": _known(window_mean(close, _LONG), close, _LONG),
        "change_24h_pct": 100.0 * (ratio(close, lag(close, _DAY)) - 1.0),
        "change_14h_pct": 100.0 * (ratio(close, lag(close, _WILDER)) - 1.0),
        "dollar_volume_24h_usd": window_sum(close * volume, _DAY),
        "volatility_pct": 100.0 * _known(window_std(returns, _SHORT, ddof=1), close, _SHORT),
    }
    return [_series(name, values[grid.slot]) for name, values in figures.items()]


def momentum_figures(grid: BarGrid, bars: pl.DataFrame, wanted: BoolArray) -> list[pl.Series]:
    """RSI, ATR and whether MACD crosses its signal upwards, at the wanted bars; NULL at others or where not known.

    A crossing needs the bar before; where that is missing, none is known.
    """
    high, low, close = (grid.spread(bars[name]) for name in ("high", "low", "close"))
    rsi, atr_pct, crossed = (np.full(grid.size, np.nan) for _ in range(3))
    lanes = DayLanes.of(grid, wanted, burn_in=BURN_IN // grid.step)
    day = slice(BURN_IN // grid.step, None)
    for group in lanes.groups():
        gain, loss = gains_and_losses(close[group])
        rsi[group[day]] = relative_strength(gain, loss, _WILDER)[day]
        atr = average_true_range(high[group], low[group], close[group], _WILDER)
        atr_pct[group[day]] = (100.0 * ratio(atr, close[group]))[day]
        macd, signal = macd_lines(close[group])
        above = macd - signal
        crossed[group[day]] = ((above[day] > 0) & (np.roll(above, 1, axis=0)[day] <= 0)).astype(np.float64)
    figures = {
        "rsi_14_1h": _known(rsi, close, _LONG)[grid.slot],
        "atr_14_pct": _known(atr_pct, close, _LONG)[grid.slot],
    }
    columns = [_series(name, np.where(wanted, values, np.nan)) for name, values in figures.items()]
    return [*columns, pl.Series("macd_crossed_up", wanted & (crossed[grid.slot] == 1.0))]
