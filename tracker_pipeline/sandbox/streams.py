"""The WebSocket side of the local exchange: subscriptions and what is pushed to them.

What belongs here: Bybit's v5 public topics `kline`, `publicTrade` and `tickers`, with ping and subscribe. What
does not: the market behind them (`market.py`).
"""

import asyncio
import contextlib
import json
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from tracker_pipeline.sandbox import bybit
from tracker_pipeline.sandbox.market import Listing, Market, grid_offset_ms
from tracker_pipeline.sandbox.series import MINUTE_MS

Json = dict[str, Any]

_MAX_CATCH_UP_BARS = 1000
_MAX_CATCH_UP_MS = 60 * MINUTE_MS


class Streams:
    """All WebSocket connections of one server.

    Args:
        market: what is traded.
        now_ms: the exchange's clock, epoch ms.
        push_seconds: how often each connection looks for news.
        interval_minutes: minutes of a bar by Bybit's name of the interval.
    """

    def __init__(
        self,
        market: Market,
        now_ms: Callable[[], int],
        push_seconds: float,
        interval_minutes: Mapping[str, int],
    ) -> None:
        self._market = market
        self._now_ms = now_ms
        self._push_seconds = push_seconds
        self._interval_minutes = interval_minutes
        self._open: weakref.WeakSet[web.WebSocketResponse] = weakref.WeakSet()

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Speak with one client until it leaves."""
        socket = web.WebSocketResponse(heartbeat=30)
        await socket.prepare(request)
        self._open.add(socket)
        connection = _Connection(self, socket, category=request.path.rsplit("/", 1)[-1])
        pushing = asyncio.create_task(connection.push_news())
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await connection.answer(message.data)
        finally:
            pushing.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await pushing
        return socket

    async def close(self, app: web.Application) -> None:
        """Tell every client that the server goes away; without it, stopping waits for them to leave."""
        del app
        for socket in list(self._open):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    @property
    def push_seconds(self) -> float:
        """Pause between two looks for news."""
        return self._push_seconds

    def now_ms(self) -> int:
        """The exchange's clock."""
        return self._now_ms()

    def is_topic(self, topic: str) -> bool:
        """Whether something is served under this name."""
        kind, *rest = topic.split(".")
        if not rest or rest[-1] not in self._market.listings:
            return False
        if kind == "kline":
            return len(rest) == 2 and rest[0] in self._interval_minutes
        return kind in ("publicTrade", "tickers") and len(rest) == 1

    def news(self, topic: str, category: str, since_ms: int, now_ms: int) -> Iterator[Json]:
        """What has happened in (since_ms, now_ms] under a topic, as messages in order."""
        kind, *rest = topic.split(".")
        listing = self._market.listings.get(rest[-1])
        rows: Iterator[Any]
        if listing is None:  # delisted since it was subscribed to
            return
        if kind == "kline":
            rows = self._kline(rest[0], listing, since_ms, now_ms)
        elif kind == "publicTrade":
            rows = self._trades(listing, since_ms, now_ms)
        else:
            row = bybit.ticker(self._market, listing, category, now_ms)
            rows = iter(()) if row is None else iter((row,))
        for data in rows:
            yield {"topic": topic, "type": "snapshot", "ts": now_ms, "data": data}

    def _kline(self, interval: str, listing: Listing, since_ms: int, now_ms: int) -> Iterator[list[Json]]:
        """The bars that finished since, confirmed, and the running one."""
        minutes = self._interval_minutes[interval]
        step_ms, offset_ms = minutes * MINUTE_MS, grid_offset_ms(minutes)
        first_ms = (since_ms - offset_ms) // step_ms * step_ms + offset_ms
        first_ms = max(first_ms, now_ms - _MAX_CATCH_UP_BARS * step_ms)
        found = self._market.bars(listing.name, minutes, first_ms, now_ms + 1, now_ms)
        for row in bybit.pushed_bars(found, listing, interval, step_ms, now_ms):
            yield [row]

    def _trades(self, listing: Listing, since_ms: int, now_ms: int) -> Iterator[list[Json]]:
        first_ms = max(since_ms + 1, now_ms - _MAX_CATCH_UP_MS)
        found = self._market.trades(listing.name, first_ms, now_ms + 1)
        if len(found):
            yield bybit.pushed_trades(found, listing)


class _Connection:
    """One client: the topics it asked for, and up to when each has been served."""

    def __init__(self, streams: Streams, socket: web.WebSocketResponse, category: str) -> None:
        self._streams = streams
        self._socket = socket
        self._category = category
        self._served_ms: dict[str, int] = {}
        self._id = str(uuid.uuid4())

    async def answer(self, text: str) -> None:
        """Do what one message of the client asks for."""
        try:
            request = json.loads(text)
            operation, topics = request.get("op"), [str(topic) for topic in request.get("args") or []]
        except (ValueError, AttributeError, TypeError):
            return await self._acknowledge({}, "error:invalid request", success=False)
        if operation == "ping":
            return await self._acknowledge(request, "pong")
        if operation not in ("subscribe", "unsubscribe"):
            return await self._acknowledge(request, "error:invalid op", success=False)
        unknown = [topic for topic in topics if not self._streams.is_topic(topic)]
        if unknown or not topics:
            text = f"error:handler not found,topic:{','.join(unknown)}"
            return await self._acknowledge(request, text, success=False)
        await self._acknowledge(request, "subscribe" if operation == "subscribe" else "")
        now = self._streams.now_ms()
        for topic in topics:
            if operation == "unsubscribe":
                self._served_ms.pop(topic, None)
            else:
                await self._push(topic, now, now)
        return None

    async def push_news(self) -> None:
        """Push what is new, again and again, until the connection ends."""
        while not self._socket.closed:
            await asyncio.sleep(self._streams.push_seconds)
            now = self._streams.now_ms()
            for topic, served in list(self._served_ms.items()):
                if now > served:
                    await self._push(topic, served, now)

    async def _push(self, topic: str, since_ms: int, now_ms: int) -> None:
        self._served_ms[topic] = now_ms
        for message in self._streams.news(topic, self._category, since_ms, now_ms):
            await self._socket.send_json(message)

    async def _acknowledge(self, request: Json, text: str, *, success: bool = True) -> None:
        reply = {"success": success, "ret_msg": text, "conn_id": self._id, "op": request.get("op", "")}
        if "req_id" in request:
            reply["req_id"] = request["req_id"]
        await self._socket.send_json(reply)
