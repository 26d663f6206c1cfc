"""How complete bars are: counts by day, and what completeness is enough.

What belongs here: counting and judging. What does not: why a bar is absent (`gap_states.py`).
"""

from collections.abc import Mapping
from typing import Final

import polars as pl

from tracker_pipeline.domain.bar_slots import SERIES, SLOT, count_by_day
from tracker_pipeline.domain.gap_states import EMPTY, MISSING, OUTAGE, UNLISTED

# A coin is liquid if it traded in 98 % of the minutes of 30 days.
LIQUID_FILL: Final = 0.98
# Least part of the expected bars that must be present, by class; None is for information only. A thin coin lacks bars
# because nobody traded: a flat limit for minutes would be wrong by construction.
LEAST_FILL: Final[Mapping[str, Mapping[str, float | None]]] = {
    "liquid": {"1m": 0.99, "5m": 0.99, "15m": 0.99, "1h": 0.995, "4h": 0.995, "1d": 1.0},
    "thin": {"1m": None, "5m": None, "15m": 0.90, "1h": 0.97, "4h": 0.97, "1d": 1.0},
}


def coverage(
    bars: pl.DataFrame, absent: pl.DataFrame, spans: pl.DataFrame, *, timeframe: str
) -> pl.DataFrame:
    """Count the bars of each symbol and day.

    Args:
        bars: venue, symbol, ts.
        absent: venue, symbol, ts, state of the slots of `spans` without a bar.
        spans: venue, symbol, span_start, span_end: where bars are expected.
        timeframe: of all.

    Returns:
        The columns of `market.bar_coverage` without timeframe: a row for each day on which a bar is expected.
    """
    day = pl.col("ts").dt.truncate("1d").alias("day")
    inside = (
        bars.select(SLOT)
        .unique()
        .join(spans, on=SERIES)
        .filter(pl.col("ts").is_between("span_start", "span_end", closed="left"))
    )
    present = inside.group_by(*SERIES, day).agg(
        pl.len().cast(pl.Int64).alias("present"),
        pl.col("ts").min().alias("first_ts"),
        pl.col("ts").max().alias("last_ts"),
    )
    states = absent.group_by(*SERIES, day).agg(
        (pl.col("state") == state).sum().cast(pl.Int64).alias(state)
        for state in (EMPTY, OUTAGE, MISSING, UNLISTED)
    )
    keys = [*SERIES, "day"]
    counts = ["present", EMPTY, OUTAGE, MISSING, UNLISTED]
    return (
        count_by_day(spans, timeframe)
        .join(present, on=keys, how="left")
        .join(states, on=keys, how="left")
        .with_columns(pl.col(counts).fill_null(0))
        .with_columns(expected=pl.col("slots").cast(pl.Int64) - pl.col(UNLISTED))
        .filter(pl.col("expected") > 0)
        .select(*keys, "expected", "present", EMPTY, OUTAGE, MISSING, "first_ts", "last_ts")
        .sort(keys)
    )


def fill(rows: pl.DataFrame) -> pl.DataFrame:
    """Part of the bars that a symbol has while its venue was up: venue, symbol, timeframe, fill (0 to 1)."""
    up = pl.col("expected").sum() - pl.col("outage").sum()
    return (
        rows.group_by(*SERIES, "timeframe")
        .agg(
            pl.when(up > 0).then(pl.col("present").sum() / up).alias("fill"),
            pl.col("missing").sum(),
        )
        .sort(*SERIES, "timeframe")
    )


def liquidity_classes(rows: pl.DataFrame) -> pl.DataFrame:
    """Class of each symbol by the fill of its minutes, or of its finest bars where it has no minutes.

    Args:
        rows: of `market.bar_coverage`, of the days to judge by: 30 or as many as there are.

    Returns:
        venue, symbol, liquidity_class (liquid or thin).
    """
    order = {name: place for place, name in enumerate(LEAST_FILL["liquid"])}
    finest = (
        fill(rows)
        .with_columns(place=pl.col("timeframe").replace_strict(order, return_dtype=pl.Int64))
        .sort("place")
        .unique(SERIES, keep="first", maintain_order=True)
    )
    named = pl.when(pl.col("fill") >= LIQUID_FILL).then(pl.lit("liquid")).otherwise(pl.lit("thin"))
    return finest.select(*SERIES, named.alias("liquidity_class")).sort(SERIES)


def incomplete(rows: pl.DataFrame, classes: pl.DataFrame) -> pl.DataFrame:
    """Symbols whose bars are fewer than their class must have.

    Args:
        rows: of `market.bar_coverage`.
        classes: venue, symbol, liquidity_class; a symbol that is not among them is judged as liquid.

    Returns:
        venue, symbol, timeframe, fill, missing, liquidity_class, least.
    """
    limits = pl.DataFrame(
        [
            {"liquidity_class": name, "timeframe": timeframe, "least": least}
            for name, by_timeframe in LEAST_FILL.items()
            for timeframe, least in by_timeframe.items()
        ]
    )
    judged = fill(rows).join(classes, on=SERIES, how="left")
    return (
        judged.with_columns(pl.col("liquidity_class").fill_null("liquid"))
        .join(limits, on=["liquidity_class", "timeframe"], how="left")
        .filter(pl.col("fill") < pl.col("least"))
    )
