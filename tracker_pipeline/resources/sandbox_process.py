"""The local sandbox as a process: started when a `sandbox://` address is first used, shared, stopped when unused.

What belongs here: the process and its addresses. What does not: what it serves (`tracker_pipeline.sandbox`, which
nothing here imports: it is started as a program), or any decision on the setting in force (`settings`).
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.resources.lease import Lease
from tracker_pipeline.settings import get_config, get_settings

_SCHEME = "sandbox://"
_STOP_SECONDS = 10
_START_SECONDS = 120  # a chain that has to catch up ten days takes most of a minute on two slow cores


class SandboxProcess:
    """The sandbox of one state folder.

    Args:
        home: the state folder.
        options: further command-line options for the sandbox program, used if this object starts it.
    """

    def __init__(self, home: Path, options: tuple[str, ...] = ()) -> None:
        self._folder = home / "sandbox"
        self._addresses = self._folder / "addresses.json"
        self._log = self._folder / "sandbox.log"
        self._lease = Lease(self._folder, "sandbox")
        self._options = options
        self._owner_pid = os.getpid()

    def start(self) -> Mapping[str, str]:
        """Make sure that the sandbox runs, as one of its users, and return its addresses by name.

        Raises:
            TransientError: it did not start; the text names the log file.
        """
        with self._lease.deciding():
            self._lease.join()
            addresses = self._running() or self._launch()
        atexit.register(self.stop_if_unused)
        return addresses

    def stop_if_unused(self) -> None:
        """Stop being a user, and stop the sandbox if nobody else is one."""
        if os.getpid() != self._owner_pid:
            return
        with self._lease.deciding():
            if self._lease.leave():
                self._stop()

    def _running(self) -> Mapping[str, str] | None:
        """The addresses of a sandbox that answers; a file that a killed one left, or a zombie, does not count."""
        try:
            addresses: Mapping[str, str] = json.loads(self._addresses.read_text())["addresses"]
            for address in addresses.values():
                parts = urlsplit(address)
                socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1).close()
        except (OSError, ValueError, KeyError):
            return None
        return addresses

    def _launch(self) -> Mapping[str, str]:
        self._addresses.unlink(missing_ok=True)
        command = [
            sys.executable, "-m", "tracker_pipeline.sandbox",
            "--folder", str(self._folder),
            "--symbols", ",".join(symbol.base for symbol in get_config().universe.symbols),
            "--stop-when-free", str(self._lease.users_file),
            *self._options,
        ]  # fmt: skip
        with self._log.open("a") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            addresses = self._running()
            if addresses:
                return addresses
            time.sleep(0.05)
        process.kill()
        raise TransientError(f"the sandbox did not start; its log is {self._log}")

    def _stop(self) -> None:
        try:
            pid = json.loads(self._addresses.read_text())["pid"]
            os.kill(pid, signal.SIGTERM)
        except (OSError, ValueError, KeyError):
            return
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline and self._running():
            time.sleep(0.02)


@cache
def _sandbox(home: Path) -> Mapping[str, str]:
    return SandboxProcess(home).start()


def resolve(url: str) -> str:
    """Return `url`, or the address that a `sandbox://` one stands for, starting the sandbox if needed.

    Raises:
        PermanentError: the sandbox serves nothing of that name.
    """
    if not url.startswith(_SCHEME):
        return url
    name, _, path = url.removeprefix(_SCHEME).partition("/")
    addresses = _sandbox(get_settings().state_folder)
    if name not in addresses:
        raise PermanentError(
            f"the sandbox serves {', '.join(sorted(addresses))}, not {name!r}: correct the URL {url}"
        )
    return addresses[name] + (f"/{path}" if path else "")
