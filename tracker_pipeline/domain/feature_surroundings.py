"""Features that come from other series at the moment of a bar: BTC's 15m bars, 5m bars, the regime, the universe.

What belongs here: one function per such feature or group of them, and what was known when. What does not: features of
a series' own 15m bars (`feature_formulas.py`) and of whole days (`feature_context.py`).

A bar of another series is seen by a row only if it was available when the row was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.bar_grid import SERIES, known_bars
from tracker_pipeline.domain.feature_table import FeatureTable
from tracker_pipeline.domain.feature_values import Reason
from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.domain.windows import FloatArray, IntArray

# BTC's close 24 h before a row.
LOOKBACK: Final = timedelta(hours=24)

_MICROSECOND: Final = timedelta(microseconds=1)
_BAR_US: Final = duration("15m") // _MICROSECOND
# Of the three 5m bars within a 15m bar, the second ends five minutes before it does, and opens so long after it.
_SECOND: Final = duration("5m")
_CHANGES: Final = {"btc_ret_1h": 4, "btc_ret_24h": 96}


@dataclass(frozen=True)
class Surroundings:
    """What lies beside the bars of a series; a feature that needs what is absent is NULL.

    Attributes:
        reference_15m: BTC's 15m bars, reaching back by `LOOKBACK`.
        fine_bars: 5m bars of the same series; only those that open 5 minutes after a 15m bar are used.
        regimes: rows of `market.regimes` of the same venues.
        tiers: tier of each coin of the universe.
    """

    reference_15m: pl.DataFrame | None = None
    fine_bars: pl.DataFrame | None = None
    regimes: pl.DataFrame | None = None
    tiers: Mapping[str, str] | None = None

    def known(self, as_of: datetime | None) -> "Surroundings":
        """Checked, and without what was known later than `as_of`.

        Raises:
            ValueError: bars are malformed, or those of the reference are of several series.
        """
        reference, fine, regimes = self.reference_15m, self.fine_bars, self.regimes
        if reference is not None:
            reference = _with_revision(
                one_series(reference).pipe(known_bars, "15m", columns=("close",), key=(), as_of=as_of)
            )
        if fine is not None:
            fine = _with_revision(known_bars(fine, "5m", columns=("close",), as_of=as_of))
        if regimes is not None and as_of is not None:
            regimes = regimes.filter(pl.col("available_at") <= as_of)
        return replace(self, reference_15m=reference, fine_bars=fine, regimes=regimes)

    def of_venue(self, venue: str) -> "Surroundings":
        """What lies beside the bars of one venue."""
        own = pl.col("venue") == venue
        frames = (self.reference_15m, self.fine_bars, self.regimes)
        reference, fine, regimes = (None if frame is None else frame.filter(own) for frame in frames)
        return replace(self, reference_15m=reference, fine_bars=fine, regimes=regimes)

    def fill(self, table: FeatureTable, rows: pl.DataFrame) -> IntArray:
        """Put the features into a table; return how often the bars they come from were corrected.

        Args:
            table: where.
            rows: venue, symbol, ts, available_at and close of the rows' bars, sorted by series and time.
        """
        known_us = rows["available_at"].to_physical().to_numpy()
        corrections = _fill_reference(
            table, self.reference_15m, rows["ts"].to_physical().to_numpy(), known_us
        )
        corrections += _fill_fine(table, self.fine_bars, rows, known_us)
        _fill_regime(table, self.regimes, rows)
        _fill_tier(table, self.tiers, rows)
        return corrections


NOTHING: Final = Surroundings()


def one_series(bars: pl.DataFrame) -> pl.DataFrame:
    """The bars, refused if they are of several series."""
    identity = [name for name in SERIES if name in bars.columns]
    if identity and bars.select(pl.struct(identity).n_unique()).item() > 1:
        raise ValueError("reference bars must be bars of one series")
    return bars


def _with_revision(bars: pl.DataFrame) -> pl.DataFrame:
    return bars if "revision" in bars.columns else bars.with_columns(revision=pl.lit(1, pl.Int64))


@dataclass(frozen=True)
class _Line:
    """One series laid on its grid: close, correction and availability by slot."""

    first: int
    close: FloatArray
    corrections: IntArray
    known_us: IntArray

    @classmethod
    def of(cls, bars: pl.DataFrame) -> "_Line":
        slot = bars["ts"].to_physical().to_numpy() // _BAR_US
        first, size = (int(slot[0]), int(slot[-1] - slot[0]) + 1) if len(slot) else (0, 0)
        # One slot more, always empty, stands for all that lies outside.
        line = cls(
            first, np.full(size + 1, np.nan), np.zeros(size + 1, np.int64), np.zeros(size + 1, np.int64)
        )
        line.close[slot - first] = bars["close"].to_numpy()
        line.corrections[slot - first] = bars["revision"].cast(pl.Int64).to_numpy() - 1
        line.known_us[slot - first] = bars["available_at"].to_physical().to_numpy()
        return line

    def places(self, slots: IntArray) -> IntArray:
        """Where bars of these slots are."""
        outside, place = len(self.close) - 1, slots - self.first
        return np.where((place >= 0) & (place < outside), place, outside)


def _fill_reference(
    table: FeatureTable, reference: pl.DataFrame | None, ts_us: IntArray, known_us: IntArray
) -> IntArray:
    """Changes of BTC up to the bar of the same time."""
    corrections = np.zeros(len(ts_us), np.int64)
    if reference is None or not reference.height:
        for name in _CHANGES:
            table.put(name, np.full(len(ts_us), np.nan), np.ones(len(ts_us), np.bool_), Reason.NO_REFERENCE)
        return corrections
    line, slots = _Line.of(reference), ts_us // _BAR_US
    now = line.places(slots)
    corrections += line.corrections[now]
    for name, bars in _CHANGES.items():
        before = line.places(slots - bars)
        values = 100.0 * (line.close[now] / line.close[before] - 1.0)
        unseen = (line.known_us[now] > known_us) | (line.known_us[before] > known_us)
        table.put(name, values, ~np.isfinite(values) | unseen, Reason.NO_REFERENCE)
        corrections += line.corrections[before]
    return corrections


def _fill_fine(
    table: FeatureTable, fine: pl.DataFrame | None, rows: pl.DataFrame, known_us: IntArray
) -> IntArray:
    """The change over the last five minutes of the bar."""
    if fine is None or not fine.height:
        nothing = np.full(rows.height, np.nan)
        table.put("ret_5m", nothing, np.ones(rows.height, np.bool_), Reason.NO_FINE_BARS)
        return np.zeros(rows.height, np.int64)
    found = rows.select(*SERIES, "ts").join(
        fine.select(
            *SERIES,
            pl.col("ts") - _SECOND,
            before="close",
            corrections=pl.col("revision").cast(pl.Int64) - 1,
            known="available_at",
        ),
        on=[*SERIES, "ts"],
        how="left",
        maintain_order="left",
    )
    values = 100.0 * (rows["close"].to_numpy() / found["before"].fill_null(np.nan).to_numpy() - 1.0)
    unseen = found["known"].to_physical().fill_null(0).to_numpy() > known_us
    table.put("ret_5m", values, ~np.isfinite(values) | unseen, Reason.NO_FINE_BARS)
    return found["corrections"].fill_null(0).to_numpy().copy()


def _fill_regime(table: FeatureTable, regimes: pl.DataFrame | None, rows: pl.DataFrame) -> None:
    """The verdicts on the market at the same bar, if they were known when the row was."""
    names = {"regime_trend": "trend", "regime_stress": "stress"}
    if regimes is None or not regimes.height:
        found = pl.DataFrame(
            {name: pl.repeat(None, rows.height, dtype=pl.String, eager=True) for name in names}
        )
    else:
        judged = regimes.select("venue", "ts", *names.values(), judged_at="available_at")
        found = rows.select("venue", "ts", "available_at").join(
            judged, on=["venue", "ts"], how="left", maintain_order="left"
        )
        seen = pl.col("judged_at") <= pl.col("available_at")
        found = found.select(pl.when(seen).then(verdict).alias(name) for name, verdict in names.items())
    for name in names:
        table.put_text(name, found[name], Reason.NO_REGIME)


def _fill_tier(table: FeatureTable, tiers: Mapping[str, str] | None, rows: pl.DataFrame) -> None:
    """The tier of the coin, looked up once per symbol."""
    symbols = rows.select("symbol").unique()
    base = pl.col("symbol").str.split("/").list.first()
    of_symbol = symbols.with_columns(
        tier=base.replace_strict(dict(tiers or {}), default=None, return_dtype=pl.String)
    )
    found = rows.select("symbol").join(of_symbol, on="symbol", how="left", maintain_order="left")
    table.put_text("tier", found["tier"], Reason.NO_TIER)
