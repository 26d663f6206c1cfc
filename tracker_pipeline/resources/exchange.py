"""Closed bars, listings and the clock of one exchange.

What belongs here: what is asked of an exchange and how answers become frames. What does not: ccxt's ways
(`ccxt_session.py`), pages (`bar_pages.py`), whether bars are sane and what is done about holes (`domain.bars`,
the assets).
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import polars as pl

from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.resources.bar_pages import DEFAULT_PAGE_BARS, BarPages, moment_of
from tracker_pipeline.resources.bar_source import (
    INSTRUMENT_COLUMNS,
    Capability,
    Fetched,
    MarketType,
    Outcome,
    bar_frame,
    checked_window,
    closed_window,
    failure,
)
from tracker_pipeline.resources.ccxt_session import CcxtSession
from tracker_pipeline.resources.errors import PermanentError, PipelineError

_SOURCE: Final = "rest"
# Venues that serve no more than this many bars back from now, whatever is asked for.
_REACH_BARS: Final = {"kraken": 720, "hyperliquid": 5000}


class Exchange:
    """A read-only client of one exchange's public market data.

    Args:
        venue: ccxt exchange id.
        market_type: `spot`, or `linear` for perpetuals margined in the quote currency.
        url: scheme and host to use in place of the venue's own, such as http://127.0.0.1:8000.
        timeout: of one request.
        workers: symbols that `bars_many` fetches at once.
        hosts: folder in which processes share what they know of hosts; without one, this client is alone.

    Raises:
        PermanentError: ccxt knows no such exchange.
    """

    def __init__(
        self,
        venue: str,
        market_type: MarketType,
        *,
        url: str | None = None,
        timeout: timedelta = timedelta(seconds=30),
        workers: int = 5,
        hosts: Path | None = None,
    ) -> None:
        self.venue = venue
        self.market_type = market_type
        self._workers = workers
        self._session = CcxtSession(venue, market_type, url, timeout, hosts)

    def server_time(self) -> datetime:
        """The exchange's clock, UTC.

        Raises:
            TransientError: it did not answer.
            PermanentError: it refuses to.
        """
        return self._session.call("its clock", _server_time)

    def instruments(self) -> pl.DataFrame:
        """What the exchange lists: `INSTRUMENT_COLUMNS`, sorted by symbol; times it does not tell are null.

        Raises:
            TransientError: it did not answer.
            PermanentError: it refuses to.
        """
        kept = (market for market in self._session.markets(reload=True).values() if self._is_ours(market))
        rows = [
            {
                "venue": self.venue,
                "symbol": market["symbol"],
                "base": market["base"],
                "quote": market["quote"],
                "native_symbol": market["id"],
                "market_type": self.market_type,
                "listed_from": _known_moment(market.get("created")),
                "listed_to": _known_moment(market.get("expiry")),
            }
            for market in kept
        ]
        return pl.DataFrame(rows, schema=INSTRUMENT_COLUMNS).sort("symbol")

    def capability(self, timeframe: str) -> Capability:
        """What ccxt knows of the venue's limits for bars."""
        return Capability(
            page_bars=self._session.page_size(None, DEFAULT_PAGE_BARS),
            order="any",  # each venue has its own, and pages are sorted here
            oldest=self._oldest(timeframe, datetime.now(UTC)),
            requests_per_second=self._session.requests_per_second,
        )

    def close(self) -> None:
        """Nothing to give back: ccxt's connections end with the process."""

    def bars(self, symbol: str, timeframe: str, start: datetime, end: datetime) -> Fetched:
        """Fetch the closed bars that open in [start, end).

        Closed is judged by the exchange's clock, read before the first bar is asked for, with the timeframe's
        grace. Never raises for a failure of the exchange; see `Fetched`.

        Args:
            symbol: unified symbol.
            timeframe: one of ours.
            start: aware.
            end: aware, exclusive.
        """
        return self.bars_many([symbol], timeframe, start, end)[symbol]

    def bars_many(
        self, symbols: Sequence[str], timeframe: str, start: datetime, end: datetime
    ) -> dict[str, Fetched]:
        """Fetch the bars of several symbols side by side; one symbol's failure leaves the others alone.

        Raises:
            ValueError: a time is naive or the timeframe is not one of ours.
        """
        checked_window(timeframe, start, end)
        try:
            asked_at = self.server_time()
            self._session.markets()
        except PipelineError as error:
            return {symbol: failure(self.venue, symbol, timeframe, start, error) for symbol in symbols}
        ask = partial(self._ask, timeframe=timeframe, start=start, end=end, asked_at=asked_at)
        unique = list(dict.fromkeys(symbols))
        with ThreadPoolExecutor(min(self._workers, len(unique)) or 1) as pool:
            return dict(zip(unique, pool.map(ask, unique), strict=True))

    def _ask(
        self, symbol: str, *, timeframe: str, start: datetime, end: datetime, asked_at: datetime
    ) -> Fetched:
        first, stop = closed_window(timeframe, start, end, asked_at)
        if stop <= first:
            empty = _frame([], self.venue, symbol, timeframe, asked_at)
            text = f"{self.venue}: no {timeframe} bar of {symbol} is closed in this window yet"
            return Fetched(self.venue, symbol, timeframe, Outcome.EMPTY, start, start, text, empty)
        pages = BarPages(self._session, symbol, timeframe)
        rows: list[list[Any]] = []
        try:
            for page in pages.windows(first, stop):
                rows += page
            if pages.out_of_reach_to >= stop:
                text = (
                    f"{self.venue} serves no {timeframe} bars of {symbol} from before {stop:%Y-%m-%d %H:%M}"
                )
                raise PermanentError(f"{text}; import bar files for them")
        except PipelineError as error:
            frame = _frame(rows, self.venue, symbol, timeframe, asked_at)
            reached = {
                "covered_from": max(start, pages.out_of_reach_to),
                "covered_to": max(start, pages.done_to),
            }
            return failure(self.venue, symbol, timeframe, start, error, **reached, _frame=frame)
        frame = _frame(rows, self.venue, symbol, timeframe, asked_at)
        outcome = Outcome.EMPTY if frame.is_empty() else Outcome.OK
        text = f"{self.venue} has no {timeframe} bars of {symbol} in this window" if not len(frame) else ""
        covered_from = max(start, pages.out_of_reach_to, self._oldest(timeframe, asked_at) or start)
        return Fetched(self.venue, symbol, timeframe, outcome, covered_from, min(stop, end), text, frame)

    def _oldest(self, timeframe: str, now: datetime) -> datetime | None:
        """The earliest open that the venue serves, where it reaches back by a number of bars."""
        reach = _REACH_BARS.get(self.venue)
        return None if reach is None else now - reach * duration(timeframe)

    def _is_ours(self, market: dict[str, Any]) -> bool:
        if self.market_type == "spot":
            return bool(market.get("spot"))
        return bool(market.get("swap") and market.get("linear"))


def _frame(
    rows: Iterable[list[Any]], venue: str, symbol: str, timeframe: str, asked_at: datetime
) -> pl.DataFrame:
    """Rows of ccxt as bars."""
    schema = {"ts": pl.Int64(), **dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64())}
    opened = pl.from_epoch("ts", time_unit="ms").dt.replace_time_zone("UTC")
    return bar_frame(
        pl.DataFrame(list(rows), schema=schema, orient="row").with_columns(opened),
        venue=venue,
        symbol=symbol,
        timeframe=timeframe,
        source=_SOURCE,
        fetched_at=asked_at,
    )


def _server_time(client: Any) -> datetime:
    if client.has.get("fetchTime"):
        return moment_of(client.fetch_time())
    client.load_markets(reload=True)  # any answer carries the server's time to the second
    return parsedate_to_datetime(client.last_response_headers["Date"]).astimezone(UTC)


def _known_moment(ms: int | None) -> datetime | None:
    return None if ms is None else moment_of(ms)
