"""Features that come from other series at the moment of a bar: BTC's 15m bars, 5m bars, the regime, the universe.

What belongs here: one function per such feature or group of them, and what was known when. What does not: features of
a series' own 15m bars (`feature_formulas.py`) and of whole days (`feature_context.py`).

A bar of another series is seen by a row only if it was available when the row was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.bar_grid import SERIES, known_series
from tracker_pipeline.domain.feature_table import FeatureTable
from tracker_pipeline.domain.feature_values import Reason
from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.domain.windows import FloatArray, IntArray, read_only

# BTC's close 24 h before a row.
LOOKBACK: Final = timedelta(hours=24)

_MICROSECOND: Final = timedelta(microseconds=1)
# Of the three 5m bars within a 15m bar, the second ends five minutes before it does, and opens so long after it.
_SECOND: Final = duration("5m")
_CHANGES: Final = {"btc_ret_1h": timedelta(hours=1), "btc_ret_24h": timedelta(hours=24)}


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

    def of_venue(self, venue: str) -> "Surroundings":
        """What lies beside the bars of one venue."""
        own = pl.col("venue") == venue
        frames = (self.reference_15m, self.fine_bars, self.regimes)
        reference, fine, regimes = (None if frame is None else frame.filter(own) for frame in frames)
        return replace(self, reference_15m=reference, fine_bars=fine, regimes=regimes)


NOTHING: Final = Surroundings()


def one_series(bars: pl.DataFrame) -> pl.DataFrame:
    """The bars, refused if they are of several series."""
    identity = [name for name in SERIES if name in bars.columns]
    if identity and bars.select(pl.struct(identity).n_unique()).item() > 1:
        raise ValueError("reference bars must be bars of one series")
    return bars


# Name, first row and end of the rows that look at one series.
_Group = tuple[tuple[object, ...], int, int]


@dataclass(frozen=True)
class _Lines:
    """Figures of some series by time, and since when each is known.

    Attributes:
        ts_us: times of the bars that they come from, microseconds since 1970, ascending within a series.
        value: the figures.
        revision: of the bars.
        known_us: microseconds since 1970.
        ranges: first and end of each series.
    """

    ts_us: IntArray
    value: FloatArray
    revision: IntArray
    known_us: IntArray
    ranges: Mapping[tuple[object, ...], tuple[int, int]]

    @classmethod
    def of(cls, bars: pl.DataFrame, starts: IntArray, value: str, key: Sequence[str]) -> "_Lines":
        """The lines of a column of bars that `known_series` returned."""
        one = np.ones(bars.height, np.int64)
        revision = bars["revision"].cast(pl.Int64).to_numpy() if "revision" in bars.columns else one
        names = bars.select(key)[starts].rows() if key else [()] * len(starts)
        ends = np.append(starts[1:], bars.height)[: len(starts)]
        return cls(
            read_only(bars["ts"].to_physical().to_numpy()),
            read_only(bars[value].cast(pl.Float64).to_numpy()),
            read_only(revision),
            read_only(bars["available_at"].to_physical().to_numpy()),
            dict(zip(names, zip(starts, ends, strict=True), strict=True)),
        )

    def seen(self, rows: "_Rows", groups: Sequence[_Group], ahead: timedelta = timedelta()) -> FloatArray:
        """The figures so long after the rows' times, NaN where known later than the rows; count corrections."""
        from tracker_pipeline.domain.moment_lookup import look_up  # imports numba

        values = np.empty(len(rows.ts_us))
        places = np.array([(first, end, *self.ranges.get(name, (0, 0))) for name, first, end in groups])
        lines = (self.ts_us, self.value, self.revision, self.known_us)
        look_up(lines, places, rows.ts_us, ahead // _MICROSECOND, rows.known_us, values, rows.corrections)
        return values


@dataclass(frozen=True)
class _Rows:
    """The rows that look, sorted by series and time.

    Attributes:
        ts_us: their times, microseconds since 1970.
        known_us: when they are known, microseconds since 1970.
        corrections: how often what they have looked at was corrected.
    """

    ts_us: IntArray
    known_us: IntArray
    corrections: IntArray


_NO_TIMES: Final = read_only(np.empty(0, np.int64))
_NO_LINES: Final = _Lines(_NO_TIMES, read_only(np.empty(0)), _NO_TIMES, _NO_TIMES, {})


class Beside:
    """Surroundings laid out for the rows of some bars.

    Args:
        surroundings: what was given.
        as_of: moment of knowledge; None knows everything given.

    Raises:
        ValueError: bars are malformed, or those of the reference are of several series.
    """

    def __init__(self, surroundings: Surroundings, as_of: datetime | None) -> None:
        reference, fine, regimes = surroundings.reference_15m, surroundings.fine_bars, surroundings.regimes
        self._reference = self._fine = self._regimes = _NO_LINES
        if reference is not None and reference.height:
            known = known_series(one_series(reference), "15m", columns=("close",), key=(), as_of=as_of)
            self._reference = _Lines.of(*known, "close", ())
        if fine is not None and fine.height:
            known = known_series(fine, "5m", columns=("close",), as_of=as_of)
            self._fine = _Lines.of(*known, "close", SERIES)
        self._verdicts = pl.DataFrame(schema={"trend": pl.String, "stress": pl.String})
        if regimes is not None and regimes.height:
            judged, starts = known_series(regimes, "15m", columns=(), key=("venue",), as_of=as_of)
            # The pairs of verdicts are numbered, so that a row's is a number on a line.
            pairs = judged.select("trend", "stress")
            self._verdicts = pairs.unique().sort(pl.all())
            number = pairs.join(
                self._verdicts.with_row_index("number"), on=["trend", "stress"], maintain_order="left"
            )["number"]
            self._regimes = _Lines.of(judged.with_columns(number), starts, "number", ("venue",))
        self._tiers = dict(surroundings.tiers or {})

    def fill(self, table: FeatureTable, bars: pl.DataFrame, starts: IntArray) -> IntArray:
        """Put the features into a table; return how often the bars they come from were corrected.

        Args:
            table: where.
            bars: venue, symbol, ts, available_at and close of the rows' bars, sorted by series and time.
            starts: the first row of each series.
        """
        names = bars.select(SERIES)[starts].rows()
        series = list(zip(names, starts, np.append(starts[1:], bars.height), strict=True))
        of_venue = [((venue,), first, end) for (venue, _), first, end in series]
        rows = _Rows(
            read_only(bars["ts"].to_physical().to_numpy()),
            read_only(bars["available_at"].to_physical().to_numpy()),
            np.zeros(bars.height, np.int64),
        )
        self._fill_reference(table, rows, series)
        before = self._fine.seen(rows, series, ahead=_SECOND)
        change = 100.0 * (bars["close"].to_numpy() / before - 1.0)
        table.put("ret_5m", change, ~np.isfinite(change), Reason.NO_FINE_BARS)
        verdict = pl.Series(self._regimes.seen(rows, of_venue), nan_to_null=True).cast(pl.UInt32)
        table.put_text("regime_trend", self._verdicts["trend"].gather(verdict), Reason.NO_REGIME)
        table.put_text("regime_stress", self._verdicts["stress"].gather(verdict), Reason.NO_REGIME)
        self._fill_tier(table, series)
        return rows.corrections

    def _fill_reference(self, table: FeatureTable, rows: _Rows, series: Sequence[_Group]) -> None:
        """Changes of BTC up to the bar of the same time."""
        reference = [((), first, end) for _, first, end in series]
        now = self._reference.seen(rows, reference)
        for name, span in _CHANGES.items():
            change = 100.0 * (now / self._reference.seen(rows, reference, ahead=-span) - 1.0)
            table.put(name, change, ~np.isfinite(change), Reason.NO_REFERENCE)

    def _fill_tier(self, table: FeatureTable, series: Sequence[_Group]) -> None:
        """The tier of the coin."""
        tiers = [self._tiers.get(str(symbol).split("/")[0]) for (_, symbol), _, _ in series]
        of_row = np.repeat(np.arange(len(tiers)), [end - first for _, first, end in series])
        table.put_text("tier", pl.Series(tiers, dtype=pl.String).gather(of_row), Reason.NO_TIER)
