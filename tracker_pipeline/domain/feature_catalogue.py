"""The feature catalogue: name, formula, window, unit, warm-up and source of every ML feature.

What belongs here: one entry per feature, and the page made of them. What does not: the computation. A feature of 15m
bars is an entry with a `rule`, and a function of its name in `feature_formulas.py`; one of whole days an entry, and a
line in `feature_context.py`; one of other series at the same moment an entry, and a function in
`feature_surroundings.py`.
"""

import hashlib
from dataclasses import astuple, dataclass
from datetime import timedelta
from typing import Final

from tracker_pipeline.domain.feature_values import REASON_MEANINGS, Reason, Rule

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
        rule: which bars must exist, of features of a series' own 15m bars.
        is_text: whether the value is a word.
    """

    name: str
    formula: str
    window: timedelta
    unit: str
    source: str
    warm_up: timedelta
    rule: Rule | None = None
    is_text: bool = False

    @property
    def description(self) -> str:
        """One line for the schema and the UI."""
        return f"{self.formula} ({self.unit})"


_SPEC: Final = "definition of this feature set"
_WILDER: Final = "Wilder 1978, New Concepts in Technical Trading Systems"
_APPEL: Final = "Appel, MACD 12/26/9"
_BOLLINGER: Final = "Bollinger bands 20, 2, population deviation"
# Recursions start this long before the UTC day of the bar (`feature_days.BURN_IN_DAYS`), plus up to one day.
_RECURSION: Final = timedelta(days=8)


def _change(name: str, formula: str, bars: int) -> Feature:
    window = (bars + 1) * _BAR
    return Feature(name, formula, window, "%", _SPEC, window, Rule(bars, is_change=True))


def _bars(name: str, formula: str, rule: Rule, unit: str, source: str = _SPEC) -> Feature:
    return Feature(name, formula, rule.reach * _BAR, unit, source, rule.reach * _BAR, rule)


def _recursive(name: str, formula: str, length: int, unit: str, source: str) -> Feature:
    rule = Rule(10 * length)
    return Feature(name, formula, _RECURSION, unit, source, rule.bars * _BAR, rule)


def _days(name: str, formula: str, count: int, unit: str) -> Feature:
    return Feature(name, formula, count * _DAY, unit, _SPEC, count * _DAY)


def _at_moment(
    name: str, formula: str, unit: str, window: timedelta = _NONE, *, is_text: bool = False
) -> Feature:
    return Feature(name, formula, window, unit, _SPEC, window, is_text=is_text)


CATALOGUE: Final[tuple[Feature, ...]] = (
    _change("ret_15m", "100 * (c / c[15m before] - 1)", 1),
    _change("ret_1h", "100 * (c / c[1h before] - 1)", 4),
    _change("ret_4h", "100 * (c / c[4h before] - 1)", 16),
    _change("ret_24h", "100 * (c / c[24h before] - 1)", 96),
    _change("roc_12", "100 * (c / c[12 bars before] - 1)", 12),
    _recursive("rsi_14", "relative strength index, Wilder average of 14", 14, "0-100", _WILDER),
    _recursive("rsi_30", "relative strength index, Wilder average of 30", 30, "0-100", _WILDER),
    _recursive("macd", "EMA 12 - EMA 26 of c", 26, "quote currency", _APPEL),
    _recursive("macd_signal", "EMA 9 of macd", 26, "quote currency", _APPEL),
    _recursive("macd_diff", "macd - macd_signal", 26, "quote currency", _APPEL),
    _bars("bb_width", "(upper - lower) / middle Bollinger band", Rule(20), "fraction", _BOLLINGER),
    _bars(
        "bb_position",
        "(c - lower) / (upper - lower) Bollinger band",
        Rule(20, undefined=Reason.FLAT),
        "fraction",
        _BOLLINGER,
    ),
    _bars("dist_sma20", "100 * (c / mean of 20 c - 1)", Rule(20), "%"),
    _bars("dist_sma50", "100 * (c / mean of 50 c - 1)", Rule(50), "%"),
    _bars("dist_support", "100 * (c / lowest l of 20 bars - 1)", Rule(20), "%"),
    _bars("dist_resistance", "100 * (c / highest h of the 20 bars before - 1)", Rule(20, prior=True), "%"),
    _bars(
        "stoch_k",
        "100 * (c - lowest l) / (highest h - lowest l) of 14 bars",
        Rule(14, undefined=Reason.FLAT),
        "0-100",
        "Lane, %K",
    ),
    _recursive("atr_14", "100 * Wilder average of 14 true ranges / c", 14, "% of close", _WILDER),
    _bars(
        "vol_4h",
        "sample deviation of 16 bar returns * sqrt(35040) * 100",
        Rule(16, of_returns=True),
        "% per year",
    ),
    _bars(
        "vol_24h",
        "sample deviation of 96 bar returns * sqrt(35040) * 100",
        Rule(96, of_returns=True),
        "% per year",
    ),
    _bars(
        "volume_ratio",
        "v / mean v of the 96 bars before",
        Rule(96, prior=True, undefined=Reason.ZERO_VOLUME),
        "ratio",
    ),
    _bars("volume_sma_ratio", "v / mean v of 20 bars", Rule(20, undefined=Reason.ZERO_VOLUME), "ratio"),
    _bars(
        "flow_24h",
        "sum of sign(c - c[15m before]) * v / sum of v over 96 bars",
        Rule(96, of_returns=True, undefined=Reason.ZERO_VOLUME),
        "-1 to 1",
    ),
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
    _at_moment("hour_sin", "sin(2 pi * UTC hour / 24)", "-1 to 1"),
    _at_moment("hour_cos", "cos(2 pi * UTC hour / 24)", "-1 to 1"),
    _at_moment("weekday", "UTC day of the week, Monday 0", "0-6"),
    _at_moment("ret_5m", "100 * (c / close of the 5m bar that ended 5m before - 1)", "%", _BAR),
    _at_moment("btc_ret_1h", "ret_1h of BTC", "%", 5 * _BAR),
    _at_moment("btc_ret_24h", "ret_24h of BTC", "%", 97 * _BAR),
    _at_moment(
        "regime_trend", "trend of the market at the bar", "BULL, BEAR, NEUTRAL, UNKNOWN", is_text=True
    ),
    _at_moment(
        "regime_stress",
        "stress of the market at the bar",
        "PANIC, CAUTION, EUPHORIA, NORMAL, UNKNOWN",
        is_text=True,
    ),
    _at_moment("tier", "tier of the coin in the universe", "large_cap to memecoin", is_text=True),
)
NUMBERS: Final = tuple(feature.name for feature in CATALOGUE if not feature.is_text)
# Computed by the kernel; they come first, in the same order.
OF_BARS: Final = tuple(feature.name for feature in CATALOGUE if feature.rule)

# Raise the number when the computation changes while its description does not; the hash follows the descriptions.
_COMPUTATION: Final = 2
_DEFINITIONS: Final = repr([astuple(feature) for feature in CATALOGUE])
FEATURE_SET_VERSION: Final = f"{_COMPUTATION}-{hashlib.sha256(_DEFINITIONS.encode()).hexdigest()[:8]}"


def as_markdown() -> str:
    """The catalogue as a page for people."""
    lines = [
        "# Features",
        "",
        f"Version `{FEATURE_SET_VERSION}`. Each is computed on closed 15m bars and NULL, with a reason code,",
        "unless 90 % of the bars of its window exist (all, for the two ends of a change). c, h, l, v are close,",
        "high, low and volume of the bar at t. Numbers keep 33 significant bits, 6e-11 of the value: the bits below",
        "are noise of the arithmetic and would double the size of the files. This page is generated from the",
        "catalogue in `tracker_pipeline/domain/feature_catalogue.py`.",
        "",
        "| feature | formula | unit | window | warm-up | source |",
        "|---|---|---|---|---|---|",
    ]
    for feature in CATALOGUE:
        spans = f"{_span(feature.window)} | {_span(feature.warm_up)}"
        formula = feature.formula.replace("|", "\\|")
        lines.append(f"| `{feature.name}` | {formula} | {feature.unit} | {spans} | {feature.source} |")
    lines += ["", "`null_reasons` is a JSON object from feature to reason:", ""]
    lines += [f"- `{reason.name.lower()}`: {meaning}" for reason, meaning in REASON_MEANINGS.items()]
    return "\n".join(lines) + "\n"


def _span(length: timedelta) -> str:
    hours = length / _HOUR
    if not hours:
        return "-"
    return f"{hours / 24:g} d" if hours % 24 == 0 else f"{hours:g} h"
