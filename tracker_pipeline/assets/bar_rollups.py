"""Bars made of stored finer ones, where these lack nothing.

A timeframe that the exchange is not asked for is made of the finest bars of each symbol. One that it is asked for is
made of finer ones only where those are minutes or came from a file: then they stand, and the exchange is asked for
what lies before and after.

What belongs here: which stored bars are rolled up. What does not: when a bucket is complete (`domain.rollups`).
"""

from datetime import datetime, timedelta
from typing import Final

import polars as pl

from tracker_pipeline.assets.bar_series import finer_timeframes, is_native, own_instruments
from tracker_pipeline.domain.bar_slots import SERIES, SLOT, SLOTS, slots_of
from tracker_pipeline.domain.rollups import complete_rollups
from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect, has_rows
from tracker_pipeline.storage.gaps import open_gaps

_DAY: Final = timedelta(days=1)
HULLS: Final = pl.Schema(
    {"venue": pl.String(), "symbol": pl.String(), "first": SLOTS["ts"], "last": SLOTS["ts"]}
)


def rolled_up(timeframe: str, start: datetime, end: datetime) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Roll up the stored bars of [start, end).

    Args:
        timeframe: what is made.
        start: start of a UTC day.
        end: start of another, exclusive.

    Returns:
        The bars, without revision and run_id, and the hull of what stands in their place: venue, symbol, first, last
        (the end of the last finer bar).
    """
    made = [BARS[timeframe].polars_schema.to_frame().drop("revision", "run_id")]
    hulls = [HULLS.to_frame()]
    for finer in finer_timeframes(timeframe):
        children = _standing(finer, start, end, native=is_native(timeframe))
        children = children.join(pl.concat(hulls), on=SERIES, how="anti")
        if children.is_empty():
            continue
        nonexistent = _nonexistent(finer, start, end)
        rolled = complete_rollups(children, timeframe, finer=finer, nonexistent=nonexistent)
        made.append(rolled.select(made[0].columns).cast(made[0].schema))
        hulls.append(
            children.group_by(SERIES)
            .agg(pl.col("ts").min().alias("first"), (pl.col("ts").max() + duration(finer)).alias("last"))
            .cast(HULLS)
        )
    return pl.concat(made), pl.concat(hulls)


def finest_stored(timeframe: str, start: datetime, end: datetime) -> str:
    """The finest timeframe up to this one that has rows in [start, end): it decides how much is read at once."""
    with connect() as connection:
        stored = [
            name for name in finer_timeframes(timeframe) if has_rows(connection, BARS[name], start, end)
        ]
    return (stored or [timeframe])[0]


def _standing(finer: str, start: datetime, end: datetime, *, native: bool) -> pl.DataFrame:
    """The finer bars that stand for what is made of them."""
    from_files = pl.col("source").str.starts_with("file:")
    predicate = from_files if native and finer != "1m" else None
    return scan(BARS[finer].name, start, end, predicate=predicate).collect()


def _nonexistent(finer: str, start: datetime, end: datetime) -> pl.DataFrame:
    """Slots of finer bars that do not exist: confirmed, or outside the listing on its first and last day."""
    with connect() as connection:
        runs = open_gaps(connection, finer, start, end, nonexistent=True)
    listed = own_instruments()
    edges = [
        listed.drop_nulls("listed_from").select(
            *SERIES,
            gap_start=pl.col("listed_from").dt.truncate("1d"),
            gap_end=pl.col("listed_from").dt.truncate(finer),
        ),
        listed.drop_nulls("listed_to").select(
            *SERIES,
            gap_start=_ceiled("listed_to", finer),
            gap_end=pl.col("listed_to").dt.truncate("1d") + _DAY,
        ),
    ]
    all_runs = pl.concat([runs.select(*SERIES, "gap_start", "gap_end"), *edges], how="vertical_relaxed")
    near = all_runs.filter(pl.col("gap_end") > start, pl.col("gap_start") < end)
    return slots_of(near, finer, "gap_start", "gap_end").select(SLOT).cast(SLOTS)


def _ceiled(column: str, timeframe: str) -> pl.Expr:
    floor = pl.col(column).dt.truncate(timeframe)
    return pl.when(floor == pl.col(column)).then(floor).otherwise(floor + duration(timeframe))
