"""The sandbox exchange through the client that the pipeline uses for real ones, over a real socket."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import ccxt
import polars as pl
import pytest

from tracker_pipeline.sandbox.exchange import ReplayBars, make_exchange_app
from tracker_pipeline_tests.serving import served

NOW = datetime(2024, 3, 10, 12, 7, 30, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
QUARTER_MS = 900_000


def client_of(url: str) -> Any:
    client = ccxt.bybit({"enableRateLimit": False})
    client.urls["api"] = dict.fromkeys(client.urls["api"], url)
    return client


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = make_exchange_app(symbols=["BTC", "ETH", "PEPE"], seed=7, replay=None, clock=lambda: NOW)
    with served(app) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Any:
    client = client_of(url)
    client.load_markets()
    return client


def test_the_time_is_that_of_the_clock(client: Any) -> None:
    assert client.fetch_time() == NOW_MS


def test_every_coin_is_listed_on_spot_and_as_a_perpetual(client: Any) -> None:
    assert set(client.markets) == {
        f"{base}/USDT{settle}" for base in ("BTC", "ETH", "PEPE") for settle in ("", ":USDT")
    }
    assert client.markets["ETH/USDT:USDT"]["created"] == int(
        datetime(2020, 1, 16, tzinfo=UTC).timestamp() * 1000
    )


def test_linear_instruments_come_in_pages(client: Any) -> None:
    query, names = {"category": "linear", "limit": 2}, []
    while True:
        result = client.publicGetV5MarketInstrumentsInfo(query)["result"]
        names += [row["symbol"] for row in result["list"]]
        if not result["nextPageCursor"]:
            break
        query["cursor"] = result["nextPageCursor"]
    assert names == ["BTCUSDT", "ETHUSDT", "PEPEUSDT"]


def test_bars_end_with_the_one_that_still_runs(client: Any) -> None:
    bars = client.fetch_ohlcv("BTC/USDT", "15m", limit=5)
    assert [bar[0] for bar in bars] == [
        NOW_MS // QUARTER_MS * QUARTER_MS - k * QUARTER_MS for k in (4, 3, 2, 1, 0)
    ]
    minutes = client.fetch_ohlcv("BTC/USDT", "1m", since=bars[-1][0])
    assert bars[-1][5] == pytest.approx(sum(minute[5] for minute in minutes))


def test_pages_of_bars_fit_together_without_hole_or_repeat(client: Any) -> None:
    since = NOW_MS - 30 * 86_400_000
    bars: list[list[float]] = []
    while not bars or bars[-1][0] + QUARTER_MS <= NOW_MS:
        bars += client.fetch_ohlcv("ETH/USDT", "15m", since=since, limit=1000)
        since = int(bars[-1][0]) + QUARTER_MS
    assert len(bars) == 30 * 96
    assert all(later[0] - earlier[0] == QUARTER_MS for earlier, later in pairwise(bars))
    assert all(later[1] == earlier[4] for earlier, later in pairwise(bars))


def test_raw_bars_come_newest_first_and_both_bounds_count(client: Any) -> None:
    start, end = NOW_MS - NOW_MS % QUARTER_MS - 4 * QUARTER_MS, NOW_MS - NOW_MS % QUARTER_MS - QUARTER_MS
    query = {"category": "linear", "symbol": "BTCUSDT", "interval": "15", "start": start, "end": end}
    rows = client.publicGetV5MarketKline(query)["result"]["list"]
    assert [int(row[0]) for row in rows] == list(range(end, start - 1, -QUARTER_MS))
    assert all(isinstance(value, str) for value in rows[0])


def test_a_limit_cuts_the_older_end_of_a_window_with_an_end(client: Any) -> None:
    bars = client.fetch_ohlcv(
        "BTC/USDT", "1h", since=NOW_MS - 10 * 86_400_000, limit=3, params={"until": NOW_MS}
    )
    raw = client.publicGetV5MarketKline(
        {"category": "spot", "symbol": "BTCUSDT", "interval": "60", "end": NOW_MS, "limit": 3}
    )
    assert [bar[0] for bar in bars] == [int(row[0]) for row in reversed(raw["result"]["list"])]


def test_there_are_no_bars_before_a_coin_is_listed_nor_after_now(client: Any) -> None:
    listed = client.markets["PEPE/USDT:USDT"]["created"]
    bars = client.fetch_ohlcv("PEPE/USDT:USDT", "1d", since=listed - 10 * 86_400_000, limit=20)
    assert bars[0][0] == listed
    future = {"category": "spot", "symbol": "BTCUSDT", "interval": "15", "start": NOW_MS + QUARTER_MS}
    assert client.publicGetV5MarketKline(future)["result"]["list"] == []


def test_tickers_show_the_last_24_hours(client: Any) -> None:
    tickers = client.fetch_tickers(params={"type": "spot"})
    assert set(tickers) == {"BTC/USDT", "ETH/USDT", "PEPE/USDT"}
    last = client.fetch_ohlcv("PEPE/USDT", "1m", limit=1)[0][4]
    assert tickers["PEPE/USDT"]["last"] == last
    assert tickers["PEPE/USDT"]["low"] <= last <= tickers["PEPE/USDT"]["high"]
    assert client.fetch_tickers(["BTC/USDT:USDT"])["BTC/USDT:USDT"]["last"] > 1000


def test_trades_are_those_of_the_running_bar(client: Any) -> None:
    trades = client.fetch_trades("BTC/USDT", limit=60)
    assert len(trades) == 60
    assert trades[-1]["timestamp"] <= NOW_MS
    assert trades[-1]["price"] == client.fetch_ohlcv("BTC/USDT", "1m", limit=1)[0][4]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"category": "spot", "symbol": "NONEUSDT", "interval": "15"}, "Not supported symbols"),
        ({"category": "spot", "symbol": "BTCUSDT", "interval": "7"}, "Invalid period!"),
        ({"category": "fruit", "symbol": "BTCUSDT", "interval": "15"}, "Category is invalid"),
        ({"category": "spot", "symbol": "BTCUSDT", "interval": "15", "limit": "-1"}, "limit is invalid"),
        (
            {"category": "spot", "symbol": "BTCUSDT", "interval": "15", "start": 9, "end": "3"},
            "Invalid startTime",
        ),
    ],
)
def test_a_bad_request_is_refused_in_bybits_words(client: Any, query: dict[str, Any], text: str) -> None:
    with pytest.raises(ccxt.BadRequest, match=text):
        client.publicGetV5MarketKline(query)


def test_a_recording_is_served_as_it_is_and_rolled_up_above(tmp_path: Path) -> None:
    first = datetime(2024, 3, 9, tzinfo=UTC)
    opens = [first + timedelta(minutes=15 * i) for i in range(96) if i != 5]
    recorded = pl.DataFrame(
        {
            "symbol": ["ADA/USDT"] * 95,
            "open_time": opens,
            "open": [1.0 + i / 100 for i in range(95)],
            "high": [3.0] * 95,
            "low": [0.5] * 95,
            "close": [1.01 + i / 100 for i in range(95)],
            "volume": [10.25] * 95,
        }
    )
    recorded.write_parquet(tmp_path / "ada.parquet")
    replay = ReplayBars.from_files([tmp_path / "ada.parquet"])
    app = make_exchange_app(symbols=["BTC"], seed=7, replay=replay, clock=lambda: NOW)
    with served(app) as address:
        client = client_of(address)
        client.load_markets()
        assert "BTC/USDT" not in client.markets
        since = int(first.timestamp() * 1000)
        native = client.fetch_ohlcv("ADA/USDT", "15m", since=since, limit=1000)
        hours = client.fetch_ohlcv("ADA/USDT", "1h", since=since, limit=1000)
        finer = client.fetch_ohlcv("ADA/USDT", "1m", since=since, limit=1000)
    assert [bar[0] for bar in native] == [int(opened.timestamp() * 1000) for opened in opens]
    assert native[0][1:] == [1.0, 3.0, 0.5, 1.01, 10.25]
    assert [bar[5] for bar in hours[:3]] == [41.0, 30.75, 41.0]
    assert finer == []


async def conversation(url: str, sent: list[dict[str, Any]], count: int, path: str) -> list[dict[str, Any]]:
    address = f"{url.replace('http', 'ws')}/v5/public/{path}"
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
        for message in sent:
            await socket.send_json(message)
        return [await socket.receive_json(timeout=5) for _ in range(count)]


def test_a_subscriber_gets_an_answer_and_the_running_bar(url: str) -> None:
    request = {"req_id": "1", "op": "subscribe", "args": ["kline.15.BTCUSDT", "tickers.ETHUSDT"]}
    answer, kline, ticker, pong = asyncio.run(conversation(url, [request, {"op": "ping"}], 4, "linear"))
    assert answer["success"]
    assert answer["req_id"] == "1"
    assert kline["topic"] == "kline.15.BTCUSDT"
    assert kline["data"][0]["start"] == NOW_MS // QUARTER_MS * QUARTER_MS
    assert not kline["data"][0]["confirm"]
    assert ticker["data"]["symbol"] == "ETHUSDT"
    assert pong["ret_msg"] == "pong"


def test_an_unknown_topic_is_refused(url: str) -> None:
    requests = [{"op": "subscribe", "args": ["kline.15.NONEUSDT"]}, {"op": "dance"}]
    answers = asyncio.run(conversation(url, requests, 2, "spot"))
    assert [answer["success"] for answer in answers] == [False, False]


def test_finished_bars_are_confirmed_and_trades_arrive_without_hole() -> None:
    clock = iter(NOW + timedelta(seconds=40 * i) for i in range(10_000))
    app = make_exchange_app(
        symbols=["BTC"], seed=7, replay=None, clock=lambda: next(clock), push_seconds=0.01
    )
    request = {"op": "subscribe", "args": ["kline.1.BTCUSDT", "publicTrade.BTCUSDT"]}
    with served(app) as address:
        messages = asyncio.run(conversation(address, [request], 30, "spot"))
        client = client_of(address)
        stored = {
            int(bar[0]): bar for bar in client.fetch_ohlcv("BTC/USDT", "1m", since=NOW_MS - 60_000, limit=30)
        }
    confirmed = [
        row for m in messages if m.get("topic", "").startswith("kline") for row in m["data"] if row["confirm"]
    ]
    assert len(confirmed) > 3
    assert all(later["start"] - earlier["start"] == 60_000 for earlier, later in pairwise(confirmed))
    assert all(float(row["close"]) == stored[row["start"]][4] for row in confirmed)
    ids = [
        int(trade["i"]) for m in messages if m.get("topic", "").startswith("public") for trade in m["data"]
    ]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
