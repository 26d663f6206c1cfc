"""Indicators have the values of TA-Lib, and of tables that others published, to a billionth."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import talib

from tracker_pipeline.domain.features import features_15m
from tracker_pipeline_tests.domain.market import BAR, MOMENT, START, random_bars, real_bars

RELATIVE = 1e-9
# Recursions start 7 days before each UTC day. By then the start has faded to 1e-10 in the slowest average of all.
WARM_UP = 8 * 96


def expected_of_talib(bars: pl.DataFrame) -> dict[str, np.ndarray]:
    high, low, close = (bars[name].to_numpy() for name in ("high", "low", "close"))
    upper, middle, lower = talib.BBANDS(close, 20, 2.0, 2.0, 0)
    macd, signal, difference = talib.MACD(close, 12, 26, 9)
    return {
        "rsi_14": talib.RSI(close, 14),
        "rsi_30": talib.RSI(close, 30),
        "atr_14": 100 * talib.ATR(high, low, close, 14) / close,
        "macd": macd,
        "macd_signal": signal,
        "macd_diff": difference,
        "bb_width": (upper - lower) / middle,
        "bb_position": (close - lower) / (upper - lower),
        "dist_sma20": 100 * (close / talib.SMA(close, 20) - 1),
        "dist_sma50": 100 * (close / talib.SMA(close, 50) - 1),
        "stoch_k": talib.STOCHF(high, low, close, 14, 1, 0)[0],
        "roc_12": talib.ROC(close, 12),
        "ret_24h": talib.ROC(close, 96),
    }


# What a quantity near zero is the difference of: its error is relative to those.
SCALES: Mapping[str, float] = {
    "macd": 1.0,
    "macd_signal": 1.0,
    "macd_diff": 1.0,
    "bb_position": 100.0,
    "dist_sma20": 100.0,
    "dist_sma50": 100.0,
    "roc_12": 100.0,
    "ret_24h": 100.0,
}


def assert_same(
    features: pl.DataFrame, expected: Mapping[str, np.ndarray], *, after: int, price: float
) -> None:
    for name, values in expected.items():
        ours = features[name].cast(pl.Float64).fill_null(np.nan).to_numpy()[after:]
        scale = SCALES.get(name, 0.0) * (price if name.startswith("macd") else 1.0)
        np.testing.assert_allclose(ours, values[after:], rtol=RELATIVE, atol=1e-12 * scale, err_msg=name)


@pytest.mark.parametrize("price", [0.00001234, 100.0, 1e9])
def test_indicators_equal_those_of_talib_after_warm_up(price: float) -> None:
    factor = price / 100
    bars = random_bars(20 * 96, seed=13).with_columns(pl.col("open", "high", "low", "close") * factor)
    assert_same(features_15m(bars), expected_of_talib(bars), after=WARM_UP, price=price)


def test_indicators_of_a_real_year_equal_those_of_talib(shared_data: Path) -> None:
    bars = real_bars(shared_data).filter(pl.col("symbol") == "SOL/USDT:USDT").sort("ts").head(90 * 96)
    assert_same(features_15m(bars), expected_of_talib(bars), after=WARM_UP, price=150.0)


def published(path: Path) -> pl.DataFrame:
    """A published table of daily bars, as if they were 15m bars of the first days: 502 of them."""
    table = pl.read_csv(path)
    times = pl.Series("ts", [START + number * BAR for number in range(table.height)], dtype=MOMENT)
    return table.with_columns(times, venue=pl.lit("nyse"), symbol=pl.lit("SPY/USD"))


def features_of(table: pl.DataFrame) -> pl.DataFrame:
    volume = pl.col("volume") if "volume" in table.columns else pl.lit(1.0)
    return features_15m(table.select("venue", "symbol", "ts", "open", "high", "low", "close", volume=volume))


@pytest.mark.parametrize(
    ("file", "name", "figure"),
    [
        # Ours starts from zero at the first bar, theirs from the mean of the first 14: by bar 400 what is left of the
        # start is (13/14)^386 = 4e-13 of it.
        ("Rsi", "rsi_14", pl.col("RSI(14)")),
        ("Atr", "atr_14", pl.col("ATR%")),
        ("Sma", "dist_sma20", 100 * (pl.col("close") / pl.col("SMA") - 1)),
    ],
)
def test_published_tables_agree(shared_data: Path, file: str, name: str, figure: pl.Expr) -> None:
    table = published(shared_data / "indicators" / "skender" / f"{file}.csv")
    expected = table.select(figure.alias("figure"))["figure"].to_numpy()[400:]
    ours = features_of(table)[name].to_numpy()[400:]
    np.testing.assert_allclose(ours, expected, rtol=RELATIVE, atol=1e-10)


def test_bands_have_the_deviation_of_the_published_table(shared_data: Path) -> None:
    """Its window is 10 and ours 20; a series with each close twice has the same deviation in twice the bars."""
    table = published(shared_data / "indicators" / "skender" / "StdDev.csv")
    twice = table.select(pl.all().repeat_by(2).explode()).with_columns(
        pl.Series("ts", [START + number * BAR for number in range(2 * table.height)], dtype=MOMENT)
    )
    ours = features_of(twice)["bb_width"].to_numpy()[1::2][9:]
    np.testing.assert_allclose(ours, (4 * table["stddev"] / table["mean"]).to_numpy()[9:], rtol=RELATIVE)


def test_prices_of_zero_give_no_value(shared_data: Path) -> None:
    table = published(shared_data / "indicators" / "skender_quotes" / "zeros.csv")
    features = features_of(table)
    for name in ("ret_15m", "roc_12", "bb_width", "bb_position", "dist_sma20", "stoch_k", "atr_14", "vol_4h"):
        assert features[name].null_count() == features.height, name
