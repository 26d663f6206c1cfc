"""Massive's (formerly Polygon's) crypto aggregates as a source of bars.

Its limit counts base aggregates, minutes for everything up to hours: an answer ends after 50,000 of them, says "OK",
and goes on behind `next_url`. An interval without trades has no bar at all, so nothing in an answer shows that it is
short. Hence windows of 30 days at most, every continuation followed to the end, and what lies behind the last bar
asked for once more before it counts as empty.

What belongs here: the service's paths and fields. What does not: HTTP itself (`http_session.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import polars as pl
from pydantic import SecretStr

from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.resources.bar_source import (
    EPOCH,
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
from tracker_pipeline.resources.errors import PermanentError, PipelineError, TransientError
from tracker_pipeline.resources.http_session import HttpSession, NotFoundError

_SOURCE: Final = "massive"
_SPANS: Final = {
    "1m": (1, "minute"),
    "5m": (5, "minute"),
    "15m": (15, "minute"),
    "1h": (1, "hour"),
    "4h": (4, "hour"),
    "1d": (1, "day"),
}
_LIMIT: Final = 50_000
_LONGEST: Final = timedelta(days=30)  # 43,200 base minutes
_LONGEST_OF_DAYS: Final = timedelta(days=365)
_WORKERS: Final = 5
_ANSWERED: Final = ("OK", "DELAYED")  # DELAYED: a plan with old data only
_FIELDS: Final = {
    "o": "open",
    "h": "high",
    "l": "low",
    "c": "close",
    "v": "volume",
    "vw": "vwap",
    "n": "trades",
}
_ROWS: Final = pl.Schema(
    {
        "ts": pl.Int64(),
        **dict.fromkeys(("open", "high", "low", "close", "volume", "vwap"), pl.Float64()),
        "trades": pl.Int64(),
    }
)


class MassiveSource:
    """The aggregates of pairs quoted in US dollars and other currencies.

    Args:
        venue: name that the bars are stored under.
        market_type: spot; there is no other.
        url: of the service.
        api_key: sent as a header, so that it is part of no address.
        api_key_name: the variable that holds it, for messages.
        hosts: folder in which processes share what they know of hosts.
        timeout: of one request.
        requests_per_second: that the plan allows; None for an unlimited one.

    Raises:
        PermanentError: the market is not spot.
    """

    def __init__(
        self,
        venue: str,
        market_type: MarketType,
        *,
        url: str,
        api_key: SecretStr,
        api_key_name: str,
        hosts: Path | None = None,
        timeout: timedelta = timedelta(seconds=30),
        requests_per_second: float | None = None,
    ) -> None:
        if market_type != "spot":
            raise PermanentError(f"Massive has no {market_type} pairs; set market.market_type to spot")
        self.venue = venue
        self.market_type: MarketType = market_type
        self._session = HttpSession(
            "Massive",
            url,
            hosts=hosts,
            timeout=timeout,
            headers={"Authorization": f"Bearer {api_key.get_secret_value()}"},
            requests_per_second=requests_per_second,
            key_name=api_key_name,
        )

    def server_time(self) -> datetime:
        """The service's clock."""
        text = str(self._session.get_json("its clock", "/v1/marketstatus/now").get("serverTime"))
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = datetime.min  # noqa: DTZ901  # naive, as refused below
        if moment.tzinfo is None:
            raise TransientError(f"{self._session.place} does not tell the time; try again later")
        return moment.astimezone(UTC)

    def instruments(self) -> pl.DataFrame:
        """The active tickers; since when is not told."""
        query: dict[str, str | int] = {"market": "crypto", "active": "true", "limit": 1000}
        rows = []
        for document in self._pages("the list of tickers", "/v3/reference/tickers", query):
            for one in document.get("results") or ():
                base, quote = one.get("base_currency_symbol"), one.get("currency_symbol")
                if base and quote:
                    symbol = f"{base}/{quote}"
                    row = (self.venue, symbol, base, quote, one["ticker"], self.market_type, None, None)
                    rows.append(row)
        if not rows:
            raise TransientError(f"{self._session.place} lists no tickers; try again later")
        return pl.DataFrame(rows, schema=INSTRUMENT_COLUMNS, orient="row").unique("symbol").sort("symbol")

    def capability(self, timeframe: str) -> Capability:
        """What one request may ask for."""
        step = duration(timeframe)
        base = timedelta(days=1) if timeframe == "1d" else timedelta(minutes=1)
        return Capability(
            page_bars=int(_LIMIT / (step / base)),
            order="ascending",
            longest_window=_LONGEST_OF_DAYS if timeframe == "1d" else _LONGEST,
            requests_per_second=self._session.requests_per_second,
            is_sparse=True,
        )

    def bars_many(
        self, symbols: Sequence[str], timeframe: str, start: datetime, end: datetime
    ) -> dict[str, Fetched]:
        """Fetch the bars of several symbols side by side; see `BarSource`."""
        checked_window(timeframe, start, end)
        try:
            asked_at = self.server_time()
        except PipelineError as error:
            return {symbol: failure(self.venue, symbol, timeframe, start, error) for symbol in symbols}
        ask = partial(self._ask, timeframe=timeframe, start=start, end=end, asked_at=asked_at)
        unique = list(dict.fromkeys(symbols))
        with ThreadPoolExecutor(min(_WORKERS, len(unique)) or 1) as pool:
            return dict(zip(unique, pool.map(ask, unique), strict=True))

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _ask(
        self, symbol: str, *, timeframe: str, start: datetime, end: datetime, asked_at: datetime
    ) -> Fetched:
        first, stop = closed_window(timeframe, start, end, asked_at)
        longest = self.capability(timeframe).longest_window or stop - first
        frame, done_to = bar_columns(timeframe).to_frame(), first
        identity = {"venue": self.venue, "symbol": symbol, "timeframe": timeframe}
        try:
            while done_to < stop:
                right = min(done_to + longest, stop)
                rows = self._window(symbol, timeframe, done_to, right)
                frame.extend(bar_frame(rows, **identity, source=_SOURCE, fetched_at=asked_at))
                done_to = right
        except PipelineError as error:
            reached = max(start, done_to)
            return failure(self.venue, symbol, timeframe, start, error, covered_to=reached, _frame=frame)
        covered_to = max(start, min(stop, end))
        if len(frame):
            return Fetched(self.venue, symbol, timeframe, Outcome.OK, start, covered_to, "", frame)
        text = f"{self.venue} has no {timeframe} bars of {symbol} in this window"
        return Fetched(self.venue, symbol, timeframe, Outcome.EMPTY, start, covered_to, text, frame)

    def _window(self, symbol: str, timeframe: str, left: datetime, right: datetime) -> pl.DataFrame:
        """The bars of one window, asked on from the last bar until nothing more comes."""
        found, step = _ROWS.to_frame(), duration(timeframe)
        begin, empty = left, 0
        while begin < right:
            rows = self._answers(symbol, timeframe, begin, right)
            last = rows["ts"].max()
            if not isinstance(last, int):
                empty += 1
                if len(found) or empty > 1:  # behind a known bar one empty answer is proof, else it takes two
                    break
                continue
            found.extend(rows)
            begin = EPOCH + timedelta(milliseconds=last) + step
        return found.with_columns(pl.from_epoch("ts", time_unit="ms").dt.replace_time_zone("UTC"))

    def _answers(self, symbol: str, timeframe: str, left: datetime, right: datetime) -> pl.DataFrame:
        """The rows that open in [left, right) of an answer and all its continuations."""
        multiplier, span = _SPANS[timeframe]
        first, stop = (int((edge - EPOCH) / timedelta(milliseconds=1)) for edge in (left, right))
        path = f"/v2/aggs/ticker/X:{symbol.replace('/', '')}/range/{multiplier}/{span}/{first}/{stop - 1}"
        what = f"{timeframe} bars of {symbol} from {left:%Y-%m-%d %H:%M} to {right:%Y-%m-%d %H:%M}"
        query: dict[str, str | int] = {"adjusted": "true", "sort": "asc", "limit": _LIMIT}
        rows: list[dict[str, Any]] = []
        try:
            for document in self._pages(what, path, query):
                rows += _bars_of(document, self._session.place, what)
        except NotFoundError:
            raise PermanentError(
                f"{self._session.place} does not know {symbol}; correct the symbol or the quote currency"
            ) from None
        return pl.DataFrame(rows, schema=_ROWS).filter(pl.col("ts").is_between(first, stop - 1))

    def _pages(self, what: str, path: str, query: Mapping[str, str | int]) -> Iterator[dict[str, Any]]:
        """An answer and what it continues with, to the end."""
        followed: set[str] = set()
        document = self._session.get_json(what, path, query)
        while True:
            if document.get("status") not in _ANSWERED:
                reason = " ".join(
                    str(document.get("error") or document.get("message") or "no status").split()
                )
                raise TransientError(
                    f"{self._session.place} refused {what} ({reason[:200]}); try again later"
                )
            yield document
            following = document.get("next_url")
            if not following:
                return
            if following in followed:
                raise TransientError(f"{self._session.place} continues {what} in a circle; try again later")
            followed.add(following)
            document = self._session.get_json(what, following)


def _bars_of(document: Mapping[str, Any], place: str, what: str) -> list[dict[str, Any]]:
    """The rows of one answer.

    Raises:
        TransientError: it says that it has bars and holds none, or they are none.
    """
    results = document.get("results") or []
    try:
        if len(results) != document.get("resultsCount", len(results)):
            raise ValueError("not as many bars as it says")
        return [
            {"ts": int(one["t"]), **{name: one.get(key) for key, name in _FIELDS.items()}} for one in results
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TransientError(
            f"{place} answered for {what} in a form that cannot be read ({type(error).__name__}); try again later"
        ) from None
