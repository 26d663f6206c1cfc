"""Parquet, CSV and Feather files as a source of bars.

What belongs here: which files answer a request and how far they reach. What does not: reading and judging a file
(`bar_files.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Final

import polars as pl

from tracker_pipeline.domain.timeframes import TIMEFRAMES, duration
from tracker_pipeline.resources.bar_files import BarFileOptions, FileBars, read_bar_file
from tracker_pipeline.resources.bar_source import (
    INSTRUMENT_COLUMNS,
    Capability,
    Fetched,
    MarketType,
    Outcome,
    bar_columns,
    checked_window,
    failure,
)
from tracker_pipeline.resources.errors import PermanentError, PipelineError
from tracker_pipeline.resources.symbols import native_symbol

_SUFFIXES: Final = (".parquet", ".csv", ".csv.gz", ".zip", ".feather", ".arrow", ".ipc")


@dataclass(frozen=True)
class _Extent:
    """What a file holds of one symbol and timeframe: its bars open in [first, end)."""

    path: Path
    first: datetime
    end: datetime


class FileSource:
    """Bar files, by the symbols and times in them.

    What a file does not hold is not known to be absent: an answer covers what lies between a symbol's first and last
    proven bar and nothing else. The files are read once to see what is in them, then only those that are needed.

    Args:
        venue: ccxt exchange id; bars of files that say another are left out.
        market_type: spot or linear.
        paths: files, and folders whose files are taken.

    Raises:
        PermanentError: a path is not there, or there is no bar file at all.
    """

    def __init__(self, venue: str, market_type: MarketType, paths: Sequence[Path]) -> None:
        self.venue = venue
        self.market_type = market_type
        self._paths = _bar_files(paths)

    def server_time(self) -> datetime:
        """Our own clock; whether a bar is closed is judged by the file."""
        return datetime.now(UTC)

    def instruments(self) -> pl.DataFrame:
        """The symbols in the files; since when they were listed is not told by a file."""
        rows = []
        for symbol in sorted({symbol for symbol, _ in self._index}):
            base, quote = symbol.split(":", maxsplit=1)[0].split("/")
            native = native_symbol(symbol)
            rows.append((self.venue, symbol, base, quote, native, self.market_type, None, None))
        return pl.DataFrame(rows, schema=INSTRUMENT_COLUMNS, orient="row")

    def capability(self, timeframe: str) -> Capability:
        """Whole files."""
        duration(timeframe)
        firsts = [extent.first for (_, tf), all_ in self._index.items() if tf == timeframe for extent in all_]
        return Capability(page_bars=None, order="any", oldest=min(firsts, default=None))

    def bars_many(
        self, symbols: Sequence[str], timeframe: str, start: datetime, end: datetime
    ) -> dict[str, Fetched]:
        """Read the bars of several symbols; see `BarSource`."""
        checked_window(timeframe, start, end)
        try:
            index = self._index
            needed = {
                extent.path
                for symbol in symbols
                for extent in index.get((symbol, timeframe), ())
                if extent.first < end and extent.end > start
            }
            within = pl.col("ts").is_between(start, end, closed="left") & pl.col("symbol").is_in(
                list(symbols)
            )
            parts = [
                part.frame.filter(within)
                for path in self._paths
                if path in needed
                for part in self._ours(path)
                if part.timeframe == timeframe
            ]
        except PipelineError as error:
            return {symbol: failure(self.venue, symbol, timeframe, start, error) for symbol in symbols}
        nothing = bar_columns(timeframe).to_frame()
        bars = (
            pl.concat([nothing, *parts]).unique(["symbol", "ts"], keep="last").sort("venue", "symbol", "ts")
        )
        by_symbol = {str(key[0]): frame for key, frame in bars.group_by("symbol", maintain_order=True)}
        return {
            symbol: self._answer(symbol, timeframe, start, end, by_symbol.get(symbol, nothing))
            for symbol in symbols
        }

    def close(self) -> None:
        """Nothing is open."""

    def _answer(
        self, symbol: str, timeframe: str, start: datetime, end: datetime, frame: pl.DataFrame
    ) -> Fetched:
        extents = self._index.get((symbol, timeframe))
        if extents is None:
            error = PermanentError(
                f"the files hold no {timeframe} bars of {symbol}; add some, or take another source"
            )
            return failure(self.venue, symbol, timeframe, start, error)
        first, last = min(one.first for one in extents), max(one.end for one in extents)
        covered = max(start, first), min(end, last)
        if len(frame):
            return Fetched(self.venue, symbol, timeframe, Outcome.OK, *covered, "", frame)
        if covered[1] <= covered[0]:
            covered = start, start
        text = (
            f"the files hold no {timeframe} bars of {symbol} in this window; theirs are of"
            f" {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"
        )
        return Fetched(self.venue, symbol, timeframe, Outcome.EMPTY, *covered, text, frame)

    def _ours(self, path: Path) -> Iterator[FileBars]:
        """The parts of a file that are of this venue and market and one of our timeframes."""
        options = BarFileOptions(venue=self.venue, market_type=self.market_type)
        is_linear = pl.col("symbol").str.contains(":", literal=True)
        ours = (pl.col("venue") == self.venue) & (is_linear == (self.market_type == "linear"))
        for part in read_bar_file(path, options):
            if part.timeframe in TIMEFRAMES:
                yield FileBars(
                    part.path, part.timeframe, part.frame.filter(ours), part.left_out, part.complete
                )

    @cached_property
    def _index(self) -> dict[tuple[str, str], list[_Extent]]:
        found: dict[tuple[str, str], list[_Extent]] = {}
        for path in self._paths:
            for part in self._ours(path):
                spans = part.frame.group_by("symbol").agg(first=pl.col("ts").min(), last=pl.col("ts").max())
                for symbol, first, last in spans.select("symbol", "first", "last").iter_rows():
                    extent = _Extent(path, first, last + duration(part.timeframe))
                    found.setdefault((symbol, part.timeframe), []).append(extent)
        return found


def _bar_files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        place = path.expanduser()
        if not place.exists():
            raise PermanentError(f"there is no file or folder {place}; correct market.source.paths")
        inside = sorted(place.rglob("*")) if place.is_dir() else [place]
        found += [one for one in inside if one.name.lower().endswith(_SUFFIXES)]
    if not found:
        raise PermanentError(
            f"there is no bar file ({', '.join(_SUFFIXES)}) in {', '.join(map(str, paths))};"
            " correct market.source.paths"
        )
    return list(dict.fromkeys(found))
