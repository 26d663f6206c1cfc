"""Binance's public dump files as a source of bars: the fastest way to years of history.

What belongs here: which files answer a request, and what they prove. What does not: where they are
(`dump_archives.py`), their columns and units (`bar_file_formats.py`).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import polars as pl

from tracker_pipeline.resources.bar_file_formats import collect, open_bar_file
from tracker_pipeline.resources.bar_source import (
    INSTRUMENT_COLUMNS,
    Capability,
    Fetched,
    MarketType,
    Outcome,
    bar_columns,
    bar_frame,
    checked_window,
    closed_window,
    failure,
)
from tracker_pipeline.resources.dump_archives import DumpArchive, DumpFile
from tracker_pipeline.resources.errors import PermanentError, PipelineError
from tracker_pipeline.resources.symbols import native_symbol, unified_symbol

_SOURCE: Final = "dump"
_DAY: Final = timedelta(days=1)
_PUBLISHED_AFTER: Final = timedelta(days=3)  # a day's file appears the next day, sometimes one or two later
_DAYS_WORTH_A_MONTH: Final = 8  # a month's file of minutes is 2 MB, a day's 70 kB and a request more
_WORKERS: Final = 4


class DumpSource:
    """Dump files of one market.

    Args:
        venue: ccxt exchange id of the venue that publishes them.
        market_type: spot or linear.
        archive: where they are.
    """

    def __init__(self, venue: str, market_type: MarketType, archive: DumpArchive) -> None:
        self.venue = venue
        self.market_type = market_type
        self._archive = archive

    def server_time(self) -> datetime:
        """The archive's clock."""
        return self._archive.now()

    def instruments(self) -> pl.DataFrame:
        """The symbols that there are files of; since when is not told."""
        rows = []
        for native in self._archive.natives():
            symbol = unified_symbol(native, self.market_type)
            if symbol is None:
                continue
            base, quote = symbol.split(":", maxsplit=1)[0].split("/")
            rows.append((self.venue, symbol, base, quote, native, self.market_type, None, None))
        return pl.DataFrame(rows, schema=INSTRUMENT_COLUMNS, orient="row").sort("symbol")

    def capability(self, timeframe: str) -> Capability:
        """Whole files, from the listing on."""
        bar_columns(timeframe)
        return Capability(page_bars=None, order="ascending")

    def bars_many(
        self, symbols: Sequence[str], timeframe: str, start: datetime, end: datetime
    ) -> dict[str, Fetched]:
        """Read the bars of several symbols; see `BarSource`."""
        checked_window(timeframe, start, end)
        try:
            now = self._archive.now()
        except PipelineError as error:
            return {symbol: failure(self.venue, symbol, timeframe, start, error) for symbol in symbols}
        ask = partial(self._ask, timeframe=timeframe, start=start, end=end, now=now)
        unique = list(dict.fromkeys(symbols))
        with ThreadPoolExecutor(min(_WORKERS, len(unique)) or 1) as pool:
            return dict(zip(unique, pool.map(ask, unique), strict=True))

    def close(self) -> None:
        """Give back connections."""
        self._archive.close()

    def _ask(self, symbol: str, *, timeframe: str, start: datetime, end: datetime, now: datetime) -> Fetched:
        first, stop = closed_window(timeframe, start, end, now)
        frame = bar_columns(timeframe).to_frame()
        try:
            native = native_symbol(symbol)
            files = self._archive.files(native, timeframe)
            if not files:
                raise PermanentError(
                    f"{self._archive.place} has no {timeframe} dump files of {native}; correct the symbol or the"
                    " market type, or take another source"
                )
            chosen = _chosen(files, first, stop)
            begin, finish = self._covered(chosen, first, stop, now)
            for file in chosen:
                with self._archive.opened(file) as path, open_bar_file(path) as raw:
                    rows = collect(raw.rows, path)
                found = rows.filter(pl.col("ts").is_between(begin, finish, closed="left"))
                identity = {"venue": self.venue, "symbol": symbol, "timeframe": timeframe}
                frame.extend(bar_frame(found, **identity, source=_SOURCE, fetched_at=now))
        except PipelineError as error:
            return failure(self.venue, symbol, timeframe, start, error)
        frame = frame.unique("ts", keep="last").sort("venue", "symbol", "ts")
        covered = (start if begin == first else begin, min(finish, end))
        outcome, text = (
            (Outcome.OK, "") if len(frame) else (Outcome.EMPTY, self._why(native, timeframe, files))
        )
        if covered[1] <= covered[0]:
            covered = (start, start)
        return Fetched(self.venue, symbol, timeframe, outcome, *covered, text, frame)

    def _covered(
        self, chosen: Sequence[DumpFile], first: datetime, stop: datetime, now: datetime
    ) -> tuple[datetime, datetime]:
        """The part of [first, stop) that the files answer for, up to the first day that is not there.

        The publisher's own archive answers for days that it has no file of, once they are old enough.
        """
        day = first.replace(hour=0, minute=0, second=0, microsecond=0)
        begin: datetime | None = None
        while day < stop:
            is_there = any(file.start <= day < file.end for file in chosen)
            if not is_there and self._archive.is_complete:
                is_there = day + _DAY + _PUBLISHED_AFTER <= now
            if is_there and begin is None:
                begin = max(day, first)
            if not is_there and begin is not None:
                return begin, min(day, stop)
            day += _DAY
        return (first, first) if begin is None else (begin, stop)

    def _why(self, native: str, timeframe: str, files: Sequence[DumpFile]) -> str:
        last = max(file.end for file in files)
        span = f"{files[0].start:%Y-%m-%d} to {last:%Y-%m-%d}"
        return f"{self._archive.place} has no {timeframe} bars of {native} in this window; its files are of {span}"


def _chosen(files: Sequence[DumpFile], first: datetime, stop: datetime) -> list[DumpFile]:
    """The fewest bytes that hold [first, stop): days where few are needed and there, months else."""
    chosen: list[DumpFile] = []
    months = {file.start: file for file in files if file.is_month}
    days = {file.start: file for file in files if not file.is_month}
    day = first.replace(hour=0, minute=0, second=0, microsecond=0)
    while day < stop:
        month = day.replace(day=1)
        following = (month + timedelta(days=32)).replace(day=1)
        wanted = [day + n * _DAY for n in range((min(following, _ceil_day(stop)) - day).days)]
        there = [days[one] for one in wanted if one in days]
        if month in months and (len(wanted) >= _DAYS_WORTH_A_MONTH or len(there) < len(wanted)):
            chosen.append(months[month])
        else:
            chosen += there
        day = following
    return chosen


def _ceil_day(moment: datetime) -> datetime:
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return day if day == moment else day + _DAY
