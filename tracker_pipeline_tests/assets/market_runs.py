"""Runs of market assets against a sandbox exchange whose answers a test can spoil, on a real database."""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl
from aiohttp import web

from tracker_pipeline.definitions import build_definitions
from tracker_pipeline.domain import schemas
from tracker_pipeline.resources.clients import ExchangeResource
from tracker_pipeline.sandbox.exchange import make_exchange_app
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.serving import served

DAY = datetime(2024, 3, 10, tzinfo=UTC)
NOW = datetime(2024, 3, 14, 12, 7, 30, tzinfo=UTC)
SYMBOLS = ("BTC", "ETH", "SOL", "XRP")
MINUTES = {"1": 1, "5": 5, "15": 15, "60": 60, "240": 240, "D": 1440}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Faults:
    """What the exchange does wrong.

    Attributes:
        refuse: native symbols that are answered with an HTTP error of this number.
        without: intervals [start, end) of which no bars of these native symbols are served.
        asked: what was asked for: native symbol, interval, start and end in ms.
    """

    refuse: dict[str, int] = field(default_factory=dict)
    without: list[tuple[set[str], datetime, datetime]] = field(default_factory=list)
    asked: list[tuple[str, str, int, int]] = field(default_factory=list)

    async def spoil(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        query = request.query
        self.asked.append(
            (query["symbol"], query["interval"], int(query["start"]), int(query.get("end", query["start"])))
        )
        if query["symbol"] in self.refuse:
            return web.Response(status=self.refuse[query["symbol"]], text="not now")
        response = await handler(request)
        document = json.loads(response.body)  # type: ignore[attr-defined]
        rows = document["result"]["list"]
        length = MINUTES[query["interval"]] * 60_000
        document["result"]["list"] = [
            row for row in rows if not self._is_withheld(query["symbol"], int(row[0]), length)
        ]
        return web.json_response(document)

    def _is_withheld(self, symbol: str, ms: int, length: int) -> bool:
        return any(
            symbol in symbols and start.timestamp() * 1000 <= ms and ms + length <= end.timestamp() * 1000
            for symbols, start, end in self.without
        )


@contextmanager
def exchange(
    faults: Faults, *, symbols: tuple[str, ...] = SYMBOLS, now: datetime = NOW
) -> Iterator[ExchangeResource]:
    """A sandbox exchange with these faults, and the resource that asks it."""
    app = make_exchange_app(symbols=list(symbols), seed=7, replay=None, clock=lambda: now)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_bars = request.path == "/v5/market/kline"
        return await (faults.spoil(request, handler) if is_bars else handler(request))

    app.middlewares.append(middleware)
    with served(app) as url:
        yield ExchangeResource(venue="bybit", market_type="spot", url=url)


def record_instruments(symbols: tuple[str, ...] = SYMBOLS, *, venue: str = "bybit", **listing: Any) -> None:
    """Track these coins."""
    rows = [
        {
            "venue": venue,
            "symbol": f"{base}/USDT",
            "base": base,
            "quote": "USDT",
            "native_symbol": f"{base}USDT",
            "market_type": "spot",
            "tier": "large_cap",
            **listing,
        }
        for base in symbols
    ]
    with connect() as connection:
        write_window(connection, schemas.INSTRUMENTS, pl.DataFrame(rows), None, run_id="test")


def run(
    resource: ExchangeResource,
    keys: list[dg.AssetKey],
    days: tuple[datetime, datetime] | None = (DAY, DAY),
    *,
    checks: bool = False,
) -> dg.ExecuteInProcessResult:
    """Materialize assets over days, both included; their checks take half of the time, so only where asked for."""
    selection = dg.AssetSelection.assets(*keys)
    job = dg.define_asset_job("wanted", selection if checks else selection.without_checks())
    defs = dg.Definitions.merge(build_definitions({"exchange": resource}), dg.Definitions(jobs=[job]))
    tags = {}
    if days:
        first, last = (f"{day:%Y-%m-%d}" for day in days)
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    with dg.DagsterInstance.ephemeral() as instance:
        return defs.resolve_job_def("wanted").execute_in_process(
            instance=instance, tags=tags, raise_on_error=False
        )


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What a failed run said."""
    texts = []
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            error = data.error
            while error is not None:
                texts.append(error.message)
                error = error.cause
            if data.user_failure_data:
                texts.append(str(data.user_failure_data.description))
    return " ".join(texts)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)
