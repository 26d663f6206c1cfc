"""When a venue was down: what most of its symbols lack at once.

On 2023-03-24 all pairs of a large exchange have no bars from 12:40 to 14:00. That is one outage of the exchange, not
a gap of ours in every pair, and no repeated request will bring the bars.

What belongs here: telling an outage from gaps. What does not: what is done about it (`gap_states.py`).
"""

from datetime import datetime
from typing import Final

import polars as pl

from tracker_pipeline.domain.bar_slots import SERIES

# Of real outages every pair is part. Coins that do not trade each minute lack a third of their minutes, so that half
# of a universe of such coins lacks many a minute together; three quarters of it do not.
MOST: Final = 0.75
# Fewer symbols than this cannot tell the venue's fault from their own.
LEAST_SYMBOLS: Final = 3


def witnesses(absent: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    """The absent slots that testify to an outage: the source confirmed them, or the symbol has bars on both sides.

    A symbol that was not fetched at all, or not yet, says nothing about the venue.

    Args:
        absent: venue, symbol, ts, confirmed_by.
        bars: venue, symbol, ts of stored bars, beyond the window of `absent` where there are any.
    """
    extents = bars.group_by(SERIES).agg(pl.col("ts").min().alias("first"), pl.col("ts").max().alias("last"))
    inside = pl.col("ts").is_between("first", "last").fill_null(value=False)
    return (
        absent.join(extents, on=SERIES, how="left")
        .filter(inside | pl.col("confirmed_by").is_not_null())
        .drop("first", "last")
    )


def outage_slots(absent: pl.DataFrame, bars: pl.DataFrame, spans: pl.DataFrame) -> pl.DataFrame:
    """Slots at which most symbols of a venue have no bar.

    Args:
        absent: venue, symbol, ts, confirmed_by of expected bars that are not there.
        bars: venue, symbol, ts of stored bars, beyond the window where there are any.
        spans: venue, symbol, span_start, span_end: where bars are expected.

    Returns:
        venue, ts, symbols_absent, symbols_expected, confirmed_by (None where only the stored bars tell).
    """
    seen = witnesses(absent, bars)
    counted = seen.group_by("venue", "ts").agg(
        pl.len().cast(pl.Int64).alias("symbols_absent"),
        pl.col("confirmed_by").drop_nulls().first(),
    )
    active = pl.concat([bars.select(SERIES), seen.select(SERIES)]).unique()
    candidates = counted.filter(pl.col("symbols_absent") >= LEAST_SYMBOLS)
    expected = (
        candidates.select("venue", "ts")
        .join(spans.join(active, on=SERIES, how="semi"), on="venue")
        .filter(pl.col("ts").is_between("span_start", "span_end", closed="left"))
        .group_by("venue", "ts")
        .agg(pl.col("symbol").n_unique().cast(pl.Int64).alias("symbols_expected"))
    )
    return (
        candidates.join(expected, on=["venue", "ts"])
        .filter(pl.col("symbols_absent") >= MOST * pl.col("symbols_expected"))
        .select("venue", "ts", "symbols_absent", "symbols_expected", "confirmed_by")
        .sort("venue", "ts")
    )


def joined(
    known: list[tuple[datetime, datetime, str]],
    found: tuple[datetime, datetime, str],
    *,
    finest_first: list[str],
) -> tuple[datetime, datetime, str, list[datetime]]:
    """One outage out of a found one and the recorded ones that it touches.

    The bounds are those of the finest timeframe; outages of that timeframe that touch are one.

    Args:
        known: start, end and timeframe of the venue's recorded outages that touch or overlap `found`.
        found: start, end and timeframe.
        finest_first: all timeframes.

    Returns:
        start, end, timeframe, and the starts of the recorded ones that this one replaces.
    """
    everything = [*known, found]
    finest = min((timeframe for _, _, timeframe in everything), key=finest_first.index)
    sharp = [(start, end) for start, end, timeframe in everything if timeframe == finest]
    return (
        min(start for start, _ in sharp),
        max(end for _, end in sharp),
        finest,
        [start for start, _, _ in known],
    )
