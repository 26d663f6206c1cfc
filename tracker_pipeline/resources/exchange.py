"""Closed bars, listings and the clock of one exchange.

What belongs here: what is asked of an exchange and how answers become frames. What does not: ccxt's ways
(`ccxt_session.py`), pages (`bar_pages.py`), whether bars are sane and what is done about holes (`domain.bars`,
the assets).
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import partial
from typing import Any, Final, Literal

import polars as pl

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.domain.timeframes import GRACE, available_at, duration
from tracker_pipeline.resources.bar_pages import EPOCH, BarPages, moment_of
from tracker_pipeline.resources.ccxt_session import CcxtSession
from tracker_pipeline.resources.errors import PermanentError, PipelineError, TransientError

MarketType = Literal["spot", "linear"]

# What storage adds to a bar when it writes it.
_STORAGE_COLUMNS: Final = ("revision", "run_id")
_SOURCE: Final = "rest"

INSTRUMENT_COLUMNS: Final = pl.Schema(
    {
        **dict.fromkeys(("venue", "symbol", "base", "quote", "native_symbol", "market_type"), pl.String()),
        **dict.fromkeys(("listed_from", "listed_to"), pl.Datetime("us", "UTC")),
    }
)


class Outcome(Enum):
    """How a request for bars ended."""

    OK = "ok"
    EMPTY = "empty"  # the venue confirmed that it has no bars there
    RETRYABLE = "retryable"
    FATAL = "fatal"


@dataclass(frozen=True)
class Fetched:
    """The end of one request for the bars of one symbol.

    A failure carries its message, and asking it for a frame raises: it cannot be taken for an empty answer.

    Attributes:
        venue: ccxt exchange id.
        symbol: unified symbol.
        timeframe: of the bars.
        outcome: how it ended.
        covered_from: beginning of what the venue answered for; later than asked where it does not reach back
            that far.
        covered_to: end of what it answered for: the asked end, or where bars were not yet closed. A bar of
            [covered_from, covered_to) that is not in the frame does not exist at the venue.
        message: one sentence on a failure or an empty answer, else empty.
    """

    venue: str
    symbol: str
    timeframe: str
    outcome: Outcome
    covered_from: datetime
    covered_to: datetime
    message: str = ""
    _frame: pl.DataFrame = field(default_factory=pl.DataFrame, repr=False)

    @property
    def frame(self) -> pl.DataFrame:
        """The closed bars: the bar table's columns without revision and run_id, sorted by key.

        Raises:
            TransientError: the request failed and may work later.
            PermanentError: the request failed and would fail again.
        """
        if self.outcome is Outcome.RETRYABLE:
            raise TransientError(self.message)
        if self.outcome is Outcome.FATAL:
            raise PermanentError(self.message)
        return self._frame


class Exchange:
    """A read-only client of one exchange's public market data.

    Args:
        venue: ccxt exchange id.
        market_type: `spot`, or `linear` for perpetuals margined in the quote currency.
        url: scheme and host to use in place of the venue's own, such as http://127.0.0.1:8000.
        timeout: of one request.
        workers: symbols that `bars_many` fetches at once.

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
    ) -> None:
        self.venue = venue
        self.market_type = market_type
        self._workers = workers
        self._session = CcxtSession(venue, market_type, url, timeout)

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
        if start.tzinfo is None or end.tzinfo is None:
            raise ValueError(f"the window must be of aware times, not {start} to {end}")
        duration(timeframe)
        try:
            asked_at = self.server_time()
            self._session.markets()
        except PipelineError as error:
            return {symbol: self._failure(symbol, timeframe, start, error) for symbol in symbols}
        ask = partial(self._ask, timeframe=timeframe, start=start, end=end, asked_at=asked_at)
        unique = list(dict.fromkeys(symbols))
        with ThreadPoolExecutor(min(self._workers, len(unique)) or 1) as pool:
            return dict(zip(unique, pool.map(ask, unique), strict=True))

    def _ask(
        self, symbol: str, *, timeframe: str, start: datetime, end: datetime, asked_at: datetime
    ) -> Fetched:
        step = duration(timeframe)
        first, stop = _ceil(start, step), _ceil(end, step)
        stop = min(stop, _floor(asked_at - GRACE[timeframe], step))  # that one is not closed yet
        if stop <= first:
            empty = _frame([], self.venue, symbol, timeframe, asked_at)
            text = f"{self.venue}: no {timeframe} bar of {symbol} is closed in this window yet"
            return Fetched(self.venue, symbol, timeframe, Outcome.EMPTY, start, start, text, empty)
        pages = BarPages(self._session, symbol, timeframe)
        try:
            rows = list(pages.rows(first, stop))
        except PipelineError as error:
            return self._failure(symbol, timeframe, start, error)
        if pages.out_of_reach_to >= stop:
            text = f"{self.venue} serves no {timeframe} bars of {symbol} from before {stop:%Y-%m-%d %H:%M}"
            return self._failure(
                symbol, timeframe, start, PermanentError(f"{text}; import bar files for them")
            )
        frame = _frame(rows, self.venue, symbol, timeframe, asked_at)
        outcome = Outcome.EMPTY if frame.is_empty() else Outcome.OK
        text = f"{self.venue} has no {timeframe} bars of {symbol} in this window" if not len(frame) else ""
        covered_from = max(start, pages.out_of_reach_to)
        return Fetched(self.venue, symbol, timeframe, outcome, covered_from, min(stop, end), text, frame)

    def _failure(self, symbol: str, timeframe: str, start: datetime, error: PipelineError) -> Fetched:
        outcome = Outcome.RETRYABLE if isinstance(error, TransientError) else Outcome.FATAL
        return Fetched(self.venue, symbol, timeframe, outcome, start, start, str(error))

    def _is_ours(self, market: dict[str, Any]) -> bool:
        if self.market_type == "spot":
            return bool(market.get("spot"))
        return bool(market.get("swap") and market.get("linear"))


def _frame(
    rows: Iterable[list[Any]], venue: str, symbol: str, timeframe: str, asked_at: datetime
) -> pl.DataFrame:
    """Rows of ccxt as bars; where pages overlap, the row that was fetched last holds."""
    values = ("open", "high", "low", "close", "volume")
    schema = {"ts": pl.Int64(), **dict.fromkeys(values, pl.Float64())}
    declared = {c.name: c.type.polars for c in BARS[timeframe].columns if c.name not in _STORAGE_COLUMNS}
    opened = pl.from_epoch("ts", time_unit="ms").dt.replace_time_zone("UTC").cast(declared["ts"])
    known = {
        "venue": pl.lit(venue),
        "symbol": pl.lit(symbol),
        "ts": opened,
        **{name: pl.col(name) for name in values},
        "source": pl.lit(_SOURCE),
        "fetched_at": pl.lit(asked_at),
        "available_at": opened + (available_at(EPOCH, timeframe) - EPOCH),
    }
    return (
        pl.DataFrame(list(rows), schema=schema, orient="row")
        .unique("ts", keep="last", maintain_order=True)
        .select(known.get(name, pl.lit(None)).cast(dtype).alias(name) for name, dtype in declared.items())
        .sort("venue", "symbol", "ts")
    )


def _server_time(client: Any) -> datetime:
    if client.has.get("fetchTime"):
        return moment_of(client.fetch_time())
    client.load_markets(reload=True)  # any answer carries the server's time to the second
    return parsedate_to_datetime(client.last_response_headers["Date"]).astimezone(UTC)


def _floor(moment: datetime, step: timedelta) -> datetime:
    return EPOCH + (moment - EPOCH) // step * step


def _ceil(moment: datetime, step: timedelta) -> datetime:
    return EPOCH - (EPOCH - moment) // step * step


def _known_moment(ms: int | None) -> datetime | None:
    return None if ms is None else moment_of(ms)
