"""Bars for tests of features, regimes, setups and labels."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

START = datetime(2024, 1, 1, tzinfo=UTC)
BAR = timedelta(minutes=15)
MOMENT = pl.Datetime("us", "UTC")


def bars_from_closes(
    closes: Sequence[float] | np.ndarray,
    *,
    start: datetime = START,
    step: timedelta = BAR,
    symbol: str = "BTC/USDT",
    wick: float = 0.0,
    volume: float | np.ndarray = 10.0,
) -> pl.DataFrame:
    """Bars that open at the close before, without a hole."""
    close = np.asarray(closes, float)
    opened = np.concatenate([close[:1], close[:-1]])
    return pl.DataFrame(
        {
            "venue": "bybit",
            "symbol": symbol,
            "ts": pl.Series([start + i * step for i in range(len(close))], dtype=MOMENT),
            "open": opened,
            "high": np.maximum(opened, close) + wick,
            "low": np.minimum(opened, close) - wick,
            "close": close,
            "volume": np.full(len(close), volume) if np.isscalar(volume) else np.asarray(volume, float),
        }
    )


def bars_from_prices(
    prices: Sequence[tuple[float, float, float, float]],
    *,
    start: datetime = START,
    step: timedelta = BAR,
    symbol: str = "BTC/USDT",
) -> pl.DataFrame:
    """Bars with the given open, high, low and close."""
    return pl.DataFrame(
        {
            "venue": "bybit",
            "symbol": symbol,
            "ts": pl.Series([start + i * step for i in range(len(prices))], dtype=MOMENT),
            **{
                name: [float(bar[i]) for bar in prices]
                for i, name in enumerate(("open", "high", "low", "close"))
            },
            "volume": 10.0,
        }
    )


def golden_bars() -> pl.DataFrame:
    """A wave on a rising line, whose features were computed by hand and with other libraries."""
    i = np.arange(400)
    close = 100 + 3 * np.sin(i / 5) + 0.05 * i
    bars = bars_from_closes(close, wick=0.2, volume=10.0 + i % 5)
    first_open = pl.when(pl.int_range(pl.len()) == 0).then(100.0).otherwise("open")
    return bars.with_columns(
        open=first_open,
        high=pl.max_horizontal(first_open, "close") + 0.2,
        low=pl.min_horizontal(first_open, "close") - 0.2,
    )


def random_closes(count: int, *, seed: int, scale: float = 0.004, price: float = 100.0) -> np.ndarray:
    """A random walk."""
    return price * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, scale, count)))


def random_bars(
    count: int, *, seed: int, symbol: str = "BTC/USDT", start: datetime = START, holes: float = 0.0
) -> pl.DataFrame:
    """A random walk with wicks and volumes, without a share of its bars."""
    rng = np.random.default_rng(seed)
    bars = bars_from_closes(
        random_closes(count, seed=seed),
        start=start,
        symbol=symbol,
        wick=0.1,
        volume=rng.uniform(0, 100, count),
    )
    return bars.filter(pl.Series(rng.uniform(size=count) >= holes))


def stormy(count: int, *, seed: int, symbol: str = "BTC/USDT") -> pl.DataFrame:
    """A walk that falls by 5 % within four hours many times a day."""
    bars = random_bars(count, seed=seed, symbol=symbol, holes=0.02)
    return bars.with_columns(low=pl.col("low") * 0.9, high=pl.col("high") * 1.03)


def calm(bars: pl.DataFrame, *, trend: str = "BULL", stress: str = "NORMAL") -> pl.DataFrame:
    """One regime at every bar."""
    times = bars.select("venue", "ts", available_at=pl.col("ts") + pl.duration(minutes=17)).unique(
        ["venue", "ts"]
    )
    return times.with_columns(trend=pl.lit(trend), stress=pl.lit(stress))


def daily_from(bars: pl.DataFrame) -> pl.DataFrame:
    """Whole days of 15m bars as daily bars."""
    grouped = bars.sort("ts").group_by("venue", "symbol", pl.col("ts").dt.truncate("1d"), maintain_order=True)
    days = grouped.agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
        pl.len().alias("bars"),
    )
    return days.filter(pl.col("bars") == 96).drop("bars")


def daily_bars(closes: Sequence[float] | np.ndarray, *, last: datetime) -> pl.DataFrame:
    """BTC's daily bars ending with the day `last`."""
    day = timedelta(days=1)
    return bars_from_closes(closes, start=last - (len(closes) - 1) * day, step=day)


def real_bars(shared_data: Path) -> pl.DataFrame:
    """A year of 15m bars of eight perpetuals, without the last, unfinished bar of each."""
    raw = pl.read_parquet(shared_data / "ohlcv" / "binance_um_15m_365d.parquet")
    bars = raw.select(
        pl.lit("binanceusdm").alias("venue"),
        pl.col("symbol").str.replace("USDT", "/USDT:USDT"),
        pl.col("open_time").cast(MOMENT).alias("ts"),
        *("open", "high", "low", "close", "volume"),
    )
    return bars.filter(pl.col("ts") < pl.col("ts").max().over("symbol"))
