"""Bars made of a tape of trades, to prove or replace a venue's own.

What belongs here: the aggregation. What does not: where trades come from.
"""

from typing import Final

import polars as pl

from tracker_pipeline.domain.timeframes import GRACE, duration

_TIME: Final = pl.Datetime("us", "UTC")
_SERIES: Final = ("venue", "symbol")


def bars_of_trades(trades: pl.DataFrame, timeframe: str) -> pl.DataFrame:
    """Aggregate trades to bars; an interval without trades has none.

    Trades are ordered by their time and, within it, by `trade_id` where given, else as they come. All of them count:
    a venue that gives no ids reports equal trades as equal rows, so nothing is taken for a repetition.

    Args:
        trades: ts (aware), price, amount in base currency, and where known venue, symbol, trade_id (integer).
        timeframe: of the bars.

    Returns:
        A row for each venue, symbol and interval: open, high, low, close, volume (rounded to 14 significant digits as
        `bars.resample` does), vwap, trades and available_at.

    Raises:
        ValueError: the times are naive or the timeframe is unknown.
    """
    length = duration(timeframe)
    kind = trades.schema["ts"]
    if not isinstance(kind, pl.Datetime) or kind.time_zone is None:
        raise ValueError(f"ts must hold aware times, not {kind}")
    series = [name for name in _SERIES if name in trades.columns]
    order = [name for name in ("ts", "trade_id") if name in trades.columns]
    amount, price = pl.col("amount"), pl.col("price")
    return (
        trades.with_columns(pl.col("ts").dt.convert_time_zone("UTC").cast(_TIME))
        .sort(*series, *order, maintain_order=True)
        .group_by(*series, pl.col("ts").dt.truncate(timeframe), maintain_order=True)
        .agg(
            price.first().alias("open"),
            price.max().alias("high"),
            price.min().alias("low"),
            price.last().alias("close"),
            amount.sum().round_sig_figs(14).alias("volume"),
            pl.when(amount.sum() > 0).then((price * amount).sum() / amount.sum()).alias("vwap"),
            pl.len().cast(pl.Int64).alias("trades"),
        )
        .with_columns(available_at=pl.col("ts") + length + GRACE[timeframe])
        .sort(*series, "ts")
    )
