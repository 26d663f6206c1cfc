"""`tracker up`: Postgres, sandbox, code server, web interface, daemon and health service as one, ended together.

Each of Dagster's programs is a process of its own, as in `deploy/compose.yaml`, so that one which dies is started
again alone: runs are processes of the code server and go on while the daemon or the web interface is away. Under
`dagster dev` the death of one ends all, and the interface is away for half a minute.

What belongs here: starting and ending. What does not: what the schedules run.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tracker_pipeline.commands.project import PROJECT
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.resources.sandbox_process import resolve
from tracker_pipeline.settings import get_endpoints, get_settings
from tracker_pipeline.storage.database import ready_url

_STOP_SECONDS = 30
# A daemon that was killed comes back; one that cannot live says so after some tries.
_MOST_RESTARTS = 3
_RESTART_WINDOW_SECONDS = 600.0
_PR_SET_PDEATHSIG = 1
# The switches of schedules and sensors are kept by it: the same as in workspace.yaml.
_LOCATION = "tracker_pipeline"
_WORKSPACE = "load_from:\n  - grpc_server: {{location_name: {location}, socket: {socket}}}\n"


def run_up(*, host: str, port: int, health_port: int, say: Callable[[str], None]) -> int:
    """Run until Ctrl-C or SIGTERM; return 0 then, or the exit code of the program that ended by itself.

    Raises:
        PermanentError: a port is in use, or another one runs on this state folder.
    """
    _refuse_used_port(host, port, "--port")
    _refuse_used_port(host, health_port, "--health-port")
    with _alone():
        return _run(host, port, health_port, say)


def _run(host: str, port: int, health_port: int, say: Callable[[str], None]) -> int:
    ready_url()
    say("Postgres is up and migrated")
    for url in (get_endpoints().exchange_url, *get_endpoints().rpc_urls):
        if url and url.startswith("sandbox://"):
            say(f"{url} is served at {resolve(url)}")
    home = {"DAGSTER_HOME": _dagster_home(), "TRACKER_HOME": str(get_settings().state_folder)}
    say(f"the web interface comes up at http://{host}:{port}; Ctrl-C stops everything")
    say(f"health at http://{host}:{health_port}/health, metrics at http://{host}:{health_port}/metrics")
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: stopped.append(received))
    # A folder of its own keeps the path of the socket short, and closed to other users.
    with tempfile.TemporaryDirectory(prefix="tracker-code-") as folder:
        address, workspace = Path(folder) / "socket", Path(folder) / "workspace.yaml"
        workspace.write_text(_WORKSPACE.format(location=_LOCATION, socket=address))
        code_server = ["dagster", "code-server", "start", "-m", "tracker_pipeline.definitions"]
        code_server += ["--location-name", _LOCATION, "--socket", str(address)]
        web = ["dagster_webserver", "-w", str(workspace), "-h", host, "-p", str(port)]
        web += ["--live-data-poll-rate", "2000", "--db-pool-max-overflow", "3"]
        daemon = ["dagster._daemon", "run", "-w", str(workspace)]
        health = ["tracker_pipeline", "health", "--host", host, "--port", str(health_port)]
        parts = [_Part("the code server", code_server, home), _Part("the health service", health, home)]
        # What comes now asks the code server first, and would wait for a minute until it asks again.
        waiting = {"the web interface": web, "the daemon": daemon}
        code = 0
        while not stopped and not code:
            if waiting and _listens(address):
                parts += [_Part(name, module, home) for name, module in waiting.items()]
                waiting = {}
            time.sleep(0.2)
            code = next((found for part in parts if (found := part.kept_alive(say))), 0)
        say("stopping")
        for part in reversed(parts):
            _end(part.process)
    return code


@contextmanager
def _alone() -> Iterator[None]:
    """Keep a second one off the state folder: its daemon would do all twice. The lock ends with the process."""
    folder = get_settings().state_folder
    with (folder / "up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermanentError(
                f"tracker up runs already on {folder}: stop that one, or give this one a TRACKER_HOME of its own"
            ) from None
        yield


def _listens(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(address)) == 0


class _Part:
    """A program that is started again when it ends by itself, a few times."""

    def __init__(self, name: str, module: list[str], environment: dict[str, str]) -> None:
        self._name, self._module, self._environment = name, module, environment
        self._deaths: list[float] = []
        self.process = _start(module, environment)

    def kept_alive(self, say: Callable[[str], None]) -> int:
        """0, or the exit code once it has ended so often that starting it again is no help."""
        code = self.process.poll()
        if code is None:
            return 0
        _end(self.process)  # what it started must be gone before there is a second one of it
        now = time.monotonic()
        self._deaths = [*(at for at in self._deaths if now - at < _RESTART_WINDOW_SECONDS), now]
        if len(self._deaths) > _MOST_RESTARTS:
            say(f"{self._name} ended {len(self._deaths)} times within ten minutes, last with code {code}")
            return code if code > 0 else 1
        say(f"{self._name} ended with code {code} and is started again")
        self.process = _start(self._module, self._environment)
        return 0


def _start(module: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=PROJECT,
        env={**os.environ, **environment},
        start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others in order
        preexec_fn=_end_with_parent,  # noqa: PLW1509  # this process has no other threads
    )


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


def _refuse_used_port(host: str, port: int, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PermanentError(
                f"port {port} of {host} cannot be used ({error.strerror}): choose another with {option}"
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
