"""`tracker up`: Postgres, sandbox, web interface and schedules as one, ended together.

What belongs here: starting and ending. What does not: what the schedules run.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from tracker_pipeline.commands.project import PROJECT
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.resources.sandbox_process import resolve
from tracker_pipeline.settings import get_endpoints, get_settings
from tracker_pipeline.storage.database import ready_url

_STOP_SECONDS = 30
_PR_SET_PDEATHSIG = 1


def run_up(*, host: str, port: int, say: Callable[[str], None]) -> int:
    """Run until Ctrl-C or SIGTERM; return 0 then, or the exit code of the program that ended by itself.

    Raises:
        PermanentError: the port is in use.
    """
    _refuse_used_port(host, port)
    ready_url()
    say("Postgres is up and migrated")
    for url in (get_endpoints().exchange_url, *get_endpoints().rpc_urls):
        if url and url.startswith("sandbox://"):
            say(f"{url} is served at {resolve(url)}")
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", host, "-p", str(port)],
        cwd=PROJECT,
        env={**os.environ, "DAGSTER_HOME": _dagster_home(), "TRACKER_HOME": str(get_settings().state_folder)},
        start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others in order
        preexec_fn=_end_with_parent,  # noqa: PLW1509  # this process has no other threads
    )
    say(f"the web interface comes up at http://{host}:{port}; Ctrl-C stops everything")
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: stopped.append(received))
    while not stopped and process.poll() is None:
        time.sleep(0.2)
    code = 0 if stopped else process.returncode or 1
    say("stopping")
    _end(process)
    return code


def _end_with_parent() -> None:
    """Ask Linux to interrupt this process when the one that started it dies, even by kill -9."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _dagster_home() -> str:
    """The folder that Dagster takes for its home: in the state folder, so that the project stays clean."""
    home = get_settings().state_folder / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PROJECT / "dagster.yaml", home / "dagster.yaml")
    return str(home)


def _refuse_used_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PermanentError(
                f"port {port} of {host} cannot be used ({error.strerror}): choose another with --port"
            ) from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt, wait, and kill what is left of the group."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
        if _group_is_gone(process.pid):
            return


def _group_is_gone(group: int) -> bool:
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False
