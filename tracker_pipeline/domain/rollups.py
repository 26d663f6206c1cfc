"""Which rolled-up bars may be stored: those whose every child is present or known not to exist.

What belongs here: this rule. What does not: the arithmetic of a roll-up (`bars.resample`).
"""

from datetime import timedelta

import polars as pl

from tracker_pipeline.domain.bar_slots import SERIES, SLOT
from tracker_pipeline.domain.bars import resample
from tracker_pipeline.domain.timeframes import duration


def complete_rollups(
    bars: pl.DataFrame, timeframe: str, *, finer: str, nonexistent: pl.DataFrame
) -> pl.DataFrame:
    """Roll bars up, and keep the buckets that lack no child.

    Args:
        bars: of the timeframe `finer`.
        timeframe: what to roll up to.
        finer: timeframe of `bars`.
        nonexistent: venue, symbol, ts of children that do not exist: nothing traded, or the coin was not listed.

    Returns:
        As `bars.resample`.
    """
    needed = children(timeframe, finer)
    bucket = pl.col("ts").dt.truncate(timeframe)
    # A child that came after it had been confirmed empty counts once.
    gone = (
        nonexistent.select(SLOT)
        .unique()
        .join(bars.select(SLOT), on=SLOT, how="anti")
        .group_by(*SERIES, bucket)
        .agg(pl.len().alias("nonexistent"))
    )
    rolled = resample(bars, timeframe)
    if rolled.is_empty():
        return rolled
    complete = pl.col("n_src") + pl.col("nonexistent").fill_null(0) == needed
    return rolled.join(gone, on=SLOT, how="left").filter(complete).drop("nonexistent")


def nonexistent_buckets(nonexistent: pl.DataFrame, timeframe: str, *, finer: str) -> pl.DataFrame:
    """Buckets whose every child is known not to exist, so that they do not exist either: venue, symbol, ts."""
    return (
        nonexistent.select(SLOT)
        .unique()
        .group_by(*SERIES, pl.col("ts").dt.truncate(timeframe))
        .agg(pl.len().alias("count"))
        .filter(pl.col("count") == children(timeframe, finer))
        .select(SLOT)
        .sort(SLOT)
    )


def children(timeframe: str, finer: str) -> int:
    """How many bars of `finer` make one of `timeframe`.

    Raises:
        ValueError: not a whole number of them do.
    """
    whole, rest = divmod(duration(timeframe), duration(finer))
    if rest != timedelta(0) or whole < 2:
        raise ValueError(f"{finer} bars do not roll up to {timeframe}")
    return whole
