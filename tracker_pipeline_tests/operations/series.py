"""Instruments and bars of several symbols, for tests that watch how fresh they are."""

from datetime import datetime, timedelta

import polars as pl

from tracker_pipeline.domain import schemas
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars


def track(*symbols: str, thin: tuple[str, ...] = ()) -> None:
    """Record instruments."""
    rows = [
        {
            "venue": "bybit", "symbol": symbol, "base": symbol.split("/")[0], "quote": "USDT",
            "native_symbol": symbol.replace("/", ""), "market_type": "spot", "tier": "large_cap",
            "liquidity_class": "thin" if symbol in thin else "liquid",
        }
        for symbol in symbols
    ]  # fmt: skip
    with connect() as connection:
        write_window(connection, schemas.INSTRUMENTS, pl.DataFrame(rows), None, run_id="r")


def bar_closing(at: datetime, *symbols: str, timeframe: str = "15m") -> None:
    """Store one bar of each symbol that ends at a moment."""
    step = {"15m": timedelta(minutes=15), "1h": timedelta(hours=1), "1d": timedelta(days=1)}[timeframe]
    frame = pl.concat(bars(timeframe, start=at - step, count=1, symbol=symbol) for symbol in symbols)
    with connect() as connection:
        write_window(connection, schemas.BARS[timeframe], frame, (at - step, at), run_id="r")
