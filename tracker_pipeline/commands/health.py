"""`tracker health`: a read-only HTTP service that says how the installation is, also while Dagster is down.

Answers come from what was last read, so they take milliseconds however busy the database is; a thread reads anew
every quarter of a minute and looks once a minute at what is wrong (`operations.alerts.watch`).

What belongs here: HTTP and the loop. What does not: figures and judgements (`operations`).
"""

import json
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg

from tracker_pipeline.domain.alerting import Alert
from tracker_pipeline.operations import alerts, metrics
from tracker_pipeline.operations.freshness import ExchangeClock
from tracker_pipeline.resources.errors import PermanentError, PipelineError
from tracker_pipeline.storage.database import Connection, open_connection, ready_url

_READ_SECONDS = 15.0
_WATCH_SECONDS = 60.0
# A daemon writes a heartbeat every half minute.
SILENT_SECONDS = 120


@dataclass(frozen=True)
class Snapshot:
    """What was last read.

    Attributes:
        database: empty where it answers, else one sentence.
        clock: empty where the exchange tells the time, else one sentence.
    """

    figures: metrics.Figures
    alerts: list[Alert] = field(default_factory=list)
    database: str = "not read yet"
    clock: str = ""

    @property
    def dagster_is_up(self) -> bool:
        """Whether the daemon has been alive lately."""
        return bool(self.figures.heartbeats) and min(self.figures.heartbeats.values()) < SILENT_SECONDS

    @property
    def status(self) -> str:
        """`down` without a database, `critical` or `degraded` by the worst open alert, else `healthy`."""
        if self.database:
            return "down"
        severities = {alert.cause.severity for alert in self.alerts}
        return "critical" if "critical" in severities else "degraded" if severities else "healthy"

    def as_dict(self) -> dict[str, Any]:
        """The answer of /health."""
        figures = self.figures
        return {
            "status": self.status,
            "database": self.database or "answers",
            "dagster": "up" if self.dagster_is_up else "down",
            "healthy_pct": figures.healthy_pct,
            "alerts": [
                {
                    "cause": alert.cause.key,
                    "severity": alert.cause.severity,
                    "title": alert.cause.title,
                    "text": alert.cause.text,
                    "since": alert.opened_at.isoformat(),
                }
                for alert in self.alerts
            ],
            "lag_seconds": dict(figures.lag_seconds),
            "series": _nested(figures.states),
            "gap_bars": _nested(figures.gaps),
            "runs_1d": _nested(figures.runs),
            "instance_bytes": sum(figures.instance_bytes.values()),
            "archive_bytes": sum(figures.archive_bytes.values()),
            "connections": f"{figures.connections} of {figures.connections_allowed}",
            "free_disk_bytes": figures.free_disk_bytes,
            "clock": self.clock or "the exchange's",
            "read_at": figures.at.isoformat(),
        }


def _nested(counts: Any) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (outer, inner), number in counts.items():
        nested.setdefault(outer, {})[inner] = number
    return nested


class Watcher:
    """Reads in a thread of its own; a database that goes away is said and asked again.

    Args:
        watches: whether it also keeps the record of alerts and sends what is new.
        clock: of the exchange.
    """

    def __init__(self, *, watches: bool = True, clock: ExchangeClock | None = None) -> None:
        self.snapshot = Snapshot(metrics.Figures(at=datetime.now(UTC)))
        self._watches = watches
        self._clock = clock or ExchangeClock()
        self._connection: Connection | None = None
        self._watched = float("-inf")
        self._stopped = threading.Event()

    def run(self) -> None:
        """Read until stopped."""
        while not self._stopped.is_set():
            self.look()
            self._stopped.wait(_READ_SECONDS)

    def stop(self) -> None:
        """End `run` soon."""
        self._stopped.set()

    def look(self) -> Snapshot:
        """Read once."""
        try:
            connection = self._connected()
            now = self._clock.now()
            if self._watches and time.monotonic() - self._watched >= _WATCH_SECONDS:
                self._watched = time.monotonic()
                alerts.watch(connection, now)
            # Dagster's records bear the time of this machine, so its clock judges them.
            figures = metrics.collect(connection, datetime.now(UTC))
            opened = alerts.open_alerts(connection)
            connection.commit()
            self.snapshot = Snapshot(figures, opened, database="", clock=self._clock.note)
        except (psycopg.Error, PipelineError, OSError) as error:
            words = (
                " ".join(str(error).split())[:300] if isinstance(error, PipelineError) else "does not answer"
            )
            self._forget_connection()
            self.snapshot = Snapshot(self.snapshot.figures, self.snapshot.alerts, database=words)
        return self.snapshot

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = open_connection(ready_url())
        return self._connection

    def _forget_connection(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
        self._connection = None


def answer(path: str, snapshot: Snapshot) -> tuple[int, str, str]:
    """Status, content type and body of a request.

    /health answers 200 unless the database is down: a load balancer must not take the service away because a bar is
    late. /health/simple says OK or DOWN. /metrics is for Prometheus.
    """
    code = 503 if snapshot.database else 200
    if path == "/health":
        return code, "application/json", json.dumps(snapshot.as_dict(), indent=2)
    if path == "/health/simple":
        return code, "text/plain", "DOWN\n" if snapshot.database else "OK\n"
    if path == "/metrics":
        opened = [(alert.cause.key, alert.cause.severity) for alert in snapshot.alerts]
        up = {"database": not snapshot.database, "dagster": snapshot.dagster_is_up}
        return 200, "text/plain; version=0.0.4", metrics.prometheus(snapshot.figures, alerts=opened, up=up)
    return 404, "text/plain", "there is /health, /health/simple and /metrics\n"


class HealthServer(ThreadingHTTPServer):
    """Serves a watcher's snapshot.

    Raises:
        PermanentError: the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int, watcher: Watcher) -> None:
        self.watcher = watcher
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise PermanentError(
                f"port {port} of {host} cannot be used for the health service ({error.strerror}): choose another"
            ) from error


class _Handler(BaseHTTPRequestHandler):
    server: HealthServer
    protocol_version = "HTTP/1.1"
    # Head and body in one packet at once: else the second waits 40 ms for the first to be acknowledged.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:  # the name is the library's
        code, content_type, text = answer(self.path.split("?")[0], self.server.watcher.snapshot)
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", f"{content_type}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the library's
        """A request every few seconds is not worth a line."""


def serve(*, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    watcher = Watcher()
    server = HealthServer(host, port, watcher)
    reading = threading.Thread(target=watcher.run, daemon=True)
    reading.start()
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    say(f"health at http://{host}:{server.server_address[1]}/health, metrics at /metrics")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stopped.set())
    while not stopped.wait(0.5):
        pass
    watcher.stop()
    server.shutdown()
