"""Slots of the grid on which bars are expected, and runs of slots: one is turned into the other without loss.

A slot is one bar's place: venue, symbol and `ts`. A run is [start, end) of neighbouring slots of a symbol.

What belongs here: this arithmetic. What does not: why a slot has no bar (`gap_states.py`).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from tracker_pipeline.domain.timeframes import GRACE, duration

SERIES: Final = ("venue", "symbol")
SLOT: Final = (*SERIES, "ts")
TIME: Final = pl.Datetime("us", "UTC")
SLOTS: Final = pl.Schema({"venue": pl.String(), "symbol": pl.String(), "ts": TIME})

_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
# The hourly run asks five minutes after the hour. A bar that became final a moment ago by our clock may not have been
# by the exchange's when it was asked, and is no gap.
_SETTLES: Final = timedelta(minutes=2)


def closed_until(timeframe: str, now: datetime) -> datetime:
    """End of the last bar that every clock agrees is final at `now`."""
    length = duration(timeframe)
    return _EPOCH + (now - GRACE[timeframe] - _SETTLES - _EPOCH) // length * length


def slots_of(runs: pl.DataFrame, timeframe: str, start: str, end: str) -> pl.DataFrame:
    """One row for each slot of each run, in place of the columns `start` and `end`; other columns are repeated."""
    length = duration(timeframe)
    slots = runs.filter(pl.col(start) < pl.col(end)).with_columns(
        ts=pl.datetime_ranges(start, end, length, closed="left", time_unit="us", time_zone="UTC")
    )
    return slots.explode("ts").drop(start, end)


def runs_of(
    slots: pl.DataFrame,
    timeframe: str,
    start: str,
    end: str,
    *,
    by: Sequence[str] = (),
    aggregated: Sequence[pl.Expr] = (),
) -> pl.DataFrame:
    """Join neighbouring slots of a series to runs [start, end).

    Args:
        slots: venue, symbol, ts, each slot once.
        timeframe: of the grid.
        start: name of the column for a run's start.
        end: name of the column for its end.
        by: columns in which the slots of a run agree.
        aggregated: further columns of a run.
    """
    ordered = slots.sort(SLOT)
    breaks = (pl.col("ts") != pl.col("ts").shift(1) + duration(timeframe)).fill_null(value=True)
    for name in (*SERIES, *by):
        breaks |= pl.col(name).ne_missing(pl.col(name).shift(1))
    return (
        ordered.with_columns(run=breaks.cum_sum())
        .group_by("run", *SERIES, *by, maintain_order=True)
        .agg(
            pl.col("ts").first().alias(start),
            (pl.col("ts").last() + duration(timeframe)).alias(end),
            *aggregated,
        )
        .drop("run")
    )


def bars_between(first: pl.Expr, last: pl.Expr, timeframe: str) -> pl.Expr:
    """How many bars fit between two times."""
    return (last - first).dt.total_seconds() // int(duration(timeframe).total_seconds())


def count_by_day(spans: pl.DataFrame, timeframe: str) -> pl.DataFrame:
    """Slots of each day: venue, symbol, day, slots.

    Args:
        spans: venue, symbol, span_start, span_end on the grid, none overlapping another.
        timeframe: of the grid.
    """
    day = timedelta(days=1)
    days = spans.with_columns(
        day=pl.datetime_ranges(
            pl.col("span_start").dt.truncate("1d"),
            "span_end",
            day,
            closed="left",
            time_unit="us",
            time_zone="UTC",
        )
    ).explode("day")
    first = pl.max_horizontal("span_start", "day")
    last = pl.min_horizontal("span_end", pl.col("day") + day)
    return (
        days.group_by(*SERIES, "day")
        .agg(bars_between(first, last, timeframe).sum().alias("slots"))
        .sort(*SERIES, "day")
    )
