"""Bars that a source gave and that must not be stored as bars: kept as they came, with the reason.

What belongs here: the record. What does not: the rules (`domain.bars`).
"""

import hashlib
from datetime import UTC, datetime, timedelta

import polars as pl

from tracker_pipeline.domain.schemas import BAR_QUARANTINE
from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.writing import Written, write_window

_VALUES = ("open", "high", "low", "close", "volume", "reason")


def quarantine(
    connection: Connection, bars: pl.DataFrame, *, timeframe: str, source: str, run_id: str
) -> Written:
    """Record refused bars; one that is recorded already is left as it is.

    Args:
        connection: to our database, outside a transaction.
        bars: venue, symbol, ts, open, high, low, close, volume, reason.
        timeframe: theirs.
        source: where they came from.
        run_id: of the writer.
    """
    if bars.is_empty():
        return Written()
    prints = [hashlib.sha256(repr(row).encode()).hexdigest()[:16] for row in bars.select(_VALUES).iter_rows()]
    rows = bars.select(
        "venue",
        "symbol",
        "ts",
        *_VALUES,
        fingerprint=pl.Series(prints, dtype=pl.String),
        timeframe=pl.lit(timeframe),
        source=pl.lit(source),
        quarantined_at=pl.lit(datetime.now(UTC)),
        run_id=pl.lit(run_id),
    ).unique(BAR_QUARANTINE.key)
    times = rows.get_column("ts")
    window = (times.min(), times.max() + timedelta(microseconds=1))  # type: ignore[operator]
    return write_window(connection, BAR_QUARANTINE, rows, window, run_id=run_id)  # type: ignore[arg-type]
