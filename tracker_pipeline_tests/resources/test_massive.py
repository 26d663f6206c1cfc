"""Massive's aggregates against a server of ours that speaks its dialect, base-minute cap and all."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import stamina
from aiohttp import web
from pydantic import SecretStr

from tracker_pipeline.resources.bar_source import Outcome
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.resources.massive import MassiveSource
from tracker_pipeline_tests.serving import served

KEY = "sk-very-secret"
DAY = timedelta(days=1)
NOW = datetime(2024, 3, 10, 12, 7, 30, tzinfo=UTC)
SPANS = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}


@pytest.fixture(autouse=True)
def retries_without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


class Service:
    """A vendor whose coins trade every `gaps[ticker]` minutes.

    An answer ends after `cap` base aggregates that exist, as whole bars, with a continuation unless `hides_next`.
    """

    def __init__(self, cap: int = 50_000) -> None:
        self.cap = cap
        self.gaps = {"X:BTCUSD": 1, "X:TREMPUSD": 47}
        self.hides_next = False
        self.spoil: Callable[[int], web.Response | None] = lambda n: None
        self.requests: list[web.Request] = []
        self.now = NOW

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/marketstatus/now", self._clock)
        app.router.add_get("/v3/reference/tickers", self._tickers)
        app.router.add_get("/v2/aggs/ticker/{ticker}/range/{n}/{span}/{first}/{last}", self._aggregates)
        return app

    def _refused(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") != f"Bearer {KEY}" or "apiKey" in request.query:
            return web.json_response({"status": "ERROR", "error": f"Unknown API Key {KEY}"}, status=401)
        return None

    async def _clock(self, request: web.Request) -> web.Response:
        return self._refused(request) or web.json_response({"serverTime": self.now.isoformat()})

    async def _tickers(self, request: web.Request) -> web.Response:
        names = [("BTC", "USD"), ("TREMP", "USD"), ("ETH", "EUR")]
        at = int(request.query.get("cursor", 0))
        base, quote = names[at]
        document = {
            "status": "OK",
            "results": [
                {
                    "ticker": f"X:{base}{quote}",
                    "base_currency_symbol": base,
                    "currency_symbol": quote,
                    "active": True,
                }
            ],
        }
        if at + 1 < len(names):
            document["next_url"] = str(request.url.with_query({"cursor": at + 1}))
        return self._refused(request) or web.json_response(document)

    async def _aggregates(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        answer = self._refused(request) or self.spoil(len(self.requests))
        if answer is not None:
            return answer
        info = request.match_info
        if info["ticker"] not in self.gaps:
            return web.json_response({"status": "NOT_FOUND"}, status=404)
        step = int(info["n"]) * SPANS[info["span"]]
        first, last = int(info["first"]) // step * step, int(info["last"])
        limit = min(self.cap, int(request.query.get("limit", 5000)), 50_000)
        bars, more = self._bars(info["ticker"], first, last, step, info["span"], limit)
        document = {"status": "OK", "resultsCount": len(bars), "results": bars}
        if not bars:
            del document["results"]
        if more is not None and not self.hides_next:
            path = request.path.replace(f"/{info['first']}/", f"/{more}/")
            document["next_url"] = str(
                request.url.with_path(path).with_query({"cursor": "abc", "limit": limit})
            )
        return web.json_response(document)

    def _bars(self, ticker, first, last, step, span, limit):
        base = SPANS["day"] if span == "day" else SPANS["minute"]
        gap = 1 if span == "day" else self.gaps[ticker]
        bars, used, opened = [], 0, first
        now = int(self.now.timestamp() * 1000)
        while opened <= last and opened <= now:
            trades = [m for m in range(opened, opened + step, base) if (m // base) % gap == 0 and m <= now]
            if trades and used + len(trades) > limit:
                return bars, opened
            used += len(trades)
            if trades:
                price = 100 + trades[0] / 60_000 % 50
                bars.append({"t": opened, "o": price, "h": price + 1, "l": price - 1, "c": price, "v": 3,
                             "vw": price, "n": len(trades)})  # fmt: skip
            opened += step
        return bars, None


@contextmanager
def massive(service: Service, key: str = KEY) -> Iterator[MassiveSource]:
    with served(service.app()) as url:
        yield MassiveSource(
            "massive", "spot", url=url, api_key=SecretStr(key), api_key_name="MASSIVE_API_KEY",
            timeout=timedelta(seconds=3),
        )  # fmt: skip


def test_ninety_one_days_of_hours_come_whole_in_windows_of_thirty_days():
    service = Service()
    with massive(service) as source:
        fetched = source.bars_many(["BTC/USD"], "1h", NOW - 100 * DAY, NOW - 9 * DAY)["BTC/USD"]
    assert fetched.outcome is Outcome.OK
    assert fetched.frame.height == 2184
    assert fetched.frame["ts"].diff().drop_nulls().unique().to_list() == [timedelta(hours=1)]
    assert fetched.frame["trades"].unique().to_list() == [60]
    assert fetched.frame["vwap"].null_count() == 0
    spans = [int(r.match_info["last"]) + 1 - int(r.match_info["first"]) for r in service.requests]
    assert max(spans) <= 30 * 86_400_000


def test_continuations_are_followed_to_the_end():
    service = Service(cap=5_000)
    with massive(service) as source:
        fetched = source.bars_many(["BTC/USD"], "15m", NOW - 30 * DAY, NOW - DAY)["BTC/USD"]
    assert fetched.frame.height == 29 * 96
    assert sum("cursor" in request.query for request in service.requests) == 8


def test_an_answer_that_is_cut_without_a_continuation_is_asked_on():
    """The first page of an inclusive 91-day window is 833 hours; here each window is cut in the middle."""
    service = Service(cap=20_000)
    service.hides_next = True
    with massive(service) as source:
        fetched = source.bars_many(["BTC/USD"], "1h", NOW - 100 * DAY, NOW - 9 * DAY)["BTC/USD"]
    assert fetched.outcome is Outcome.OK
    assert fetched.frame.height == 2184


def test_a_thin_coin_has_fewer_bars_and_they_are_all_there():
    service = Service(cap=300)
    with massive(service) as source:
        assert source.capability("1m").is_sparse
        fetched = source.bars_many(["TREMP/USD"], "1m", NOW - 45 * DAY, NOW - DAY)["TREMP/USD"]
    assert fetched.frame["ts"].diff().drop_nulls().unique().to_list() == [timedelta(minutes=47)]
    assert fetched.frame.height == pytest.approx(44 * 1440 / 47, abs=1)
    assert fetched.covered_to == NOW - DAY


def test_only_closed_bars_are_returned_by_the_services_clock():
    service = Service()
    with massive(service) as source:
        fetched = source.bars_many(["BTC/USD"], "15m", NOW - DAY, NOW + DAY)["BTC/USD"]
        service.now = NOW - timedelta(minutes=5, seconds=31)
        earlier = source.bars_many(["BTC/USD"], "15m", NOW - DAY, NOW + DAY)["BTC/USD"]
    assert fetched.frame["ts"].max() == datetime(2024, 3, 10, 11, 45, tzinfo=UTC)
    assert fetched.covered_to == datetime(2024, 3, 10, 12, 0, tzinfo=UTC)
    assert earlier.frame["ts"].max() == datetime(2024, 3, 10, 11, 30, tzinfo=UTC)


def test_a_window_without_trades_is_confirmed_by_a_second_answer():
    service = Service()
    service.gaps["X:TREMPUSD"] = 10**9
    with massive(service) as source:
        fetched = source.bars_many(["TREMP/USD"], "1h", NOW - 3 * DAY, NOW - DAY)["TREMP/USD"]
    assert (fetched.outcome, fetched.covered_to) == (Outcome.EMPTY, NOW - DAY)
    assert len(service.requests) == 2


def test_one_false_empty_answer_is_not_believed():
    service = Service()
    service.spoil = lambda n: web.json_response({"status": "OK", "resultsCount": 0}) if n == 1 else None
    with massive(service) as source:
        assert source.bars_many(["BTC/USD"], "1h", NOW - 3 * DAY, NOW - DAY)["BTC/USD"].frame.height == 48


PASSING = {
    "429": lambda: web.Response(status=429),
    "429 for a second": lambda: web.Response(status=429, headers={"Retry-After": "0"}),
    "503": lambda: web.Response(status=503),
    "html": lambda: web.Response(text="<html></html>", content_type="text/html"),
    "half a document": lambda: web.Response(text='{"status": "OK", "resul', content_type="application/json"),
}


@pytest.mark.parametrize("response", PASSING.values(), ids=PASSING)
def test_passing_failures_are_retried_and_then_retryable(response):
    service = Service()
    service.spoil = lambda n: response() if n <= 2 else None
    with massive(service) as source:
        assert source.bars_many(["BTC/USD"], "1h", NOW - 2 * DAY, NOW - DAY)["BTC/USD"].outcome is Outcome.OK
        service.spoil = lambda n: response()
        failed = source.bars_many(["BTC/USD"], "1h", NOW - 2 * DAY, NOW - DAY)["BTC/USD"]
    assert failed.outcome is Outcome.RETRYABLE
    assert "Massive at 127.0.0.1" in failed.message
    assert "try again later" in failed.message


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"status": "ERROR", "error": "internal"}, "refused 1h bars of BTC/USD"),
        ({"status": "OK", "resultsCount": 5, "results": [{"t": 1}]}, "cannot be read"),
        ({"status": "OK", "resultsCount": 1, "results": [{"o": 1}]}, "cannot be read"),
        ({}, "no status"),
    ],
)
def test_an_answer_that_is_none_is_never_taken_for_an_empty_one(document, said):
    service = Service()
    service.spoil = lambda n: web.json_response(document)
    with massive(service) as source:
        failed = source.bars_many(["BTC/USD"], "1h", NOW - 2 * DAY, NOW - DAY)["BTC/USD"]
    assert failed.outcome is Outcome.RETRYABLE
    assert said in failed.message


def test_what_came_before_a_failure_is_kept_with_how_far_it_reached():
    service = Service()
    service.spoil = lambda n: web.Response(status=500) if n > 1 else None
    with massive(service) as source:
        failed = source.bars_many(["BTC/USD"], "1h", NOW - 70 * DAY, NOW - DAY)["BTC/USD"]
    assert failed.outcome is Outcome.RETRYABLE
    assert failed.covered_to - failed.covered_from == pytest.approx(30 * DAY, abs=timedelta(hours=1))
    assert failed.partial.height == 720


def test_a_refused_key_is_fatal_and_never_shown(caplog, capsys):
    caplog.set_level(logging.DEBUG)
    with massive(Service(), key="sk-wrong-and-secret") as source:
        found = source.bars_many(["BTC/USD", "TREMP/USD"], "1h", NOW - 2 * DAY, NOW - DAY)
        with pytest.raises(PermanentError) as caught:
            source.instruments()
    assert {answer.outcome for answer in found.values()} == {Outcome.FATAL}
    assert "access is refused; check the key in MASSIVE_API_KEY" in found["BTC/USD"].message
    shown = (
        caplog.text
        + "".join(capsys.readouterr())
        + str(caught.value)
        + repr(source)
        + json.dumps([answer.message for answer in found.values()])
    )
    assert "secret" not in shown
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_continuation_on_another_host_does_not_get_the_key():
    service = Service()
    elsewhere = {"status": "OK", "resultsCount": 0, "next_url": "http://127.0.0.2:1/v2/aggs?cursor=x"}
    service.spoil = lambda n: web.json_response(elsewhere)
    with massive(service) as source:
        failed = source.bars_many(["BTC/USD"], "1h", NOW - 2 * DAY, NOW - DAY)["BTC/USD"]
    assert failed.outcome is Outcome.FATAL
    assert "points to another host" in failed.message


def test_a_circle_of_continuations_ends():
    service = Service()

    def circle(n: int) -> web.Response:
        url = str(service.requests[0].url.with_query({"cursor": "same"}))
        return web.json_response({"status": "OK", "resultsCount": 0, "next_url": url})

    service.spoil = circle
    with massive(service) as source:
        failed = source.bars_many(["BTC/USD"], "1h", NOW - 2 * DAY, NOW - DAY)["BTC/USD"]
    assert failed.outcome is Outcome.RETRYABLE
    assert "in a circle" in failed.message


def test_tickers_are_listed_over_pages_and_an_unknown_one_fails_alone():
    with massive(Service()) as source:
        assert source.instruments().select("symbol", "native_symbol").rows() == [
            ("BTC/USD", "X:BTCUSD"),
            ("ETH/EUR", "X:ETHEUR"),
            ("TREMP/USD", "X:TREMPUSD"),
        ]
        found = source.bars_many(["BTC/USD", "NONE/USD"], "1d", NOW - 30 * DAY, NOW)
    assert found["BTC/USD"].outcome is Outcome.OK
    assert found["NONE/USD"].outcome is Outcome.FATAL
    assert "does not know NONE/USD" in found["NONE/USD"].message


def test_a_service_without_a_clock_fails_every_symbol():
    with served(web.Application()) as url:
        source = MassiveSource("massive", "spot", url=url, api_key=SecretStr(KEY), api_key_name="K")
        found = source.bars_many(["BTC/USD"], "1d", NOW - 30 * DAY, NOW)
    assert found["BTC/USD"].outcome is Outcome.FATAL
    with pytest.raises(PermanentError, match="no linear pairs"):
        MassiveSource("massive", "linear", url=url, api_key=SecretStr(KEY), api_key_name="K")
