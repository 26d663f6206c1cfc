"""The sandbox starts when its address is first used, is shared, and ends with its last user."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tracker_pipeline.resources import sandbox_process
from tracker_pipeline.resources.errors import PermanentError

USE = (
    "import sys; from tracker_pipeline.resources.sandbox_process import resolve;"
    "print(resolve('sandbox://exchange'), flush=True); sys.stdin.readline()"
)


def start_user(home: Path) -> tuple[subprocess.Popen, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", USE],
        env={**os.environ, "TRACKER_HOME": str(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def sandbox_pid(home: Path) -> int:
    return json.loads((home / "sandbox" / "addresses.json").read_text())["pid"]


@pytest.mark.slow
def test_it_is_shared_and_ends_with_its_last_user(tmp_path):
    first, address = start_user(tmp_path)
    second, same_address = start_user(tmp_path)
    assert address == same_address
    assert httpx.get(f"{address}/v5/market/time").json()["retCode"] == 0
    pid = sandbox_pid(tmp_path)
    first.communicate("\n", timeout=30)
    os.kill(pid, 0)
    second.communicate("\n", timeout=30)
    assert wait_until_gone(pid)


@pytest.mark.slow
def test_it_ends_by_itself_when_its_users_were_killed(tmp_path):
    user, _ = start_user(tmp_path)
    pid = sandbox_pid(tmp_path)
    user.kill()
    user.wait()
    assert wait_until_gone(pid)
    assert not (tmp_path / "sandbox" / "addresses.json").exists()


@pytest.mark.slow
def test_a_killed_sandbox_is_replaced_and_its_chain_is_the_same_chain(tmp_path):
    def block(user_home: Path) -> dict:
        chain = json.loads((user_home / "sandbox" / "addresses.json").read_text())["addresses"]["chain"]
        request = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": ["0x40", False]}
        return httpx.post(chain, json=request, timeout=60).json()["result"]

    user, _ = start_user(tmp_path)
    before = block(tmp_path)
    os.kill(sandbox_pid(tmp_path), signal.SIGKILL)
    user.communicate("\n", timeout=30)
    again, _ = start_user(tmp_path)
    after = block(tmp_path)
    again.communicate("\n", timeout=30)
    assert before["hash"] == after["hash"]
    assert datetime.fromtimestamp(int(before["timestamp"], 16), UTC) < datetime.now(UTC)


def test_a_name_that_it_does_not_serve_is_refused(monkeypatch):
    monkeypatch.setattr(
        sandbox_process, "_sandbox", lambda home: {"exchange": "http://x", "chain": "http://y"}
    )
    assert sandbox_process.resolve("sandbox://chain/whales.csv") == "http://y/whales.csv"
    assert sandbox_process.resolve("https://real.example/a") == "https://real.example/a"
    with pytest.raises(PermanentError, match="serves chain, exchange, not 'moon'"):
        sandbox_process.resolve("sandbox://moon")
