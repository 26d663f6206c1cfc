"""Indicators have the values of the tables that Tulip, TA-Lib and StockCharts publish, to their last printed digit.

Recursions differ by how they start: ours with the first value, most tables with the mean of the first `length`. A
table of thirty bars ends before that has faded, so these give the recursion their own start; what is compared is all
that follows from it. Periods other than a feature's own are compared through the functions that SWING judges hours
with; the features themselves wherever their period and warm-up allow.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tracker_pipeline.domain.features import features_15m
from tracker_pipeline.domain.recursions import (
    average_true_range,
    gains_and_losses,
    macd_lines,
    relative_strength,
)
from tracker_pipeline.domain.windows import (
    FloatArray,
    lag,
    ratio,
    smooth,
    window_max,
    window_mean,
    window_min,
    window_std,
)
from tracker_pipeline_tests.domain.market import BAR, MOMENT, START

Row = tuple[str, list[str], int, list[str]]  # test, parameters, bar, printed figures
# TA-Lib's tests pass within 0.01. Of two of these figures TA-Lib itself computes other last digits (MACDFIX, PPO);
# the third is a band 1.5 deviations wide, and the same table has the deviation as 0.7144.
MISPRINTED = {"0.8764": "0.8768", "-0.02813": "-0.02814", "1.075": "1.0715"}


def assert_printed(ours: FloatArray | list[float], printed: list[str]) -> None:
    """Each figure is the printed one: some tables cut the last digit off instead of rounding it."""
    for figure, text in zip(ours, printed, strict=True):
        digits = len(text.partition(".")[2])
        assert figure == pytest.approx(float(text), abs=1.001 * 10.0**-digits), text


def column(values: FloatArray) -> FloatArray:
    return np.asarray(values, float)[:, None]


def seeded(values: FloatArray, length: int) -> FloatArray:
    """Values of which the first `length` are replaced by their mean, at the place of the last."""
    start = int(np.argmax(~np.isnan(values)))
    begun = np.array(values, float)
    begun[start : start + length - 1] = np.nan
    begun[start + length - 1] = values[start : start + length].mean()
    return begun


def average(values: FloatArray, alpha: float) -> FloatArray:
    return smooth(column(values), alpha)[:, 0]


def true_range(high: FloatArray, low: FloatArray, close: FloatArray) -> FloatArray:
    return average_true_range(column(high), column(low), column(close), 1)[:, 0]


def rsi(close: FloatArray, length: int) -> FloatArray:
    """RSI whose averages start with the mean of the first `length` changes."""
    change = np.diff(close, prepend=np.nan)
    gain, loss = (seeded(np.maximum(way * change, 0.0), length) for way in (1, -1))
    return relative_strength(column(gain), column(loss), length)[:, 0]


def stochastic(high: FloatArray, low: FloatArray, close: FloatArray, length: int) -> FloatArray:
    highest, lowest = window_max(high, length), window_min(low, length)
    return np.where(np.arange(len(close)) < length - 1, np.nan, 100 * ratio(close - lowest, highest - lowest))


def full(values: FloatArray, length: int) -> FloatArray:
    return np.where(np.arange(len(values)) < length - 1, np.nan, values)


def atr(high: FloatArray, low: FloatArray, close: FloatArray, length: int, *, first: int) -> FloatArray:
    """Wilder's ATR that starts with the mean of `length` true ranges, from bar `first` on."""
    ranges = true_range(high, low, close)
    ranges[:first] = np.nan
    return full(average(seeded(ranges, length), 1 / length), first + length)


# ---- Tulip: `{inputs}` and `{expected}`, the expected ones without the bars of the warm-up.


def tulip(folder: Path, name: str) -> Iterator[tuple[list[float], list[list[str]]]]:
    """Parameters and blocks of each test of an indicator."""
    for file in ("atoz", "extra", "untest"):
        lines = (folder / "tulip" / f"{file}.txt").read_text().splitlines()
        for part in re.split(r"\n\s*\n", "\n".join(line for line in lines if not line.startswith("#"))):
            head, *blocks = part.strip().splitlines() or [""]
            if head.split()[:1] == [name]:
                yield (
                    [float(word) for word in head.split()[1:]],
                    [block.strip("{} ").split(",") for block in blocks],
                )


def macd_of(close: FloatArray, fast: int, slow: int, signal: int) -> list[FloatArray]:
    """Tulip starts averages with the first close, as we do, and the signal where the slow average is warm."""
    line = average(close, 2 / (fast + 1)) - average(close, 2 / (slow + 1))
    if (fast, slow) == (12, 26):
        # Tulip takes the shares 0.15 and 0.075 for the usual lengths instead of 2/13 and 2/27.
        line = average(close, 0.15) - average(close, 0.075)
    line = full(line, slow)
    smoothed = average(line, 2 / (signal + 1))
    return [line, smoothed, line - smoothed]


def bands(close: FloatArray, length: int, width: float) -> list[FloatArray]:
    middle, deviation = window_mean(close, length), window_std(close, length, ddof=0)
    return [full(middle + side * width * deviation, length) for side in (-1, 0, 1)]


def slow_stochastic(high: FloatArray, low: FloatArray, close: FloatArray, *lengths: int) -> list[FloatArray]:
    length, slow, signal = lengths
    fast = stochastic(high, low, close, length)
    k = full(window_mean(fast, slow), length + slow - 1)
    return [k, full(window_mean(k, signal), length + slow + signal - 2)]


# How many inputs each has, and what it is.
TULIP = {
    "sma": (1, lambda close, n: [full(window_mean(close, n), n)]),
    "ema": (1, lambda close, n: [average(close, 2 / (n + 1))]),
    "wilders": (1, lambda values, n: [average(seeded(values, n), 1 / n)]),
    "rsi": (1, lambda close, n: [rsi(close, n)]),
    "stddev": (1, lambda close, n: [full(window_std(close, n, ddof=0), n)]),
    "bbands": (1, bands),
    "macd": (1, macd_of),
    "stoch": (3, slow_stochastic),
    # Tulip takes the first bar's own range for a true range, and so do we.
    "atr": (3, lambda high, low, close, n: [atr(high, low, close, n, first=0)]),
    "roc": (1, lambda close, n: [ratio(close, lag(close, n)) - 1]),
    "max": (1, lambda values, n: [full(window_max(values, n), n)]),
    "min": (1, lambda values, n: [full(window_min(values, n), n)]),
}


@pytest.mark.parametrize("name", TULIP)
def test_tables_of_tulip_agree(shared_data: Path, name: str) -> None:
    count, indicator = TULIP[name]
    tests = list(tulip(shared_data / "indicators", name))
    assert tests
    for parameters, blocks in tests:
        inputs = (np.array(block, float) for block in blocks[:count])
        for ours, printed in zip(indicator(*inputs, *map(int, parameters)), blocks[count:], strict=True):
            assert_printed(ours[len(ours) - len(printed) :], printed)


# ---- TA-Lib: single figures of 252 daily bars.


def market(folder: Path) -> pl.DataFrame:
    """The 252 bars, as if they were 15m bars."""
    table = pl.read_csv(folder / "talib_regtest" / "input_252bars.csv")
    times = pl.Series("ts", [START + number * BAR for number in range(table.height)], dtype=MOMENT)
    return table.with_columns(times, venue=pl.lit("nyse"), symbol=pl.lit("REF/USD"))


def talib(folder: Path, file: str) -> list[Row]:
    """The figures of a test file of TA-Lib: after `TA_SUCCESS` places and figures, the first bar, the count."""
    rows = []
    for line in pl.read_csv(folder / "talib_regtest" / "expected_rows.csv").iter_rows(named=True):
        before, _, after = line["fields_in_struct_order"].partition(", TA_SUCCESS, ")
        parameters, figures = before.split(", "), after.split(", ")
        if file in ("bbands", "macd"):  # here the first bar and the count come before the figures
            figures = figures[2:] + figures[:2]
        first, count = figures[-2:]
        if line["test"] == file and "(" not in first + figures[0] and _number(count):
            name = parameters.pop(0) if parameters[0].startswith("TA_") else ""
            printed = [figure for figure in figures[1:-2:2] if "(" not in figure]
            rows.append((name, parameters, _number(first) + _number(figures[0]), printed))
    return rows


def _number(text: str) -> int:
    """`252-15` and `1+1` are how these tables count."""
    return sum(int(part) for part in re.findall(r"[+-]?\d+", text))


@dataclass(frozen=True)
class SingleFigures:
    """What the rows of each test file ask for, by the file's name; None where that is no indicator of ours."""

    opened: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray

    def ma(self, _: str, row: list[str]) -> list[FloatArray] | None:
        length = int(row[3])
        if row[4] == "TA_MAType_SMA":
            return [full(window_mean(self.close, length), length)]
        if row[4] != "TA_MAType_EMA":
            return None
        first_close = row[5] == "TA_COMPATIBILITY_METASTOCK"
        return [average(self.close if first_close else seeded(self.close, length), 2 / (length + 1))]

    def bbands(self, _: str, row: list[str]) -> list[FloatArray] | None:
        if row[5] != "TA_MAType_SMA":
            return None
        return bands(self.close, int(row[2]), float(row[3]))[::-1]

    def macd(self, name: str, row: list[str]) -> list[FloatArray]:
        fast, slow, signal = *sorted((int(row[2]), int(row[3]))), int(row[4])
        if name == "TA_MACDFIX_TEST":  # the rounded shares of `macd_of`, and a start with the first close
            return macd_of(self.close, fast, slow, signal)[:2]
        # Both averages start with the mean of the closes up to the bar at which the slow one is warm.
        late = np.where(np.arange(len(self.close)) < slow - fast, np.nan, self.close)
        line = average(seeded(late, fast), 2 / (fast + 1))
        line -= average(seeded(self.close, slow), 2 / (slow + 1))
        return [line, average(seeded(full(line, slow), signal), 2 / (signal + 1))]

    def po(self, _: str, row: list[str]) -> list[FloatArray]:
        plain, lengths = row[5] == "TA_MAType_SMA", sorted((int(row[3]), int(row[4])))
        near, far = (
            window_mean(self.close, length) if plain else average(self.close, 2 / (length + 1))
            for length in lengths
        )
        return [100 * (near / far - 1) if row[0] == "1" else near - far]

    def minmax(self, name: str, row: list[str]) -> list[FloatArray] | None:
        extreme = {"TA_MIN_TEST": window_min, "TA_MAX_TEST": window_max}.get(name)
        return [full(extreme(self.opened, int(row[2])), int(row[2]))] if extreme else None

    def mom(self, name: str, row: list[str]) -> list[FloatArray] | None:
        change = ratio(self.close, lag(self.close, int(row[2])))
        forms = {
            "TA_ROC_TEST": 100 * (change - 1),
            "TA_ROCR_TEST": change,
            "TA_ROCR100_TEST": 100 * change,
        }
        return [forms[name]] if name in forms else None

    def rsi(self, name: str, row: list[str]) -> list[FloatArray] | None:
        # METASTOCK starts its averages a bar earlier for one more figure, and then anew.
        ours = name == "TA_RSI_TEST" and row[4] == "TA_COMPATIBILITY_DEFAULT"
        return [rsi(self.close, int(row[3]))] if ours else None

    def trange(self, _: str, row: list[str]) -> list[FloatArray]:
        return [atr(self.high, self.low, self.close, max(1, int(row[4])), first=1)]

    def per_hlc(self, name: str, _: list[str]) -> list[FloatArray] | None:
        if name == "TA_NATR_TEST":
            return [100 * atr(self.high, self.low, self.close, 14, first=1) / self.close]
        # Williams %R is the stochastic seen from above.
        if name == "TA_WILLR_TEST":
            return [stochastic(self.high, self.low, self.close, 14) - 100]
        return None

    def stddev(self, _: str, row: list[str]) -> list[FloatArray]:
        return [float(row[3]) * window_std(self.close, int(row[2]), ddof=0)]


@pytest.mark.parametrize(
    ("file", "rows"),
    [
        ("ma", 45),
        ("bbands", 2),
        ("macd", 6),
        ("po", 42),
        ("minmax", 48),
        ("mom", 39),
        ("rsi", 14),
        ("trange", 17),
        ("per_hlc", 11),
        ("stddev", 6),
    ],
)
def test_figures_of_talibs_own_tests_agree(shared_data: Path, file: str, rows: int) -> None:
    folder = shared_data / "indicators"
    prices = (market(folder)[name].to_numpy() for name in ("open", "high", "low", "close"))
    indicator = getattr(SingleFigures(*prices), file)
    compared = 0
    for name, parameters, bar, printed in talib(folder, file):
        ours = indicator(name, parameters)
        if ours is not None:
            assert_printed([values[bar] for values in ours], [MISPRINTED.get(text, text) for text in printed])
            compared += 1
    assert compared == rows


def test_features_have_the_figures_of_talibs_own_tests(shared_data: Path) -> None:
    """Those of the last of 252 bars, when 14-bar recursions are warm; MACD starts with the first close in both."""
    last = features_15m(market(shared_data / "indicators")).row(-1, named=True)
    assert_printed([last["rsi_14"]], ["49.63"])
    assert_printed([last["atr_14"], last["macd"], last["stoch_k"] - 100], ["3.0229", "0.90401", "-59.1515"])


# ---- StockCharts, as the Python library `ta` tests itself: tables of some thirty bars.


def chart(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_csv(folder / "ta_stockcharts" / f"cs-{name}.csv", infer_schema=False)


def numbers(table: pl.DataFrame, *names: str) -> list[FloatArray]:
    return [table[name].cast(pl.Float64).to_numpy() for name in names]


def assert_column(ours: FloatArray, table: pl.DataFrame, name: str, *, start: int = 0) -> None:
    printed = table[name].str.strip_chars().to_list()
    known = [bar for bar, text in enumerate(printed) if text and bar >= start]
    assert len(known) >= 8
    assert_printed([ours[bar] for bar in known], [printed[bar][:12] for bar in known])


def test_the_rate_of_change_and_the_stochastic_of_stockcharts_agree(shared_data: Path) -> None:
    table = chart(shared_data / "indicators", "roc")
    (close,) = numbers(table, "Close")
    assert_column(100 * (ratio(close, lag(close, 12)) - 1), table, "ROC")
    table = chart(shared_data / "indicators", "soo")
    high, low = numbers(table, "High", "Low")
    close = table["Close"].cast(pl.Float64, strict=False).to_numpy()
    assert_column(stochastic(high, low, close, 14), table, "SO")


def test_the_macd_of_stockcharts_agrees(shared_data: Path) -> None:
    """Its averages start with the first close, as ours; its signal with a number that is not in the table."""
    table = chart(shared_data / "indicators", "macd")
    (close,) = numbers(table, "Close")
    line, signal = (values[:, 0] for values in macd_lines(column(close)))
    assert_column(line, table, "MACD_line", start=1)
    printed = table["MACD_signal"].str.strip_chars().replace("", None).cast(pl.Float64).to_numpy()
    begun = np.r_[np.full(2, np.nan), printed[2], line[3:]]
    assert_column(average(begun, 0.2), table, "MACD_signal")
    assert_printed(signal[-1:], ["0.9603537089"])  # by then that start has faded


@pytest.mark.parametrize(("name", "length"), [("atr", 14), ("atr2", 10)])
def test_average_true_ranges_of_stockcharts_agree(shared_data: Path, name: str, length: int) -> None:
    table = chart(shared_data / "indicators", name)
    ranges = numbers(table, "High", "Low", "Close")
    assert_column(true_range(*ranges), table, "TR")
    assert_column(atr(*ranges, length, first=0), table, "ATR", start=length - 1)


def test_the_rsi_of_stockcharts_starts_as_ours(shared_data: Path) -> None:
    """Its averages start from 0 at the first bar; that is our definition, and not what TA-Lib does."""
    table = chart(shared_data / "indicators", "rsi")
    (close,) = numbers(table, "Close")
    gain, loss = gains_and_losses(column(close))
    assert_column(relative_strength(gain, loss, 14)[:, 0], table, "RSI")


def test_the_bands_of_stockcharts_agree(shared_data: Path) -> None:
    table = chart(shared_data / "indicators", "bbands")
    (close,) = numbers(table, "Close")
    below, middle, above = bands(close, 20, 2.0)
    for ours, name in ((below, "LowBand"), (middle, "MiddleBand"), (above, "HighBand")):
        assert_column(ours, table, name)
    assert_column(100 * (above - below) / middle, table, "WidthBand")
    assert_column((close - below) / (above - below), table, "PercentageBand")
