"""Features that come from other series at the moment of a bar: BTC's 15m bars, 5m bars, the regime, the universe.

What belongs here: one function per such feature or group of them, and what was known when. What does not: features of
a series' own 15m bars (`feature_formulas.py`) and of whole days (`feature_context.py`).

A bar of another series is seen by a row only if it was available when the row was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.bar_grid import SERIES, known_bars, series_starts
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


@dataclass(frozen=True)
class _Line:
    """Figures of one series by slot of 15m, and since when each is known; one slot more, empty, stands for the rest.

    Attributes:
        first: slot of the first place.
        value: the figure, NaN or 0 where there is none.
        corrections: revisions beyond the first.
        known_us: microseconds since 1970.
    """

    first: int
    value: FloatArray
    corrections: IntArray
    known_us: IntArray

    @classmethod
    def of(cls, slot: IntArray, value: FloatArray, known_us: IntArray, revision: IntArray) -> "_Line":
        first, size = (int(slot[0]), int(slot[-1] - slot[0]) + 1) if len(slot) else (0, 0)
        line = cls(
            first, np.full(size + 1, np.nan), np.zeros(size + 1, np.int64), np.zeros(size + 1, np.int64)
        )
        place = slot - first
        line.value[place], line.corrections[place], line.known_us[place] = value, revision - 1, known_us
        return line

    def at(self, slots: IntArray) -> IntArray:
        """Where these slots are."""
        outside, place = len(self.value) - 1, slots - self.first
        place[(place < 0) | (place >= outside)] = outside
        return place

    def add_seen(self, slots: IntArray, known_us: IntArray, value: FloatArray, corrections: IntArray) -> None:
        """Store the figures at some slots, NaN where known later than given, and add up their corrections."""
        from tracker_pipeline.domain.slot_lookup import look_up  # imports numba

        look_up(
            (self.first, self.value, self.corrections, self.known_us), slots, known_us, value, corrections
        )

    def change(self, bars: int) -> "_Line":
        """Change over a number of bars in percent, known when both ends are; with the corrections of the first."""
        before = self.at(np.arange(len(self.value)) + self.first - bars)
        value = 100.0 * (self.value / self.value[before] - 1.0)
        known_us = np.maximum(self.known_us, self.known_us[before])
        return _Line(self.first, value, self.corrections[before], known_us)


def _lines(bars: pl.DataFrame, value: FloatArray, keys: Sequence[str]) -> dict[tuple[object, ...], _Line]:
    """A line for each series of bars sorted by series and time."""
    slot = bars["ts"].to_physical().to_numpy() // _BAR_US
    known_us = bars["available_at"].to_physical().to_numpy()
    one = np.ones(bars.height, np.int64)
    revision = bars["revision"].cast(pl.Int64).to_numpy() if "revision" in bars.columns else one
    starts = series_starts(bars, keys) if keys else np.zeros(min(1, bars.height), np.int64)
    names = bars.select(keys)[starts].rows() if keys else [()] * len(starts)
    ends = np.append(starts[1:], bars.height)
    return {
        name: _Line.of(slot[first:end], value[first:end], known_us[first:end], revision[first:end])
        for name, first, end in zip(names, starts, ends, strict=True)
    }


# Name, first row and end of the rows that look at one line.
_Group = tuple[tuple[object, ...], int, int]
_EMPTY: Final = _Line(0, np.full(1, np.nan), np.zeros(1, np.int64), np.zeros(1, np.int64))


class Beside:
    """Surroundings laid out for the rows of some bars.

    Args:
        surroundings: what was given.
        as_of: moment of knowledge; None knows everything given.

    Raises:
        ValueError: bars are malformed, or those of the reference are of several series.
    """

    def __init__(self, surroundings: Surroundings, as_of: datetime | None) -> None:
        given = surroundings
        reference = _EMPTY
        if given.reference_15m is not None and given.reference_15m.height:
            bars = one_series(given.reference_15m).pipe(
                known_bars, "15m", columns=("close",), key=(), as_of=as_of
            )
            reference = _lines(bars, bars["close"].to_numpy(), ()).get((), _EMPTY)
        self._reference = reference
        self._changes = {name: reference.change(bars) for name, bars in _CHANGES.items()}
        self._fine: dict[tuple[object, ...], _Line] = {}
        if given.fine_bars is not None and given.fine_bars.height:
            bars = known_bars(given.fine_bars, "5m", columns=("close",), as_of=as_of)
            # Whole numbers: to ask each time for its minute costs six times as much.
            second = bars["ts"].to_physical() % _BAR_US == _SECOND // _MICROSECOND
            bars = bars if second.all() else bars.filter(second)
            self._fine = _lines(bars, bars["close"].to_numpy(), SERIES)
        self._verdicts = pl.DataFrame(schema={"trend": pl.String, "stress": pl.String})
        self._regimes: dict[tuple[object, ...], _Line] = {}
        if given.regimes is not None and given.regimes.height:
            self._judge(known_bars(given.regimes, "15m", columns=(), key=("venue",), as_of=as_of))
        self._tiers = dict(given.tiers or {})

    def _judge(self, regimes: pl.DataFrame) -> None:
        """Number the pairs of verdicts, so that a row's is a number on a line."""
        pairs = regimes.select("trend", "stress")
        self._verdicts = pairs.unique().sort(pl.all())
        number = pairs.join(
            self._verdicts.with_row_index("number"), on=["trend", "stress"], maintain_order="left"
        )["number"]
        self._regimes = _lines(regimes, number.cast(pl.Float64).to_numpy(), ("venue",))

    def fill(self, table: FeatureTable, rows: pl.DataFrame, starts: IntArray) -> IntArray:
        """Put the features into a table; return how often the bars they come from were corrected.

        Args:
            table: where.
            rows: venue, symbol, ts, available_at and close of the rows' bars, sorted by series and time.
            starts: the first row of each series.
        """
        names = rows.select(SERIES)[starts].rows()
        series = list(zip(names, starts, np.append(starts[1:], rows.height), strict=True))
        # Sorted, so the rows of a venue stand together.
        venues = [(venue, [*same]) for venue, same in groupby(series, lambda group: group[0][:1])]
        of_venue = [(venue, same[0][1], same[-1][2]) for venue, same in venues]
        slots = rows["ts"].to_physical().to_numpy() // _BAR_US
        known_us = rows["available_at"].to_physical().to_numpy()
        corrections = self._fill_reference(table, slots, known_us)
        before, corrected = _of_groups(self._fine, series, slots, known_us)
        change = 100.0 * (rows["close"].to_numpy() / before - 1.0)
        table.put("ret_5m", change, ~np.isfinite(change), Reason.NO_FINE_BARS)
        number, _ = _of_groups(self._regimes, of_venue, slots, known_us)
        verdict = pl.Series(number, nan_to_null=True).cast(pl.UInt32)
        table.put_text("regime_trend", self._verdicts["trend"].gather(verdict), Reason.NO_REGIME)
        table.put_text("regime_stress", self._verdicts["stress"].gather(verdict), Reason.NO_REGIME)
        self._fill_tier(table, series)
        return corrections + corrected

    def _fill_reference(self, table: FeatureTable, slots: IntArray, known_us: IntArray) -> IntArray:
        """Changes of BTC up to the bar of the same time."""
        values, corrections = np.empty(len(slots)), np.zeros(len(slots), np.int64)
        self._reference.add_seen(slots, known_us, values, corrections)
        for name, line in self._changes.items():
            line.add_seen(slots, known_us, values, corrections)
            table.put(name, values, ~np.isfinite(values), Reason.NO_REFERENCE)
        return corrections

    def _fill_tier(self, table: FeatureTable, series: Sequence[_Group]) -> None:
        """The tier of the coin."""
        tiers = [self._tiers.get(str(symbol).split("/")[0]) for (_, symbol), _, _ in series]
        of_row = np.repeat(np.arange(len(tiers)), [end - first for _, first, end in series])
        table.put_text("tier", pl.Series(tiers, dtype=pl.String).gather(of_row), Reason.NO_TIER)


def _of_groups(
    lines: Mapping[tuple[object, ...], _Line], groups: Sequence[_Group], slots: IntArray, known_us: IntArray
) -> tuple[FloatArray, IntArray]:
    """What each row sees on the line of its group, and how often that was corrected."""
    value, corrections = np.full(len(slots), np.nan), np.zeros(len(slots), np.int64)
    for name, first, end in groups:
        if name in lines:
            part = slice(first, end)
            lines[name].add_seen(slots[part], known_us[part], value[part], corrections[part])
    return value, corrections
