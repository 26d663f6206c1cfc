"""The health service answers in milliseconds, also while Dagster and the database are down."""

import os
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import psycopg
import pytest

from tracker_pipeline.commands.health import HealthServer, Watcher
from tracker_pipeline.operations.freshness import ExchangeClock
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.resources.postgres import EmbeddedPostgres
from tracker_pipeline.storage.database import ready_url
from tracker_pipeline_tests.conftest import forget_settings
from tracker_pipeline_tests.operations.series import bar_closing, track

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


class FixedClock(ExchangeClock):
    def now(self) -> datetime:
        return NOW


@pytest.fixture
def watcher() -> Watcher:
    return Watcher(clock=FixedClock())


@pytest.fixture
def address(watcher: Watcher) -> Iterator[str]:
    server = HealthServer("127.0.0.1", 0, watcher)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_it_says_what_is_there_and_what_is_wrong(own_database, watcher, address):
    track("BTC/USDT", "ETH/USDT")
    bar_closing(NOW - timedelta(hours=9), "BTC/USDT", "ETH/USDT")
    watcher.look()
    health = httpx.get(f"{address}/health").json()
    assert (health["status"], health["database"], health["dagster"]) == ("critical", "answers", "down")
    assert [alert["cause"] for alert in health["alerts"]] == ["source/bybit"]
    assert health["series"] == {"market.ohlc_15m": {"stale": 2}}
    assert health["lag_seconds"] == {"market.ohlc_15m": 9 * 3600}
    simple = httpx.get(f"{address}/health/simple")
    assert (simple.status_code, simple.text) == (200, "OK\n")
    assert httpx.get(f"{address}/").status_code == 404


def test_metrics_are_in_the_format_of_prometheus(own_database, watcher, address):
    track("BTC/USDT")
    bar_closing(NOW - timedelta(hours=9), "BTC/USDT")
    with psycopg.connect(ready_url(), autocommit=True) as connection:
        connection.execute("ANALYZE")
    watcher.look()
    answer = httpx.get(f"{address}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert samples['tracker_up{part="database"}'] == "1"
    assert samples['tracker_up{part="dagster"}'] == "0"
    assert samples['tracker_rows{table="market.ohlc_15m",tier="hot"}'] == "1"
    assert samples['tracker_lag_seconds{table="market.ohlc_15m"}'] == "32400"
    assert samples['tracker_alert_open{cause="source/bybit",severity="critical"}'] == "1"
    helped = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {name.split("{")[0] for name in samples} == helped
    for line in lines:
        assert line.startswith("#") or float(line.rsplit(" ", 1)[1]) >= 0


def test_it_answers_in_milliseconds_however_busy_the_database_is(own_database, watcher, address):
    watcher.look()
    with psycopg.connect(ready_url()) as connection:
        connection.execute("LOCK TABLE operations.freshness, operations.alerts, archive.batches")
        took = []
        with httpx.Client() as client:
            for _ in range(200):
                started = time.perf_counter()
                assert client.get(f"{address}/health").status_code == 200
                took.append(time.perf_counter() - started)
    # Some milliseconds, said loosely because other programs share the machine; a locked read would take for ever.
    assert statistics.median(took) < 0.1


def test_a_database_that_goes_away_is_said_and_found_again(tmp_path, monkeypatch, watcher, address):
    server = EmbeddedPostgres(tmp_path / "postgres")
    server.start()
    monkeypatch.setenv("TRACKER_DATABASE_URL", server.url)
    forget_settings()
    watcher.look()
    assert httpx.get(f"{address}/health/simple").status_code == 200
    server.stop_if_unused()
    watcher.look()
    simple = httpx.get(f"{address}/health/simple")
    assert (simple.status_code, simple.text) == (503, "DOWN\n")
    assert httpx.get(f"{address}/health").json()["status"] == "down"
    assert 'tracker_up{part="database"} 0' in httpx.get(f"{address}/metrics").text
    again = EmbeddedPostgres(tmp_path / "postgres")
    again.start()
    try:
        watcher.look()
        assert httpx.get(f"{address}/health/simple").status_code == 200
    finally:
        watcher._forget_connection()
        again.stop_if_unused()


def test_a_port_in_use_is_one_sentence(watcher):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PermanentError, match="cannot be used for the health service"):
            HealthServer("127.0.0.1", taken.getsockname()[1], watcher)


def test_it_loads_neither_dagster_nor_the_exchanges():
    import subprocess
    import sys

    script = (
        "import sys, tracker_pipeline.commands.health;"
        "print([m for m in ('dagster', 'ccxt', 'web3', 'apprise') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"
