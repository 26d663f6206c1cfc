"""Point-in-time features of every closed 15m bar.

What belongs here: the entry point, what is known at each row, reasons for NULL, and assembly of the frame. What
does not: formulas (`feature_formulas.py`, `feature_context.py`) and their descriptions (`feature_catalogue.py`).

The rows of one UTC day depend on the bars from `LOOKBACK` before each row on and on nothing older, so that a
backfill of a year in one call and a refresh hour by hour give the same bytes. Recursive indicators (RSI, MACD, ATR)
would remember the start of the history for ever; theirs restart at a fixed distance before each UTC day instead.
"""

import json
import math
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracker_pipeline.domain.bar_grid import SERIES, BarGrid, known_bars
from tracker_pipeline.domain.feature_catalogue import CATALOGUE, FEATURE_SET_VERSION
from tracker_pipeline.domain.feature_context import DAY, DayFeatures, days_of
from tracker_pipeline.domain.feature_formulas import (
    BURN_IN,
    BURN_IN_BARS,
    BarFeatures,
    CodeArray,
    Reason,
    Values,
)
from tracker_pipeline.domain.schemas import ML_FEATURES_15M
from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.domain.windows import BoolArray, IntArray

# A row at 23:45 needs the 23:45 bar of 31 days before its own: exactly 31 days back.
LOOKBACK: Final = timedelta(days=31)
# Daily reference bars are needed from this long before the UTC day of a row.
REFERENCE_LOOKBACK: Final = timedelta(days=31)

_BAR: Final = duration("15m")
_REASON_TEXT: Final = {reason: reason.name.lower() for reason in Reason}
_OF_REFERENCE: Final = tuple(feature.name for feature in CATALOGUE if "btc" in feature.name)
_DAILY_CLOSES_IN_BURN_IN: Final = BURN_IN // DAY


def features_15m(
    bars: pl.DataFrame,
    *,
    reference_bars: pl.DataFrame | None = None,
    as_of: datetime | None = None,
    since: datetime | None = None,
) -> pl.DataFrame:
    """Compute the features of the catalogue for every 15m bar.

    A value is NULL, with a reason, unless 90 % of the bars of its window exist (all, for the two ends of a change).
    Lags are found by time, so no change is computed across a hole. The row of a bar uses that bar, bars before it,
    and daily bars of days before its own.

    Args:
        bars: 15m bars of any number of series in any order: venue, symbol, ts, open, high, low, close, volume, and
            `available_at` and `revision` where known. For complete rows from `since` on they must reach back by
            `LOOKBACK`.
        reference_bars: daily bars of one series, BTC: ts and close, and `available_at` and `revision` where known,
            reaching back by `REFERENCE_LOOKBACK`. Without them the features that compare with BTC are NULL.
        as_of: aware moment of knowledge: bars available later are not seen. None takes everything given as known.
        since: aware time of the first row wanted; bars before it serve as history only. None: a row for each bar.

    Returns:
        The columns of `features.ml_features_15m`, sorted by key. `null_reasons` is a JSON object from feature to
        one of `warmup` (history starts inside the window), `gap`, `flat` (nothing moved, so a position within the
        range has no meaning), `zero_volume`, `no_reference`.

    Raises:
        ValueError: a column is absent, a time is naive or off the 15m grid, or a bar is given twice.
    """
    known = _with_revision(
        known_bars(bars, "15m", columns=("open", "high", "low", "close", "volume"), as_of=as_of)
    )
    reference = None if reference_bars is None else _reference(reference_bars, as_of)
    start = None if since is None else _day_start(since) - BURN_IN
    recent = known if start is None else known.filter(pl.col("ts") >= start)
    wanted = pl.repeat(True, recent.height, eager=True) if since is None else recent["ts"] >= since
    rows = recent.filter(wanted)
    if not rows.height:
        return ML_FEATURES_15M.polars_schema.to_frame()
    grid = BarGrid.place(recent, _BAR, pad=BURN_IN_BARS)
    keep = wanted.to_numpy()
    days = days_of(known)
    context = DayFeatures(days, reference)
    day_of_row = _day_rows(rows, days)
    features = {
        **BarFeatures(grid, recent, keep).compute(),
        **_of_rows(context, day_of_row, rows),
        **_clock(rows),
    }
    corrections = _recent_corrections(grid, recent, keep)
    corrections += context.corrections(but_last=_DAILY_CLOSES_IN_BURN_IN)[day_of_row]
    return _assemble(rows, features, corrections)


def _with_revision(bars: pl.DataFrame) -> pl.DataFrame:
    return bars if "revision" in bars.columns else bars.with_columns(revision=pl.lit(1, pl.Int64))


def _day_start(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("since must be an aware time")
    return pl.select(pl.lit(moment).dt.convert_time_zone("UTC").dt.truncate("1d")).item()


def _reference(bars: pl.DataFrame, as_of: datetime | None) -> pl.DataFrame:
    identity = [name for name in SERIES if name in bars.columns]
    if identity and bars.select(pl.struct(identity).n_unique()).item() > 1:
        raise ValueError("reference_bars must be bars of one series")
    return _with_revision(known_bars(bars, "1d", columns=("close",), key=(), as_of=as_of))


def _day_rows(rows: pl.DataFrame, days: pl.DataFrame) -> IntArray:
    """For each row, the position of its series and day among `days`."""
    positions = days.select(
        *SERIES, pl.col("ts").alias("day"), pl.int_range(pl.len(), dtype=pl.Int64).alias("position")
    )
    keyed = rows.select(*SERIES, pl.col("ts").dt.truncate("1d").alias("day"))
    return keyed.join(positions, on=[*SERIES, "day"], how="left", maintain_order="left")[
        "position"
    ].to_numpy()


def _of_rows(context: DayFeatures, day_of_row: IntArray, rows: pl.DataFrame) -> dict[str, Values]:
    """The features of each row's day, without what the row could not know yet."""
    known_us = rows["available_at"].to_physical().to_numpy()
    unseen = context.reference_available_us()[day_of_row] > known_us
    features = {}
    for name, daily in context.compute().items():
        values, reasons = daily.values[day_of_row], daily.reasons[day_of_row]
        if name in _OF_REFERENCE:
            hidden = unseen & (reasons == Reason.NONE)
            values = np.where(hidden, np.nan, values)
            reasons = np.where(hidden, Reason.NO_REFERENCE, reasons).astype(np.uint8)
        features[name] = Values(values, reasons)
    return features


def _clock(rows: pl.DataFrame) -> dict[str, Values]:
    # A table of 24 values: the same digits on every machine and for every length of input.
    angles = [2.0 * math.pi * hour / 24.0 for hour in range(24)]
    hour = rows["ts"].dt.hour().to_numpy()
    weekday = (rows["ts"].dt.weekday() - 1).cast(pl.Float64).to_numpy()
    always = np.zeros(rows.height, np.uint8)
    return {
        "hour_sin": Values(np.array([math.sin(angle) for angle in angles])[hour], always),
        "hour_cos": Values(np.array([math.cos(angle) for angle in angles])[hour], always),
        "weekday": Values(weekday, always),
    }


def _recent_corrections(grid: BarGrid, bars: pl.DataFrame, wanted: BoolArray) -> IntArray:
    """For each row, revisions beyond the first from the start of its day's burn-in to the row itself."""
    flat = np.zeros(grid.size + 1, np.int64)
    flat[grid.slot + 1] = (bars["revision"].cast(pl.Int64) - 1).to_numpy()
    total = np.cumsum(flat)
    return total[grid.slot[wanted] + 1] - total[grid.day_slot[wanted] - BURN_IN_BARS]


def _null_reasons(reasons: CodeArray, names: list[str]) -> pl.Series:
    """JSON objects, one per row; `reasons` has a column for each name.

    Neighbouring rows nearly always lack the same features, so text is made once per run of equal rows.
    """
    changed = np.r_[True, (reasons[1:] != reasons[:-1]).any(axis=1)]
    texts: dict[bytes, str] = {}
    for start in np.flatnonzero(changed):
        codes = reasons[start]
        if codes.tobytes() not in texts:
            lacking = {names[i]: _REASON_TEXT[Reason(codes[i])] for i in np.flatnonzero(codes)}
            texts[codes.tobytes()] = json.dumps(lacking, separators=(",", ":"))
    runs = pl.Series([texts[reasons[start].tobytes()] for start in np.flatnonzero(changed)], dtype=pl.String)
    return runs.gather(np.cumsum(changed) - 1)


def _assemble(
    rows: pl.DataFrame, features: dict[str, Values], corrections: npt.NDArray[np.int64]
) -> pl.DataFrame:
    names = [feature.name for feature in CATALOGUE]
    reasons = np.column_stack([features[name].reasons for name in names])
    columns = [pl.Series(name, features[name].values, nan_to_null=True) for name in names]
    frame = rows.select("venue", "symbol", "ts", "available_at").with_columns(
        *columns,
        _null_reasons(reasons, names).alias("null_reasons"),
        pl.lit(FEATURE_SET_VERSION).alias("feature_set_version"),
        pl.Series("input_revision", corrections),
    )
    return ML_FEATURES_15M.conform(frame)
