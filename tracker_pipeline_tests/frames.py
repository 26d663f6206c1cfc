"""Small literal frames that several tests write and read."""

from datetime import UTC, datetime, timedelta

import polars as pl

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.domain.timeframes import TIMEFRAMES, available_at


def bars(
    timeframe: str = "15m",
    *,
    start: datetime = datetime(2024, 5, 1, tzinfo=UTC),
    count: int = 4,
    symbol: str = "BTC/USDT",
    price: float = 100.0,
    run_id: str = "run-1",
) -> pl.DataFrame:
    """`count` bars in the declared schema, each a little above the one before."""
    step = TIMEFRAMES[timeframe]
    times = [start + i * step for i in range(count)]
    frame = pl.DataFrame(
        {
            "ts": times,
            "open": [price + i for i in range(count)],
            "high": [price + i + 2 for i in range(count)],
            "low": [price + i - 1 for i in range(count)],
            "close": [price + i + 1 for i in range(count)],
            "volume": [10.0 + i for i in range(count)],
            "available_at": [available_at(ts, timeframe) for ts in times],
        }
    ).with_columns(
        pl.lit("bybit").alias("venue"),
        pl.lit(symbol).alias("symbol"),
        pl.lit("test").alias("source"),
        pl.lit(1, pl.Int64).alias("revision"),
        pl.lit(run_id).alias("run_id"),
        pl.lit(start + timedelta(days=1)).alias("fetched_at"),
    )
    return BARS[timeframe].conform(frame)
