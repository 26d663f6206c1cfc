"""All processes share one pace, one pause and one breaker for each host, and a killed one leaves nothing behind."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import stamina

from tracker_pipeline.resources import host_state
from tracker_pipeline.resources.bar_source import Outcome
from tracker_pipeline.resources.exchange import Exchange
from tracker_pipeline.resources.host_state import HostState, LeftAloneError
from tracker_pipeline.resources.limit_headers import retry_after, used_up_for
from tracker_pipeline_tests.resources.test_exchange_under_faults import NOW, venue

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def retries_without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


def elsewhere(folder: Path, code: str) -> subprocess.Popen[str]:
    """Run code in another process, with `host` at hand."""
    program = (
        "import sys, time, pathlib; from tracker_pipeline.resources.host_state import HostState;"
        f"host = HostState('venue', pathlib.Path({str(folder)!r}));{code}"
    )
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def test_processes_and_threads_take_turns_at_one_pace(tmp_path):
    take = "[(host.take_turn(0.05), print(time.time(), flush=True)) for _ in range(10)]"
    both = [elsewhere(tmp_path, take) for _ in range(2)]
    times = sorted(float(line) for process in both for line in process.communicate()[0].split())
    assert len(times) == 20
    # Twenty turns of 50 ms are 19 steps, however many share them; sleeping is never shorter than asked.
    assert times[-1] - times[0] >= 19 * 0.05 - 0.02


def test_a_pause_holds_for_everybody(tmp_path):
    here = HostState("venue", tmp_path)
    here.refused(0.6)
    began = time.time()
    waited = elsewhere(tmp_path, "b = time.time(); host.admit(); print(time.time() - b)")
    assert float(waited.communicate()[0]) + (time.time() - began) > 0.1
    here.admit()
    assert time.time() - began >= 0.55
    here.refused(3600)
    with pytest.raises(LeftAloneError, match="venue asked to be left alone until"):
        here.admit()


def test_refusals_without_a_time_pause_longer_each_time_and_an_answer_ends_that():
    host = HostState("venue")
    pauses = [host.refused(None) for _ in range(5)]
    assert all(0.125 * 2**n <= pause <= 0.25 * 2**n for n, pause in enumerate(pauses))
    host.succeeded()
    assert host.refused(None) <= 0.25


def test_a_host_that_keeps_failing_is_left_alone_then_asked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(host_state, "OPEN_SECONDS", 0.4)
    host = HostState("venue", tmp_path)
    for _ in range(5):
        host.admit()
        host.failed()
    with pytest.raises(LeftAloneError, match="venue failed 5 times in a row and is left alone until"):
        HostState("venue", tmp_path).admit()
    time.sleep(0.45)
    host.admit()  # the probe
    with pytest.raises(LeftAloneError):
        HostState("venue", tmp_path).admit()
    host.failed()
    with pytest.raises(LeftAloneError, match="failed 6 times"):
        host.admit()
    time.sleep(0.45)
    host.admit()
    host.succeeded()
    HostState("venue", tmp_path).admit()


def test_a_killed_process_leaves_no_lock_no_probe_and_no_half_written_state(tmp_path, monkeypatch):
    monkeypatch.setattr(host_state, "OPEN_SECONDS", 0.3)
    host = HostState("venue", tmp_path)
    for _ in range(5):
        host.failed()
    time.sleep(0.35)
    hold = "c = host._changing(); c.__enter__(); print('held', flush=True); time.sleep(60)"
    holder = elsewhere(tmp_path, hold)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    prober = elsewhere(tmp_path, "host.admit(); print('probing', flush=True); time.sleep(60)")
    assert prober.stdout is not None
    assert prober.stdout.readline() == "probing\n"
    prober.kill()
    prober.wait()
    with pytest.raises(LeftAloneError):
        host.admit()  # the probe of the killed process may still be under way, as far as anybody knows
    (tmp_path / "venue").write_bytes(b"torn")
    host.admit()


def test_a_clock_that_was_set_back_stops_nobody(tmp_path, monkeypatch):
    host = HostState("venue", tmp_path)
    monkeypatch.setattr(host_state.time, "time", lambda: 2_000_000_000.0)
    host.take_turn(1.0)
    monkeypatch.undo()
    began = time.monotonic()
    host.take_turn(0.0)
    assert time.monotonic() - began < 5


def test_a_failing_venue_is_asked_five_times_for_ninety_symbols(tmp_path):
    symbols = tuple(f"C{i}" for i in range(30))
    with venue(symbols) as exchange:
        exchange.client = Exchange("bybit", "spot", url=exchange.url, workers=1, hosts=tmp_path)
        exchange.client.instruments()
        exchange.switch("server_error")
        found = exchange.client.bars_many([f"{name}/USDT" for name in symbols], "15m", NOW - DAY, NOW)
    assert {answer.outcome for answer in found.values()} == {Outcome.RETRYABLE}
    messages = [answer.message for answer in found.values()]
    assert "503" in messages[0]
    assert all("failed 5 times in a row and is left alone until" in message for message in messages[2:])


def test_one_throttled_client_makes_the_other_wait(tmp_path):
    with venue() as exchange:
        one, other = (Exchange("bybit", "spot", url=exchange.url, hosts=tmp_path) for _ in range(2))
        other.instruments()
        exchange.switch("throttle:retry_after=1,symbols=ETHUSDT,times=1")
        began = time.monotonic()
        assert one.bars("ETH/USDT", "15m", NOW - DAY, NOW).outcome is Outcome.OK
        assert time.monotonic() - began >= 0.95
        exchange.switch("throttle:retry_after=600,symbols=ETHUSDT")
        asked = one.bars("ETH/USDT", "15m", NOW - DAY, NOW)
        refused = other.bars("BTC/USDT", "15m", NOW - DAY, NOW)
    assert asked.outcome is refused.outcome is Outcome.RETRYABLE
    assert "it asks to be left alone for 600 s" in asked.message
    assert "asked to be left alone until" in refused.message


AT = datetime(2026, 3, 2, 8, 0, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "Mon, 02 Mar 2026 08:01:00 GMT"}, 20.0),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(headers, seconds):
    assert retry_after(headers, AT) == seconds


@pytest.mark.parametrize(
    ("headers", "market_type", "seconds"),
    [
        ({"X-MBX-USED-WEIGHT-1M": "5399"}, "spot", 0.0),
        ({"X-MBX-USED-WEIGHT-1M": "5400"}, "spot", 20.0),
        ({"x-mbx-used-weight-1m": "2300"}, "linear", 20.0),
        ({"X-Bapi-Limit-Status": "3"}, "spot", 0.0),
        (
            {
                "X-Bapi-Limit-Status": "0",
                "X-Bapi-Limit-Reset-Timestamp": str(int((AT.timestamp() + 2) * 1000)),
            },
            "spot",
            2.0,
        ),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "4"}, "spot", 4.0),
        ({"X-RateLimit-Remaining": "nonsense"}, "spot", 0.0),
    ],
)
def test_a_share_that_is_used_up_pauses_until_it_is_renewed(headers, market_type, seconds):
    assert used_up_for(headers, market_type, AT) == pytest.approx(seconds)
