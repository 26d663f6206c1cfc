"""An exchange on this machine that speaks the public part of Bybit's v5 REST and WebSocket API.

What belongs here: routes, parameters and errors. What does not: the market behind them (`market.py`,
`replay.py`), the shape of answers (`bybit.py`) and what the WebSocket pushes (`streams.py`).

Spot and linear (perpetual) symbols are listed side by side with the same prices. What can be wrong with it is
switched in `faults.py`.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Final

from aiohttp import web

from tracker_pipeline.sandbox import bybit
from tracker_pipeline.sandbox.fault_answers import AnswerFaults
from tracker_pipeline.sandbox.fault_market import FaultyMarket
from tracker_pipeline.sandbox.faults import Faults
from tracker_pipeline.sandbox.market import Listing, Market, SimulatedMarket, grid_offset_ms
from tracker_pipeline.sandbox.replay import ReplayBars
from tracker_pipeline.sandbox.series import MINUTE_MS
from tracker_pipeline.sandbox.streams import Streams

__all__ = ["ReplayBars", "make_exchange_app"]

# Bybit's months are of no fixed length and nobody here asks for them.
INTERVAL_MINUTES: Final = {
    **{str(minutes): minutes for minutes in (1, 3, 5, 15, 30, 60, 120, 240, 360, 720)},
    "D": 1440,
    "W": 7 * 1440,
}
_CATEGORIES: Final = ("spot", "linear")
_EMPTY_CATEGORIES: Final = ("inverse", "option")  # known to Bybit, nothing listed here
_MAX_BARS: Final = 1000
_MAX_TRADES: Final = {"spot": 60, "linear": 1000}
_TRADES_WINDOW_MS: Final = 120 * MINUTE_MS

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BadRequestError(Exception):
    """The request is refused as Bybit does: HTTP 200 with retCode 10001 and this text."""


def make_exchange_app(
    *,
    symbols: Sequence[str],
    seed: int,
    replay: ReplayBars | None,
    clock: Callable[[], datetime],
    push_seconds: float = 1.0,
    faults: Sequence[str] = (),
) -> web.Application:
    """Build the server.

    Args:
        symbols: base coins, quoted in USDT, the biggest first; not used with `replay`.
        seed: another seed is another history.
        replay: recorded bars to serve in place of simulated ones; the recorded symbols are then the listed ones.
        clock: the exchange's time, aware.
        push_seconds: how often the WebSocket looks for something new to push.
        faults: what is wrong with it to begin with, as `faults.py` writes them.

    Raises:
        FaultError: a fault is written wrongly.
    """

    def now_ms() -> int:
        return int(clock().timestamp() * 1000)

    held = Faults(faults)
    true_market: Market = SimulatedMarket(symbols, seed) if replay is None else replay
    market = FaultyMarket(true_market, held, now_ms)
    api = _Api(market, now_ms)
    streams = Streams(market, now_ms, push_seconds, INTERVAL_MINUTES)
    app = web.Application(middlewares=[_bybit_errors(now_ms), AnswerFaults(held).middleware()])
    held.route(app)
    for path, answer in api.routes().items():
        app.router.add_get(path, _handler(answer, now_ms))
    for category in _CATEGORIES:
        app.router.add_get(f"/v5/public/{category}", streams.serve)
    app.on_shutdown.append(streams.close)
    return app


class _Api:
    """The REST answers: one method per route, from query parameters to the `result` of the answer."""

    def __init__(self, market: Market, now_ms: Callable[[], int]) -> None:
        self._market = market
        self._now_ms = now_ms

    def routes(self) -> dict[str, Callable[[dict[str, str]], Json]]:
        """The answering method of each path."""
        return {
            "/v5/market/time": self.time,
            "/v5/market/instruments-info": self.instruments,
            "/v5/market/kline": self.kline,
            "/v5/market/tickers": self.tickers,
            "/v5/market/recent-trade": self.recent_trades,
        }

    def time(self, query: dict[str, str]) -> Json:
        """The exchange's clock."""
        del query
        now = self._now_ms()
        return {"timeSecond": str(now // 1000), "timeNano": str(now * 1_000_000)}

    def instruments(self, query: dict[str, str]) -> Json:
        """What is listed; linear symbols come in pages, spot symbols all at once, as Bybit does."""
        category = _category(query, *_EMPTY_CATEGORIES)
        listed = self._asked(query) if category in _CATEGORIES else []
        if query.get("status", "Trading") != "Trading":
            listed = []
        first = _integer(query, "cursor", 0, low=0)
        size = len(listed) if category == "spot" else _integer(query, "limit", 500, low=1, high=1000)
        shape = bybit.spot_instrument if category == "spot" else bybit.linear_instrument
        more = first + size < len(listed)
        return {
            "category": category,
            "list": [shape(listing) for listing in listed[first : first + size]],
            "nextPageCursor": str(first + size) if more else "",
        }

    def kline(self, query: dict[str, str]) -> Json:
        """Bars, newest first, the running one included.

        With a start alone the page begins there; with an end it finishes there, and both bounds are inclusive.
        """
        category, listing = _category(query), self._listing(query)
        if query.get("interval") not in INTERVAL_MINUTES:
            raise BadRequestError("Invalid period!")
        minutes, now = INTERVAL_MINUTES[query["interval"]], self._now_ms()
        limit = _integer(query, "limit", 200, low=1, high=_MAX_BARS)
        start, end = _page(query, minutes, limit, now)
        found = self._market.bars(listing.name, minutes, start, end + 1, now)
        return {"symbol": listing.name, "category": category, "list": bybit.kline_rows(found, listing)}

    def tickers(self, query: dict[str, str]) -> Json:
        """Prices of the last 24 hours of one symbol or all."""
        category = _category(query, *_EMPTY_CATEGORIES)
        listed = self._asked(query) if category in _CATEGORIES else []
        now = self._now_ms()
        found = (bybit.ticker(self._market, listing, category, now) for listing in listed)
        return {"category": category, "list": [row for row in found if row is not None]}

    def recent_trades(self, query: dict[str, str]) -> Json:
        """The newest trades, newest first."""
        category, listing, now = _category(query), self._listing(query), self._now_ms()
        most = _MAX_TRADES[category]
        limit = _integer(query, "limit", min(500, most), low=1, high=most)
        found = self._market.trades(listing.name, now - _TRADES_WINDOW_MS, now + 1)[-limit:][::-1]
        return {"category": category, "list": bybit.recent_trades(found, listing)}

    def _asked(self, query: dict[str, str]) -> list[Listing]:
        return [self._listing(query)] if "symbol" in query else list(self._market.listings.values())

    def _listing(self, query: dict[str, str]) -> Listing:
        listing = self._market.listings.get(query.get("symbol", ""))
        if listing is None:
            raise BadRequestError("Not supported symbols")
        return listing


def _page(query: dict[str, str], minutes: int, limit: int, now_ms: int) -> tuple[int, int]:
    """First and last open that a request for bars asks for, epoch ms."""
    step_ms, offset_ms = minutes * MINUTE_MS, grid_offset_ms(minutes)

    def aligned(moment_ms: int) -> int:
        return (moment_ms - offset_ms) // step_ms * step_ms + offset_ms

    length_ms = (limit - 1) * step_ms
    start = _integer(query, "start", 0, low=0)
    if "start" in query and "end" not in query:
        return aligned(start), aligned(start) + length_ms
    end = _integer(query, "end", now_ms, low=0)
    if start > end:
        raise BadRequestError("Invalid startTime")
    return max(aligned(start), aligned(min(end, now_ms)) - length_ms), aligned(end)


def _category(query: dict[str, str], *also: str) -> str:
    category = query.get("category", "")
    if category not in (*_CATEGORIES, *also):
        raise BadRequestError("params error: Category is invalid")
    return category


def _integer(query: dict[str, str], name: str, default: int, *, low: int, high: int | None = None) -> int:
    """A whole number of the query; too large a one is cut to `high`, as Bybit cuts a limit."""
    text = query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or int(text) < low:
        raise BadRequestError(f"params error: {name} is invalid")
    return int(text) if high is None else min(int(text), high)


def _handler(answer: Callable[[dict[str, str]], Json], now_ms: Callable[[], int]) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        return _reply(0, "OK", answer(dict(request.query)), now_ms())

    return handle


def _bybit_errors(now_ms: Callable[[], int]) -> Any:
    @web.middleware
    async def catch(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except BadRequestError as error:
            return _reply(10001, str(error), {}, now_ms())

    return catch


def _reply(code: int, message: str, result: Json, now: int) -> web.Response:
    return web.json_response(
        {"retCode": code, "retMsg": message, "result": result, "retExtInfo": {}, "time": now}
    )
