"""The exchange client against the sandbox exchange, whose answers a middleware spoils where a test says so."""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
import stamina
from aiohttp import web

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.resources.bar_source import INSTRUMENT_COLUMNS, Outcome
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.resources.exchange import Exchange
from tracker_pipeline.sandbox.exchange import make_exchange_app
from tracker_pipeline_tests.serving import served

NOW = datetime(2024, 3, 10, 12, 7, 30, tzinfo=UTC)
DAY = timedelta(days=1)
QUARTER = timedelta(minutes=15)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Spoil = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]


@pytest.fixture(autouse=True)
def retries_without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


@contextmanager
def exchange(
    spoil: Spoil | None = None, market: str = "spot", now: datetime = NOW, path: str = "/v5/market/kline"
) -> Iterator[Exchange]:
    """A client of a sandbox exchange; `spoil` sees the requests for `path`."""
    app = make_exchange_app(symbols=["BTC", "ETH", "PEPE"], seed=7, replay=None, clock=lambda: now)
    if spoil is not None:

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await (spoil(request, handler) if request.path == path else handler(request))

        app.middlewares.append(middleware)
    with served(app) as url:
        yield Exchange("bybit", market, url=url, timeout=timedelta(seconds=2))  # type: ignore[arg-type]


def answering(response: Callable[[], web.Response], times: int | None = None) -> Spoil:
    """Give this answer the first `times` times, or always."""
    count = 0

    async def spoil(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal count
        count += 1
        return response() if times is None or count <= times else await handler(request)

    return spoil


def editing(change: Callable[[list[Any], web.Request], list[Any]]) -> Spoil:
    """Change the list of bars of each answer."""

    async def spoil(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = json.loads((await handler(request)).body)  # type: ignore[attr-defined]
        answer["result"]["list"] = change(answer["result"]["list"], request)
        return web.json_response(answer)

    return spoil


def test_the_clock_is_the_exchanges() -> None:
    with exchange() as client:
        assert client.server_time() == NOW


def test_instruments_carry_unified_and_native_names_and_the_listing_time_where_it_is_told() -> None:
    with exchange(market="linear") as client:
        listed = client.instruments()
    assert listed.schema == INSTRUMENT_COLUMNS
    assert listed.row(0, named=True) == {
        "venue": "bybit",
        "symbol": "BTC/USDT:USDT",
        "base": "BTC",
        "quote": "USDT",
        "native_symbol": "BTCUSDT",
        "market_type": "linear",
        "listed_from": datetime(2020, 1, 1, tzinfo=UTC),
        "listed_to": None,
    }
    with exchange() as client:
        assert client.instruments()["listed_from"].null_count() == 3


def test_only_closed_bars_are_returned_judged_by_the_exchanges_clock() -> None:
    with exchange() as client:
        fetched = client.bars("BTC/USDT", "15m", NOW - DAY, NOW + DAY)
    assert fetched.outcome is Outcome.OK
    # 11:45 ended at 12:00 and its grace at 12:02; 12:00 still runs at 12:07:30.
    assert fetched.frame["ts"].max() == datetime(2024, 3, 10, 11, 45, tzinfo=UTC)
    assert fetched.covered_to == datetime(2024, 3, 10, 12, 0, tzinfo=UTC)
    assert (fetched.frame["available_at"] <= NOW).all()


def test_a_bar_within_its_grace_is_not_closed() -> None:
    with exchange(now=datetime(2024, 3, 10, 12, 1, 59, tzinfo=UTC)) as client:
        fetched = client.bars("BTC/USDT", "15m", NOW - DAY, NOW)
    assert fetched.frame["ts"].max() == datetime(2024, 3, 10, 11, 30, tzinfo=UTC)


def test_a_frame_has_the_columns_of_the_bar_table_but_those_that_storage_adds() -> None:
    with exchange() as client:
        frame = client.bars("ETH/USDT", "1h", NOW - DAY, NOW).frame
    declared = BARS["1h"].polars_schema
    assert frame.schema == pl.Schema({k: v for k, v in declared.items() if k not in ("revision", "run_id")})
    assert BARS["1h"].conform(frame.with_columns(revision=1, run_id=pl.lit("run"))).height == 23


def test_thirty_days_come_in_pages_without_hole_or_repeat_for_several_symbols() -> None:
    start, end = NOW - 30 * DAY, NOW - 7 * QUARTER
    with exchange() as client:
        fetched = client.bars_many(["BTC/USDT", "ETH/USDT", "PEPE/USDT"], "15m", start, end)
    for answer in fetched.values():
        assert answer.frame["ts"].diff().drop_nulls().unique().to_list() == [QUARTER]
        assert answer.frame["ts"].min() == datetime(2024, 2, 9, 12, 15, tzinfo=UTC)
        assert answer.frame["ts"].max() == datetime(2024, 3, 10, 10, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows, _: rows[:100],  # the newest 100 only
        lambda rows, _: rows[-100:],  # the oldest 100 only
        lambda rows, _: rows[::-1],  # oldest first
        lambda rows, _: rows + rows[-1:],  # one twice
        lambda rows, _: rows[3:-3] or rows,  # both ends cut
    ],
    ids=["newest", "oldest", "reversed", "repeated", "trimmed"],
)
def test_pages_cut_short_at_either_end_are_completed(
    change: Callable[[list[Any], web.Request], list[Any]],
) -> None:
    with exchange(editing(change)) as client:
        frame = client.bars("BTC/USDT", "15m", NOW - 5 * DAY, NOW).frame
    assert frame["ts"].diff().drop_nulls().unique().to_list() == [QUARTER]
    assert frame.height == 5 * 96 - 1  # 12:15 five days ago to 11:45


def test_a_window_that_the_venue_has_nothing_in_is_confirmed_empty() -> None:
    start = datetime(2019, 1, 1, tzinfo=UTC)
    with exchange() as client:
        fetched = client.bars("BTC/USDT", "1d", start, start + 30 * DAY)
    assert fetched.outcome is Outcome.EMPTY
    assert fetched.frame.is_empty()
    assert (fetched.covered_from, fetched.covered_to) == (start, start + 30 * DAY)
    assert "has no 1d bars" in fetched.message


def test_a_window_without_a_closed_bar_covers_nothing() -> None:
    with exchange() as client:
        fetched = client.bars("BTC/USDT", "1h", NOW, NOW + DAY)
    assert fetched.outcome is Outcome.EMPTY
    assert fetched.covered_from == fetched.covered_to
    assert fetched.frame.schema["ts"] == pl.Datetime("us", "UTC")


def test_a_venue_that_answers_with_newer_bars_only_is_not_taken_for_empty() -> None:
    def newest(rows: list[Any], request: web.Request) -> list[Any]:
        del rows, request
        opened = int((NOW - DAY).timestamp() * 1000) // 900_000 * 900_000
        return [[str(opened), "1", "2", "1", "2", "5", "7"]]

    with exchange(editing(newest)) as client:
        fetched = client.bars("BTC/USDT", "15m", NOW - 90 * DAY, NOW - 80 * DAY)
    assert fetched.outcome is Outcome.FATAL
    assert "import bar files" in fetched.message


def test_a_hole_answered_with_newer_bars_is_a_hole_and_the_rest_is_kept() -> None:
    """Some venues ignore the end that is asked for; here the last hours of the window do not exist."""
    hole = int((NOW - timedelta(hours=6)).timestamp() * 1000)

    def without(rows: list[Any], request: web.Request) -> list[Any]:
        later = [str(int(NOW.timestamp() * 1000)), "1", "2", "1", "2", "5", "7"]
        return [row for row in rows if int(row[0]) < hole] or ([later] if "end" in request.query else [])

    with exchange(editing(without)) as client:
        fetched = client.bars("BTC/USDT", "15m", NOW - DAY, NOW - timedelta(hours=1))
    assert fetched.outcome is Outcome.OK
    assert fetched.frame.height == 72
    assert fetched.covered_from == NOW - DAY


@pytest.mark.parametrize(
    "response",
    [
        lambda: web.Response(status=503, text="busy"),
        lambda: web.Response(status=429, headers={"Retry-After": "1"}),
        lambda: web.json_response({"retCode": 10006, "retMsg": "Too many visits!", "result": {}}),
        lambda: web.json_response({"retCode": 10016, "retMsg": "System error. Please try again later."}),
        lambda: web.Response(text="<html>maintenance</html>", content_type="text/html"),
        lambda: web.Response(text='{"retCode": 0, "result": {"list": [["17', content_type="application/json"),
        lambda: web.json_response({"retCode": 0, "result": {"list": ["x", 5]}}),
        lambda: web.json_response({"retCode": 0, "retMsg": "OK", "result": {}}),
    ],
    ids=["503", "429", "10006", "10016", "html", "half a document", "nonsense", "no list"],
)
def test_a_passing_failure_is_retried_and_then_called_retryable(response: Callable[[], web.Response]) -> None:
    with exchange(answering(response, times=2)) as client:
        assert client.bars("BTC/USDT", "1h", NOW - DAY, NOW).outcome is Outcome.OK
    with exchange(answering(response)) as client:
        failed = client.bars("BTC/USDT", "1h", NOW - DAY, NOW)
    assert failed.outcome is Outcome.RETRYABLE
    assert "bybit" in failed.message
    assert "try again" in failed.message
    with pytest.raises(TransientError, match="1h bars of BTC/USDT"):
        _ = failed.frame


@pytest.mark.parametrize(
    "response",
    [
        lambda: web.Response(status=403, text="Forbidden"),
        lambda: web.Response(status=401, text="no"),
        lambda: web.Response(status=404, text="nothing here"),
        lambda: web.json_response({"retCode": 10001, "retMsg": "params error", "result": {}}),
    ],
    ids=["403", "401", "404", "10001"],
)
def test_a_lasting_failure_is_fatal_at_once(response: Callable[[], web.Response]) -> None:
    with exchange(answering(response, times=1)) as client:
        failed = client.bars("BTC/USDT", "1h", NOW - DAY, NOW)
    assert failed.outcome is Outcome.FATAL
    with pytest.raises(PermanentError):
        _ = failed.frame


def test_one_unknown_symbol_leaves_the_others_alone() -> None:
    with exchange() as client:
        fetched = client.bars_many(["BTC/USDT", "NONE/USDT"], "1h", NOW - DAY, NOW)
    assert fetched["BTC/USDT"].outcome is Outcome.OK
    assert fetched["NONE/USDT"].outcome is Outcome.FATAL
    assert "does not list NONE/USDT" in fetched["NONE/USDT"].message


def test_a_failing_clock_fails_every_symbol_and_the_message_hides_the_password() -> None:
    def client() -> Exchange:
        return Exchange("bybit", "spot", url="http://user:hunter2@127.0.0.1:9", timeout=timedelta(seconds=1))

    fetched = client().bars_many(["BTC/USDT", "ETH/USDT"], "1h", NOW - DAY, NOW)
    assert [answer.outcome for answer in fetched.values()] == [Outcome.RETRYABLE] * 2
    with pytest.raises(TransientError) as caught:
        client().server_time()
    assert "127.0.0.1:9" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_list_of_markets_that_fails_to_load_is_not_an_empty_one() -> None:
    html = answering(lambda: web.Response(text="<html></html>", content_type="text/html"))
    with exchange(html, path="/v5/market/instruments-info") as client, pytest.raises(TransientError):
        client.instruments()


def test_an_unknown_venue_is_refused() -> None:
    with pytest.raises(PermanentError, match="not an exchange"):
        Exchange("nasdaq", "spot")


def test_naive_windows_and_foreign_timeframes_are_refused() -> None:
    with exchange() as client:
        with pytest.raises(ValueError, match="aware"):
            client.bars("BTC/USDT", "1h", datetime(2024, 1, 1), NOW)  # noqa: DTZ001
        with pytest.raises(ValueError, match="timeframe"):
            client.bars("BTC/USDT", "3m", NOW - DAY, NOW)
