"""Bars of many series laid on a regular time grid, so that lags are by time and gaps are visible as NaN.

What belongs here: checking bars on entry, placing them, and cutting the grid into days. What does not: formulas.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.timeframes import GRACE, duration
from tracker_pipeline.domain.windows import BoolArray, FloatArray, IntArray

SERIES: Final = ("venue", "symbol")
_MOMENT: Final = pl.Datetime("us", "UTC")
_MICROSECOND: Final = timedelta(microseconds=1)
_LANES_AT_ONCE: Final = (
    4096  # series-days: with 768 bars each, 4,096 x 768 values x 8 bytes = 25 MB per column
)


def _require_columns(bars: pl.DataFrame, columns: Sequence[str]) -> None:
    absent = [name for name in columns if name not in bars.columns]
    if absent:
        raise ValueError(f"bars lack the columns {absent}")


def _aware(bars: pl.DataFrame, column: str) -> pl.Expr:
    kind = bars.schema[column]
    if not isinstance(kind, pl.Datetime) or kind.time_zone is None:
        raise ValueError(f"column {column} must hold aware times, but its type is {kind}")
    return pl.col(column).dt.convert_time_zone("UTC").cast(_MOMENT)


def known_bars(
    bars: pl.DataFrame,
    timeframe: str,
    *,
    columns: Sequence[str],
    key: Sequence[str] = SERIES,
    as_of: datetime | None = None,
) -> pl.DataFrame:
    """Check bars and return those known at `as_of`, sorted, with `available_at`: the frame of `known_series`."""
    return known_series(bars, timeframe, columns=columns, key=key, as_of=as_of)[0]


def known_series(
    bars: pl.DataFrame,
    timeframe: str,
    *,
    columns: Sequence[str],
    key: Sequence[str] = SERIES,
    as_of: datetime | None = None,
) -> tuple[pl.DataFrame, IntArray]:
    """Check bars; return those known at `as_of`, sorted, with `available_at`, and the index of each series' first.

    Args:
        bars: bars of one timeframe in any order; `available_at` is derived where the column is absent.
        timeframe: their timeframe.
        columns: numeric columns that are needed; they become Float64.
        key: columns that, with `ts`, identify a bar.
        as_of: aware moment of knowledge; None means that everything given is known.

    Raises:
        ValueError: a column is absent, a time is naive or off the timeframe's grid, or a bar is given twice.
    """
    _require_columns(bars, [*key, "ts", *columns])
    step = duration(timeframe)
    has_availability = "available_at" in bars.columns
    bars = bars.with_columns(
        _aware(bars, "ts"), *(pl.col(name).cast(pl.Float64) for name in columns)
    ).with_columns(
        _aware(bars, "available_at")
        if has_availability
        else (pl.col("ts") + step + GRACE[timeframe]).alias("available_at")
    )
    ts_us = bars["ts"].to_physical().to_numpy()
    # Every timeframe divides a day, so its grid is that of whole multiples since 1970.
    off_grid = ts_us // (step // _MICROSECOND) * (step // _MICROSECOND) != ts_us
    if off_grid.any():
        first = bars["ts"].filter(off_grid)[0]
        raise ValueError(f"{off_grid.sum()} bars are not on the {timeframe} grid, first at {first}")
    if as_of is not None:
        if as_of.tzinfo is None:
            raise ValueError("as_of must be an aware time")
        bars = bars.filter(pl.col("available_at") <= as_of)
    starts = series_starts(bars, key)
    return (bars, starts) if _is_in_order(bars, key, starts) else _in_order(bars, key, starts)


def _is_in_order(bars: pl.DataFrame, key: Sequence[str], starts: IntArray) -> bool:
    """Whether bars are sorted by key and time, each once."""
    ts_us = bars["ts"].to_physical().to_numpy()
    advances = ts_us[1:] > ts_us[:-1]
    advances[starts[1:] - 1] = True
    if not advances.all():
        return False
    if len(starts) <= 1:
        return True
    series = bars.select(key)[starts]
    return series.equals(series.sort(key)) and series.is_unique().all()


def _in_order(bars: pl.DataFrame, key: Sequence[str], starts: IntArray) -> tuple[pl.DataFrame, IntArray]:
    """Sort bars by key and time.

    Raises:
        ValueError: a bar is given twice.
    """
    bars = sorted_by_series(bars, key, "ts", starts)
    starts = series_starts(bars, key)
    if not _is_in_order(bars, key, starts):
        repeated = bars.select(pl.struct(*key, "ts").is_duplicated().sum()).item()
        raise ValueError(f"{repeated} bars share {', '.join(key)} and ts with another bar")
    return bars, starts


def sorted_by_series(
    rows: pl.DataFrame, key: Sequence[str], moment: str, starts: IntArray | None = None
) -> pl.DataFrame:
    """Rows sorted by series and time.

    What storage returns are runs of one series in the order of time, so runs are sorted and not rows: that takes a
    sixth of the time that sorting rows by the text of their key takes. Where runs overlap in time, rows are sorted by
    the number of their series.

    Args:
        rows: with the columns of `key` and `moment`, a time without NULL.
        key: columns that name a series.
        moment: the column of the time.
        starts: first row of each run, where known.
    """
    starts = series_starts(rows, key) if starts is None else starts
    lengths = np.diff(np.append(starts, rows.height))
    rank = np.zeros(len(starts), np.int64)
    if key:
        runs = rows.select(key)[starts]
        ranks = runs.unique().sort(key).with_row_index("rank")
        ranked = runs.join(ranks, on=key, how="left", maintain_order="left", nulls_equal=True)
        rank = ranked["rank"].cast(pl.Int64).to_numpy()
    time = rows[moment].to_physical().to_numpy()
    order = np.lexsort((time[starts], rank))
    lengths, starts, rank = lengths[order], starts[order], rank[order]
    index = np.arange(rows.height) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    time, of_row = time[index], np.repeat(rank, lengths)
    if ((time[1:] < time[:-1]) & (of_row[1:] == of_row[:-1])).any():
        index = index[np.lexsort((time, of_row))]
    return rows.rechunk()[index]


def series_starts(bars: pl.DataFrame, key: Sequence[str] = SERIES) -> IntArray:
    """Index of the first bar of each run of bars of one series."""
    if not bars.height:
        return np.empty(0, np.int64)
    # Bars beside the bars before them: to shift a column would copy it.
    columns = [bars[name] for name in key]
    changes = [column[1:].ne_missing(column[:-1]) for column in columns]
    later = reduce(or_, changes).arg_true().to_numpy() if changes else np.empty(0, np.int64)
    return np.append(0, later.astype(np.int64) + 1)


@dataclass(frozen=True)
class BarGrid:
    """Series side by side in one flat array per column, each on its own run of slots.

    Every run starts at 00:00 UTC after `pad` empty slots, so no window of up to `pad` bars reaches into the series
    before it, and a day always starts a whole number of days after the run's first bar.

    Attributes:
        slot: for each bar of the frame it was placed from, its position in the flat arrays.
        size: length of the flat arrays.
        step: duration of one slot.
    """

    slot: IntArray
    size: int
    step: timedelta

    @property
    def day_slot(self) -> IntArray:
        """For each bar, the position of 00:00 UTC of its day."""
        per_day = timedelta(days=1) // self.step
        return self.slot // per_day * per_day  # NumPy divides by a number ten times as fast as `%`

    @classmethod
    def place(
        cls,
        bars: pl.DataFrame,
        step: timedelta,
        *,
        pad: int,
        key: Sequence[str] = SERIES,
        starts: IntArray | None = None,
    ) -> "BarGrid":
        """Lay out bars that `known_bars` returned.

        Args:
            bars: sorted by `key` and `ts`, on the grid of `step`.
            step: duration of one bar; a day must hold a whole number of them.
            pad: empty slots before each series, at least; whole days are left.
            key: columns that identify a series.
            starts: index of each series' first bar; None looks for them.
        """
        per_day = timedelta(days=1) // step
        pad = -(-pad // per_day) * per_day
        if not bars.height:
            empty = np.empty(0, np.int64)
            return cls(slot=empty, size=0, step=step)
        number = bars["ts"].to_physical().to_numpy() // (step // _MICROSECOND)
        starts = series_starts(bars, key) if starts is None else starts
        ends = np.append(starts[1:], len(number)) - 1
        first_day = number[starts] // per_day * per_day
        length = pad + number[ends] // per_day * per_day + per_day - first_day
        zero = np.cumsum(length) - length + pad - first_day
        slot = number + np.repeat(zero, ends - starts + 1)
        return cls(slot=slot, size=int(length.sum()), step=step)

    def spread(self, values: pl.Series) -> FloatArray:
        """Lay a column of the placed frame on the grid, NaN where there is no bar."""
        flat = np.full(self.size, np.nan)
        flat[self.slot] = values.cast(pl.Float64).to_numpy()
        return flat


@dataclass(frozen=True)
class DayLanes:
    """Days of series, each with a burn-in before it: a matrix of bars by day-and-series is cut from the grid.

    A recursive indicator that starts afresh in each lane depends on the burn-in and the day, and on nothing older.

    Attributes:
        starts: position in the grid of the first bar of each lane's burn-in.
        row: lane of each wanted row.
        length: bars of a lane.
    """

    starts: IntArray
    row: IntArray
    length: int

    @classmethod
    def of(cls, grid: BarGrid, wanted: BoolArray, *, burn_in: int) -> "DayLanes":
        """The lanes of the wanted rows' days.

        Args:
            grid: bars, padded by at least `burn_in`.
            wanted: which of the rows that the grid was placed from need a value.
            burn_in: bars before 00:00 UTC of the day.
        """
        days, row = np.unique(grid.day_slot[wanted], return_inverse=True)
        return cls(days - burn_in, row.astype(np.int64), burn_in + timedelta(days=1) // grid.step)

    def groups(self) -> Iterator[IntArray]:
        """Positions of the bars, time along axis 0, a bounded number of lanes at a time."""
        offsets = np.arange(self.length)[:, None]
        for start in range(0, len(self.starts), _LANES_AT_ONCE):
            yield self.starts[None, start : start + _LANES_AT_ONCE] + offsets
