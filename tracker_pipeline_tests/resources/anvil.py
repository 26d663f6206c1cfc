"""A real node for tests: anvil, from the npm package `@foundry-rs/anvil`, fetched once a machine.

What belongs here: getting, starting and steering it. What does not: what is asked of it.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

VERSION = "1.7.1"
# Kept between sessions: the package has 44 MB. TRACKER variables are not looked at, tests clear them.
_FOLDER = Path(tempfile.gettempdir()) / f"tracker-anvil-{VERSION}-{os.getuid()}"


def anvil_program() -> Path:
    """The program, installed on the first call; skips the test where there is no npm or no way to its packages."""
    found = next(_FOLDER.glob("node_modules/@foundry-rs/anvil-*/bin/anvil"), None)
    if found is None:
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed, so there is no anvil")
        command = [
            "npm",
            "install",
            "--ignore-scripts",
            "--prefix",
            str(_FOLDER),
            f"@foundry-rs/anvil@{VERSION}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        found = next(_FOLDER.glob("node_modules/@foundry-rs/anvil-*/bin/anvil"), None)
        if found is None:
            pytest.skip(f"npm cannot install anvil: {done.stderr[-200:]}")
    return found


class Anvil:
    """A running node.

    Attributes:
        url: where it answers.
        process: the program.
    """

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.process = process
        self._http = httpx.Client(timeout=60)  # one for all: each new one costs 50 ms

    def call(self, method: str, *params: Any) -> Any:
        """The result of one method."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = self._http.post(self.url, json=request).json()
        assert "error" not in answer, answer
        return answer["result"]

    def fund(self, balances: Mapping[str, int]) -> None:
        """Give addresses their balances, in wei."""
        batch = [
            {"jsonrpc": "2.0", "id": 1, "method": "anvil_setBalance", "params": [address, hex(wei)]}
            for address, wei in balances.items()
        ]
        for start in range(0, len(batch), 2000):
            self._http.post(self.url, json=batch[start : start + 2000]).raise_for_status()

    def mine(self, at: int) -> None:
        """Mine a block of a Unix time."""
        self.call("evm_setNextBlockTimestamp", at)
        self.call("evm_mine")


@contextmanager
def running_anvil(*options: str, chain_id: int = 1337, start: int = 1_772_323_200) -> Iterator[Anvil]:
    """A node that mines only when told; block 0 is at the Unix time `start`, 2026-03-01."""
    program = anvil_program()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(program), "--port", str(port), "--chain-id", str(chain_id), "--accounts", "1", "--silent"]
    fixed = ["--no-mining", "--timestamp", str(start), "--no-request-size-limit"]
    process = subprocess.Popen([*command, *fixed, *options], stdout=subprocess.DEVNULL)
    node = Anvil(f"http://127.0.0.1:{port}", process)
    try:
        _wait_for(node)
        yield node
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)


def _wait_for(node: Anvil) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            node.call("eth_chainId")
        except httpx.HTTPError:
            if time.monotonic() > end or node.process.poll() is not None:
                raise
            time.sleep(0.05)
        else:
            return


def addresses(count: int) -> list[str]:
    """Addresses that are always the same, in no order."""
    return ["0x" + hashlib.sha256(f"address {number}".encode()).hexdigest()[:40] for number in range(count)]
