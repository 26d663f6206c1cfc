"""The same client against servers that speak as Binance and Kraken do: other shapes, other pages, other limits."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import stamina
from aiohttp import web

from tracker_pipeline.resources.bar_source import Outcome
from tracker_pipeline.resources.exchange import Exchange
from tracker_pipeline_tests.serving import served

NOW = datetime(2026, 3, 10, 12, 7, 30, tzinfo=UTC)
DAY = timedelta(days=1)
QUARTER = timedelta(minutes=15)
STEPS = {
    "15m": 900_000,
    "1h": 3_600_000,
    "1d": 86_400_000,
    "15": 900_000,
    "60": 3_600_000,
    "1440": 86_400_000,
}


@pytest.fixture(autouse=True)
def retries_without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


class Venue:
    """One symbol with a bar in every interval but those of its holes, from `born` on."""

    def __init__(self) -> None:
        self.born = ms(datetime(2025, 6, 1, 6, tzinfo=UTC))
        self.hole = (ms(NOW - 5 * DAY), ms(NOW - 4 * DAY))
        self.requests: list[dict[str, str]] = []
        self.headers: dict[str, str] = {}

    def opens(self, first: int, last: int, step: int) -> list[int]:
        begin = max(-(-first // step) * step, self.born)
        times = range(begin, min(last, ms(NOW)) + 1, step)
        return [t for t in times if not self.hole[0] <= t < self.hole[1]]


def binance(venue: Venue) -> web.Application:
    """Binance: oldest first, 1,000 existing bars from startTime on, the running one included."""

    async def answer(request: web.Request) -> web.Response:
        query = dict(request.query)
        if request.path.endswith("/time"):
            return web.json_response({"serverTime": ms(NOW)})
        if request.path.endswith("/exchangeInfo"):
            names = [("BTCUSDT", "BTC"), ("1000SATSUSDT", "1000SATS"), ("币安人生USDT", "币安人生")]
            return web.json_response({"timezone": "UTC", "symbols": [
                {"symbol": name, "status": "TRADING", "baseAsset": base, "quoteAsset": "USDT",
                 "isSpotTradingAllowed": True, "permissions": ["SPOT"], "permissionSets": [["SPOT"]],
                 "orderTypes": ["LIMIT"], "filters": [], "baseAssetPrecision": 8, "quoteAssetPrecision": 8}
                for name, base in names]})  # fmt: skip
        venue.requests.append(query)
        step = STEPS[query["interval"]]
        opens = venue.opens(int(query.get("startTime", 0)), int(query.get("endTime", ms(NOW))), step)
        rows = [
            [t, "1", "2", "0.5", "1.5", "7", t + step - 1, "9", 3, "4", "5", "0"]
            for t in opens[: min(1000, int(query.get("limit", 500)))]
        ]
        return web.json_response(rows, headers=venue.headers)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    return app


def kraken(venue: Venue) -> web.Application:
    """Kraken: the newest 720 bars from `since` on, whatever else is asked for; no end to ask for."""

    async def answer(request: web.Request) -> web.Response:
        query = dict(request.query)
        if request.path.endswith("/Time"):
            return web.json_response({"error": [], "result": {"unixtime": ms(NOW) // 1000}})
        if request.path.endswith("/AssetPairs"):
            pair = {"altname": "XBTUSD", "wsname": "XBT/USD", "base": "XXBT", "quote": "ZUSD", "pair_decimals": 1,
                    "lot_decimals": 8, "cost_decimals": 5, "lot_multiplier": 1, "leverage_buy": [],
                    "leverage_sell": [], "fees": [[0, 0.4]], "fees_maker": [[0, 0.25]], "ordermin": "0.0001",
                    "costmin": "0.5", "tick_size": "0.1", "status": "online"}  # fmt: skip
            return web.json_response({"error": [], "result": {"XXBTZUSD": pair}})
        if not request.path.endswith("/OHLC"):
            return web.json_response({"error": [], "result": {}})
        venue.requests.append(query)
        step = STEPS[query.get("interval", "1")]
        newest = venue.opens(0, ms(NOW), step)[-720:]
        asked = [t for t in newest if t > int(query.get("since", 0)) * 1000]
        rows = [[t // 1000, "1", "2", "0.5", "1.5", "1.2", "7", 3] for t in asked]
        return web.json_response({"error": [], "result": {"XXBTZUSD": rows, "last": ms(NOW) // 1000}})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    app.router.add_post("/{path:.*}", answer)
    return app


@contextmanager
def speaking(app: web.Application, venue: str) -> Iterator[Exchange]:
    with served(app) as url:
        yield Exchange(venue, "spot", url=url, timeout=timedelta(seconds=3))


def test_binance_gives_a_month_in_pages_with_its_hole_and_without_the_running_bar():
    venue = Venue()
    with speaking(binance(venue), "binance") as client:
        assert client.instruments()["symbol"].to_list() == ["1000SATS/USDT", "BTC/USDT", "币安人生/USDT"]
        fetched = client.bars("BTC/USDT", "15m", NOW - 30 * DAY, NOW + DAY)
        thin = client.bars("币安人生/USDT", "15m", NOW - 4.5 * DAY, NOW - 4.2 * DAY)
    assert fetched.outcome is Outcome.OK
    assert fetched.frame["ts"].max() == datetime(2026, 3, 10, 11, 45, tzinfo=UTC)
    assert fetched.frame.height == 29 * 96 - 1
    assert (fetched.frame["ts"].diff() > QUARTER).sum() == 1
    assert thin.outcome is Outcome.EMPTY
    assert len(venue.requests) < 12


def test_binance_before_a_listing_is_empty_and_a_listing_within_a_window_is_found():
    venue = Venue()
    born = datetime(2025, 6, 1, 6, tzinfo=UTC)
    with speaking(binance(venue), "binance") as client:
        before = client.bars("BTC/USDT", "1h", born - 60 * DAY, born - 30 * DAY)
        across = client.bars("BTC/USDT", "1h", born - 60 * DAY, born + 10 * DAY)
    assert (before.outcome, before.covered_from) == (Outcome.EMPTY, born - 60 * DAY)
    assert (across.frame["ts"].min(), across.frame.height) == (born, 240)


def test_binance_weight_that_is_used_up_pauses_everybody():
    venue = Venue()
    venue.headers = {"X-MBX-USED-WEIGHT-1M": "5999"}
    with speaking(binance(venue), "binance") as client:
        assert client.bars("BTC/USDT", "15m", NOW - DAY, NOW).outcome is Outcome.OK
        with client._session._host._changing() as state:  # the pause itself would last up to a minute
            wait = state.paused_until - datetime.now(UTC).timestamp()
    assert 0 < wait <= 60


def test_kraken_serves_what_it_reaches_and_says_what_it_does_not():
    venue = Venue()
    venue.hole = (0, 0)
    with speaking(kraken(venue), "kraken") as client:
        recent = client.bars("BTC/USD", "15m", NOW - 5 * DAY, NOW)
        old = client.bars("BTC/USD", "15m", NOW - 90 * DAY, NOW - 60 * DAY)
        across = client.bars("BTC/USD", "15m", NOW - 20 * DAY, NOW)
    assert recent.frame.height == 5 * 96 - 1
    assert recent.frame["ts"].diff().drop_nulls().unique().to_list() == [QUARTER]
    assert old.outcome is Outcome.FATAL
    assert "kraken serves no 15m bars of BTC/USD from before" in old.message
    assert across.outcome is Outcome.OK
    assert across.covered_from > NOW - 8 * DAY
    assert across.frame["ts"].min() >= across.covered_from - QUARTER
