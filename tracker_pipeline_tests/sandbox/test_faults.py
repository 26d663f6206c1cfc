"""Faults are written in one line each, and switched while the exchange runs."""

import httpx
import pytest

from tracker_pipeline.sandbox.exchange import make_exchange_app
from tracker_pipeline.sandbox.faults import KINDS, FaultError, parse_fault
from tracker_pipeline_tests.resources.test_exchange_client import NOW
from tracker_pipeline_tests.serving import served


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gremlins", "there is no fault 'gremlins'; there are short_page, "),
        ("throttle:wait=3", "throttle has no option 'wait'; it has every, path, retry_after, symbols, times"),
        ("throttle:every=0", r"every=0 is wrong \(a whole number from 1 on\)"),
        ("outage:start=2024-03-09T00:00", "outage needs end"),
        ("outage:start=soon,end=2024-03-09", "start=soon is wrong"),
    ],
)
def test_a_fault_that_is_written_wrongly_is_refused_in_one_sentence(text, message):
    with pytest.raises(FaultError, match=message):
        parse_fault(text)


def test_every_kind_can_be_written():
    needed = {
        "clock_skew": "seconds=3",
        "outage": "start=2024-01-01,end=2024-01-02",
        "delisting": "symbols=BTCUSDT+ETHUSDT,at=2024-01-01T00:00:00+00:00",
        "listing": "symbols=BTCUSDT,at=2024-01-01",
    }
    kinds = [parse_fault(f"{kind}:{needed.get(kind, '')}").kind for kind in KINDS]
    assert kinds == list(KINDS)


def test_faults_are_listed_added_replaced_and_ended_while_the_exchange_runs():
    app = make_exchange_app(symbols=["BTC"], seed=7, replay=None, clock=lambda: NOW, faults=["html:every=5"])
    with served(app) as url, httpx.Client(base_url=url) as client:
        kline = "/v5/market/kline?category=spot&symbol=BTCUSDT&interval=15"
        held = lambda: client.get("/sandbox/faults").json()["faults"]  # noqa: E731
        assert held() == ["html:every=5"]
        assert client.put("/sandbox/faults", content="throttle:retry_after=7").status_code == 200
        answer = client.get(kline)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
        client.post("/sandbox/faults", content="reverse\nserver_error:path=time\n")
        assert held() == ["throttle:retry_after=7", "reverse", "server_error:path=time"]
        assert client.get("/v5/market/time").status_code == 503
        wrong = client.put("/sandbox/faults", content="reverse\nnonsense")
        assert wrong.status_code == 400
        assert "no fault 'nonsense'" in wrong.json()["error"]
        assert len(held()) == 3
        client.delete("/sandbox/faults")
        assert held() == []
        assert client.get(kline).json()["retCode"] == 0


def test_symbols_narrow_a_fault_and_times_ends_it():
    app = make_exchange_app(
        symbols=["BTC", "ETH"],
        seed=7,
        replay=None,
        clock=lambda: NOW,
        faults=["server_error:symbols=ETHUSDT,times=1"],
    )
    with served(app) as url, httpx.Client(base_url=url) as client:
        statuses = [
            client.get(f"/v5/market/kline?category=spot&symbol={symbol}&interval=15").status_code
            for symbol in ("BTCUSDT", "ETHUSDT", "ETHUSDT")
        ]
    assert statuses == [200, 503, 200]
