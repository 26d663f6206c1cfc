"""Formulas of the features of 15m bars, compiled: one function each, named after its feature.

What belongs here: from figures of windows and recursions to the values of a day. What does not: those figures
(`feature_windows.py`), when a feature has a value (the `rule` of its entry in `feature_catalogue.py`).

A formula gets the columns of the day and the one before by slot (`flat`), figures of windows by the slot that they
end at, from the last slot of the day before on (`at`), states of recursions by slot (`states`), and fills in `out`.
A value that is not finite is none.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numba import literal_unroll

from tracker_pipeline.domain.compiling import compiled
from tracker_pipeline.domain.feature_catalogue import CATALOGUE
from tracker_pipeline.domain.feature_days import SLOTS
from tracker_pipeline.domain.feature_windows import (
    CHANGES_16,
    CHANGES_96,
    CLOSE,
    CLOSES_50,
    COUNT_20,
    COUNT_50,
    COUNT_96,
    DIRECTED_96,
    FAST,
    GAIN_14,
    GAIN_30,
    HIGH_14,
    HIGH_20,
    LOSS_14,
    LOSS_30,
    LOW_14,
    LOW_20,
    MEAN_20,
    PRESENT,
    REACH,
    SIGNAL,
    SIGNED_96,
    SLOW,
    SQUARES_16,
    SQUARES_20,
    SQUARES_96,
    VOLUME,
    VOLUMES_20,
    VOLUMES_96,
)
from tracker_pipeline.domain.windows import FloatArray

_PER_YEAR: Final = 100.0 * float(np.sqrt(365 * SLOTS))  # deviation of bar returns as % per year

FORMULAS: Final[dict[str, Any]] = {}  # by feature


def _formula(function: Callable[..., None]) -> Callable[..., None]:
    """Compile the formula of the feature that the function is named after."""
    FORMULAS[function.__name__] = compiled(function)
    return function


@compiled
def _change(flat: FloatArray, width: int, out: FloatArray) -> None:
    """Changes of the day's closes; NaN where either end is absent."""
    close, present = flat[CLOSE], flat[PRESENT]
    for place in range(SLOTS):
        now, before = SLOTS + place, SLOTS + place - width
        change = 100.0 * (close[now] / close[before] - 1.0)
        out[place] = change if present[now] * present[before] > 0 else np.nan


@compiled
def _strength(gain: FloatArray, loss: FloatArray, out: FloatArray) -> None:
    """Gains as a share of all moves; the middle where nothing moved."""
    for place in range(SLOTS):
        moved = gain[place] + loss[place]
        out[place] = 100.0 * (gain[place] / moved) if moved > 0 else 50.0


@compiled
def _deviation(squares: FloatArray, count: FloatArray, out: FloatArray) -> None:
    """Sample deviation of bar returns, % per year."""
    for place in range(SLOTS):
        out[place] = _PER_YEAR * np.sqrt(squares[1 + place] / (count[1 + place] - 1.0))


@_formula
def ret_15m(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    _change(flat, 1, out)


@_formula
def ret_1h(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    _change(flat, 4, out)


@_formula
def ret_4h(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    _change(flat, 16, out)


@_formula
def ret_24h(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    _change(flat, 96, out)


@_formula
def roc_12(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    _change(flat, 12, out)


@_formula
def rsi_14(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    _strength(states[GAIN_14], states[LOSS_14], out)


@_formula
def rsi_30(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    _strength(states[GAIN_30], states[LOSS_30], out)


@_formula
def macd(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    for place in range(SLOTS):
        out[place] = states[FAST, place] - states[SLOW, place]


@_formula
def macd_signal(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    for place in range(SLOTS):
        out[place] = states[SIGNAL, place]


@_formula
def macd_diff(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    for place in range(SLOTS):
        out[place] = states[FAST, place] - states[SLOW, place] - states[SIGNAL, place]


@_formula
def bb_width(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    for place in range(SLOTS):
        deviation = np.sqrt(at[SQUARES_20, 1 + place] / at[COUNT_20, 1 + place])
        out[place] = 4.0 * deviation / at[MEAN_20, 1 + place]


@_formula
def bb_position(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    for place in range(SLOTS):
        deviation = np.sqrt(at[SQUARES_20, 1 + place] / at[COUNT_20, 1 + place])
        out[place] = 0.5 + (flat[CLOSE, SLOTS + place] - at[MEAN_20, 1 + place]) / (4.0 * deviation)


@_formula
def dist_sma20(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    for place in range(SLOTS):
        out[place] = 100.0 * (flat[CLOSE, SLOTS + place] / at[MEAN_20, 1 + place] - 1.0)


@_formula
def dist_sma50(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    for place in range(SLOTS):
        mean = at[CLOSES_50, 1 + place] / at[COUNT_50, 1 + place]
        out[place] = 100.0 * (flat[CLOSE, SLOTS + place] / mean - 1.0)


@_formula
def dist_support(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    for place in range(SLOTS):
        out[place] = 100.0 * (flat[CLOSE, SLOTS + place] / -at[LOW_20, 1 + place] - 1.0)


@_formula
def dist_resistance(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    for place in range(SLOTS):
        out[place] = 100.0 * (flat[CLOSE, SLOTS + place] / at[HIGH_20, place] - 1.0)


@_formula
def stoch_k(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    for place in range(SLOTS):
        lowest = -at[LOW_14, 1 + place]
        out[place] = 100.0 * ((flat[CLOSE, SLOTS + place] - lowest) / (at[HIGH_14, 1 + place] - lowest))


@_formula
def atr_14(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    for place in range(SLOTS):
        out[place] = 100.0 * (states[REACH, place] / flat[CLOSE, SLOTS + place])


@_formula
def vol_4h(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    _deviation(at[SQUARES_16], at[CHANGES_16], out)


@_formula
def vol_24h(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    _deviation(at[SQUARES_96], at[CHANGES_96], out)


@_formula
def volume_ratio(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    for place in range(SLOTS):
        mean = at[VOLUMES_96, place] / at[COUNT_96, place]
        out[place] = flat[VOLUME, SLOTS + place] / mean


@_formula
def volume_sma_ratio(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    for place in range(SLOTS):
        mean = at[VOLUMES_20, 1 + place] / at[COUNT_20, 1 + place]
        out[place] = flat[VOLUME, SLOTS + place] / mean


@_formula
def flow_24h(flat: FloatArray, at: FloatArray, states: FloatArray, out: FloatArray) -> None:
    for place in range(SLOTS):
        out[place] = at[SIGNED_96, 1 + place] / at[DIRECTED_96, 1 + place]


_IN_ORDER: Final = tuple(FORMULAS[feature.name] for feature in CATALOGUE if feature.rule)


@compiled
def all_formulas(flat: FloatArray, at: FloatArray, states: FloatArray, values: FloatArray) -> None:
    feature = 0
    for formula in literal_unroll(_IN_ORDER):
        formula(flat, at, states, values[feature])
        feature += 1  # noqa: SIM113  # what the compiler unrolls cannot be enumerated
