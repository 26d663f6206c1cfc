"""The feature catalogue: name, formula, window, unit, warm-up and source of every ML feature.

What belongs here: one entry per feature. What does not: the computation (`features.py` and its formulas).

Left out until their data exist: the 5-minute return (needs 1m bars), BTC's returns over 1 h and 24 h (the reference
is daily), tier and regimes (in tables of their own, and not numbers). A constant would pose as a measurement.
"""

import hashlib
from dataclasses import astuple, dataclass
from datetime import timedelta
from typing import Final

_BAR: Final = timedelta(minutes=15)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_NONE: Final = timedelta(0)


@dataclass(frozen=True)
class Feature:
    """One feature: what it is called, how it is defined, and how much history it needs.

    Attributes:
        name: the column.
        formula: definition in terms of the 15m bar at t (c close, h high, l low, v volume) and its predecessors.
        window: span of bars that enter the value, as a duration ending with the bar at t.
        unit: unit of the value.
        source: where the formula comes from.
        warm_up: history that must exist before there is a value. It equals the window, except for recursions,
            which are worth something from ten times their length on and keep getting better over the burn-in.
    """

    name: str
    formula: str
    window: timedelta
    unit: str
    source: str
    warm_up: timedelta

    @property
    def description(self) -> str:
        """One line for the schema and the UI."""
        return f"{self.formula} ({self.unit})"


_SPEC: Final = "definition of this feature set"
_WILDER: Final = "Wilder 1978, New Concepts in Technical Trading Systems"
_APPEL: Final = "Appel, MACD 12/26/9"
_BOLLINGER: Final = "Bollinger bands 20, 2, population deviation"
# Recursions start this long before the UTC day of the bar (`feature_formulas.BURN_IN`), plus up to one day.
_RECURSION: Final = timedelta(days=8)


def _bars(
    name: str, formula: str, count: int, unit: str, source: str = _SPEC, *, recursive_over: int = 0
) -> Feature:
    window = _RECURSION if recursive_over else count * _BAR
    warm_up = 10 * recursive_over * _BAR if recursive_over else window
    return Feature(name, formula, window, unit, source, warm_up)


def _days(name: str, formula: str, count: int, unit: str) -> Feature:
    return Feature(name, formula, count * _DAY, unit, _SPEC, count * _DAY)


CATALOGUE: Final[tuple[Feature, ...]] = (
    _bars("ret_15m", "100 * (c / c[15m before] - 1)", 2, "%"),
    _bars("ret_1h", "100 * (c / c[1h before] - 1)", 5, "%"),
    _bars("ret_4h", "100 * (c / c[4h before] - 1)", 17, "%"),
    _bars("ret_24h", "100 * (c / c[24h before] - 1)", 97, "%"),
    _bars("roc_12", "100 * (c / c[12 bars before] - 1)", 13, "%"),
    _bars("rsi_14", "relative strength index, Wilder average of 14", 14, "0-100", _WILDER, recursive_over=14),
    _bars("rsi_30", "relative strength index, Wilder average of 30", 30, "0-100", _WILDER, recursive_over=30),
    _bars("macd", "EMA 12 - EMA 26 of c", 26, "quote currency", _APPEL, recursive_over=26),
    _bars("macd_signal", "EMA 9 of macd", 26, "quote currency", _APPEL, recursive_over=26),
    _bars("macd_diff", "macd - macd_signal", 26, "quote currency", _APPEL, recursive_over=26),
    _bars("bb_width", "(upper - lower) / middle Bollinger band", 20, "fraction", _BOLLINGER),
    _bars("bb_position", "(c - lower) / (upper - lower) Bollinger band", 20, "fraction", _BOLLINGER),
    _bars("dist_sma20", "100 * (c / mean of 20 c - 1)", 20, "%"),
    _bars("dist_sma50", "100 * (c / mean of 50 c - 1)", 50, "%"),
    _bars("dist_support", "100 * (c / lowest l of 20 bars - 1)", 20, "%"),
    _bars("dist_resistance", "100 * (c / highest h of the 20 bars before - 1)", 21, "%"),
    _bars("stoch_k", "100 * (c - lowest l) / (highest h - lowest l) of 14 bars", 14, "0-100", "Lane, %K"),
    _bars(
        "atr_14", "100 * Wilder average of 14 true ranges / c", 14, "% of close", _WILDER, recursive_over=14
    ),
    _bars("vol_4h", "sample deviation of 16 bar returns * sqrt(35040) * 100", 17, "% per year"),
    _bars("vol_24h", "sample deviation of 96 bar returns * sqrt(35040) * 100", 97, "% per year"),
    _bars("volume_ratio", "v / mean v of the 96 bars before", 97, "ratio"),
    _bars("volume_sma_ratio", "v / mean v of 20 bars", 20, "ratio"),
    _bars("flow_24h", "sum of sign(c - c[15m before]) * v / sum of v over 96 bars", 97, "-1 to 1"),
    _days(
        "vol_7d",
        "sample deviation of the last 7 daily returns before the day * sqrt(365) * 100",
        8,
        "% per year",
    ),
    _days(
        "vol_30d",
        "sample deviation of the last 30 daily returns before the day * sqrt(365) * 100",
        31,
        "% per year",
    ),
    _days("btc_ret_1d", "100 * (BTC close of the day before / of one day earlier - 1)", 2, "%"),
    _days("btc_vol_7d", "vol_7d of BTC", 8, "% per year"),
    _days("btc_vol_30d", "vol_30d of BTC", 31, "% per year"),
    _days("rel_btc_7d", "change over the last 7 whole days less that of BTC", 8, "percentage points"),
    _days("rel_btc_30d", "change over the last 30 whole days less that of BTC", 31, "percentage points"),
    _days(
        "corr_btc_30d",
        "Pearson correlation with BTC of 30 daily returns by date, 20 pairs or more",
        31,
        "-1 to 1",
    ),
    Feature("hour_sin", "sin(2 pi * UTC hour / 24)", _NONE, "-1 to 1", _SPEC, _NONE),
    Feature("hour_cos", "cos(2 pi * UTC hour / 24)", _NONE, "-1 to 1", _SPEC, _NONE),
    Feature("weekday", "UTC day of the week, Monday 0", _NONE, "0-6", _SPEC, _NONE),
)

# Raise the number when the computation changes while its description does not; the hash follows the descriptions.
_COMPUTATION: Final = 1
_DEFINITIONS: Final = repr([astuple(feature) for feature in CATALOGUE])
FEATURE_SET_VERSION: Final = f"{_COMPUTATION}-{hashlib.sha256(_DEFINITIONS.encode()).hexdigest()[:8]}"


def as_markdown() -> str:
    """The catalogue as a page for people."""
    lines = [
        "# Features",
        "",
        f"Version `{FEATURE_SET_VERSION}`. Each is computed on closed 15m bars and NULL, with a reason code,",
        "unless 90 % of the bars of its window exist (all, for the two ends of a change). c, h, l, v are close,",
        "high, low and volume of the bar at t. This page is generated from the catalogue in",
        "`tracker_pipeline/domain/feature_catalogue.py`.",
        "",
        "| feature | formula | unit | window | warm-up | source |",
        "|---|---|---|---|---|---|",
    ]
    for feature in CATALOGUE:
        spans = f"{_span(feature.window)} | {_span(feature.warm_up)}"
        formula = feature.formula.replace("|", "\\|")
        lines.append(f"| `{feature.name}` | {formula} | {feature.unit} | {spans} | {feature.source} |")
    return "\n".join(lines) + "\n"


def _span(length: timedelta) -> str:
    hours = length / _HOUR
    if not hours:
        return "-"
    return f"{hours / 24:g} d" if hours % 24 == 0 else f"{hours:g} h"
