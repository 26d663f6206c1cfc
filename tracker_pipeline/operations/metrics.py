"""The figures of the health page and of /metrics, read in a few milliseconds each.

Row counts of Postgres are the planner's estimates: exact ones would read every table each time. Those of the lake are
the manifest's and exact.

What belongs here: figures and their Prometheus form. What does not: HTTP (`commands.health`), judgements (`causes`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from tracker_pipeline.domain.schemas import TABLES
from tracker_pipeline.operations import instance_state
from tracker_pipeline.settings import get_settings
from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.lake_store import free_disk_bytes

# The planner's estimate; of a table never analyzed, the count of the statistics, which a crash forgets. Where
# neither is known of a table that has bytes, its number of rows is unknown and left out: it is not 0.
_ROWS: Final = """
SELECT t.name, coalesce(sum(known.rows), 0)::bigint
FROM unnest(%s::text[]) AS t(name)
LEFT JOIN LATERAL (
    SELECT relid FROM pg_partition_tree(to_regclass(t.name)) WHERE isleaf
    UNION
    SELECT oid FROM pg_class WHERE oid = to_regclass(t.name) AND relkind = 'r'
) AS leaf(relid) ON true
LEFT JOIN pg_class c ON c.oid = leaf.relid
LEFT JOIN LATERAL (
    SELECT CASE WHEN c.reltuples >= 0 THEN c.reltuples
                WHEN pg_relation_size(c.oid) = 0 THEN 0
                ELSE nullif(pg_stat_get_live_tuples(c.oid), 0) END
) AS known(rows) ON true
WHERE to_regclass(t.name) IS NOT NULL
GROUP BY t.name HAVING bool_and(c.oid IS NULL OR known.rows IS NOT NULL)
"""
_COLD: Final = """
SELECT table_name, sum(rows)::bigint, sum(bytes)::bigint, count(*)
FROM archive.batches WHERE state = 'live' GROUP BY 1
"""


@dataclass(frozen=True)
class Figures:
    """What there is at one moment; counts by the names in their keys."""

    at: datetime
    hot_rows: Mapping[str, int] = field(default_factory=dict)
    cold_rows: Mapping[str, int] = field(default_factory=dict)
    archive_bytes: Mapping[str, int] = field(default_factory=dict)
    archive_files: Mapping[str, int] = field(default_factory=dict)
    lag_seconds: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[tuple[str, str], int] = field(default_factory=dict)
    gaps: Mapping[tuple[str, str], int] = field(default_factory=dict)
    runs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    last_success: Mapping[str, datetime] = field(default_factory=dict)
    heartbeats: Mapping[str, int] = field(default_factory=dict)
    instance_bytes: Mapping[str, int] = field(default_factory=dict)
    queue_age_seconds: int = 0
    connections: int = 0
    connections_allowed: int = 0
    deliveries: Mapping[str, int] = field(default_factory=dict)
    free_disk_bytes: int = 0

    @property
    def healthy_pct(self) -> float | None:
        """Share of series that are fresh or recovered; None where there is none."""
        total = sum(self.states.values())
        good = sum(n for (_, state), n in self.states.items() if state in ("fresh", "recovered"))
        return round(100 * good / total, 1) if total else None


def collect(connection: Connection, now: datetime) -> Figures:
    """Read all figures."""
    rows = connection.execute(
        _ROWS, [[name for name, table in TABLES.items() if table.store == "postgres"]]
    ).fetchall()
    cold = connection.execute(_COLD).fetchall()
    lag, states = _freshness(connection)
    there = instance_state.is_there(connection)
    return Figures(
        at=now,
        hot_rows=dict(rows),
        cold_rows={name: count for name, count, _, _ in cold},
        archive_bytes={name: size for name, _, size, _ in cold},
        archive_files={name: files for name, _, _, files in cold},
        lag_seconds=lag,
        states=states,
        gaps=_gaps(connection),
        runs=instance_state.run_counts(connection, now) if there else {},
        last_success=instance_state.last_success(connection) if there else {},
        heartbeats=instance_state.heartbeat_ages_seconds(connection, now) if there else {},
        instance_bytes=instance_state.database_bytes(connection),
        queue_age_seconds=instance_state.queue_age_seconds(connection, now) if there else 0,
        connections=_number(connection, "SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL"),
        connections_allowed=_number(connection, "SELECT current_setting('max_connections')::int"),
        deliveries=dict(
            connection.execute("SELECT status, count(*) FROM operations.deliveries GROUP BY 1").fetchall()
        ),
        free_disk_bytes=free_disk_bytes(get_settings().state_folder),
    )


def _freshness(connection: Connection) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    rows = connection.execute("SELECT table_name, state, age_seconds FROM operations.freshness").fetchall()
    lag: dict[str, int] = {}
    for table, _, age in rows:
        lag[table] = max(lag.get(table, 0), age or 0)
    return lag, dict(Counter((table, state) for table, state, _ in rows))


def _gaps(connection: Connection) -> dict[tuple[str, str], int]:
    if not _number(connection, "SELECT (to_regclass('market.bar_gaps') IS NOT NULL)::int"):
        return {}
    rows = connection.execute(
        "SELECT timeframe, state, sum(bars)::bigint FROM market.bar_gaps WHERE resolved_at IS NULL GROUP BY 1, 2"
    ).fetchall()
    return {(timeframe, state): bars for timeframe, state, bars in rows}


def _number(connection: Connection, statement: str) -> int:
    row = connection.execute(statement).fetchone()
    return int(row[0]) if row else 0


def prometheus(figures: Figures, *, alerts: Iterable[tuple[str, str]], up: Mapping[str, bool]) -> str:
    """The figures in the text format of Prometheus.

    Args:
        figures: as last read.
        alerts: cause and severity of each open alert.
        up: whether each part answers.
    """
    lines: list[str] = []
    gauge = _Gauges(lines)
    gauge("tracker_up", "Whether a part answers", ("part",), [((k,), int(v)) for k, v in up.items()])
    gauge("tracker_rows", "Rows; hot ones estimated", ("table", "tier"), _tiered(figures))
    gauge("tracker_archive_bytes", "Size of live parts", ("table",), _keyed(figures.archive_bytes))
    gauge("tracker_archive_files", "Live parts", ("table",), _keyed(figures.archive_files))
    gauge("tracker_lag_seconds", "Age of the oldest series", ("table",), _keyed(figures.lag_seconds))
    gauge("tracker_series", "Series by freshness", ("table", "state"), list(figures.states.items()))
    gauge("tracker_gap_bars", "Unresolved missing bars", ("timeframe", "state"), list(figures.gaps.items()))
    gauge("tracker_runs_1d", "Runs of the past day", ("job", "status"), list(figures.runs.items()))
    successes = {job: int(at.timestamp()) for job, at in figures.last_success.items()}
    gauge("tracker_last_success_timestamp_seconds", "Last success", ("job",), _keyed(successes))
    gauge(
        "tracker_daemon_silent_seconds", "Since the last heartbeat", ("daemon",), _keyed(figures.heartbeats)
    )
    gauge(
        "tracker_run_queue_age_seconds",
        "Wait of the oldest queued run",
        (),
        [((), figures.queue_age_seconds)],
    )
    gauge("tracker_instance_bytes", "Dagster's own tables", ("table",), _keyed(figures.instance_bytes))
    gauge("tracker_database_connections", "Connections in use", (), [((), figures.connections)])
    gauge("tracker_database_connections_allowed", "Most allowed", (), [((), figures.connections_allowed)])
    gauge("tracker_deliveries", "Messages by outcome", ("status",), _keyed(figures.deliveries))
    gauge("tracker_disk_free_bytes", "On the state folder's disk", (), [((), figures.free_disk_bytes)])
    gauge("tracker_alert_open", "Open alerts", ("cause", "severity"), [(alert, 1) for alert in alerts])
    gauge("tracker_collected_timestamp_seconds", "Age of all this", (), [((), int(figures.at.timestamp()))])
    return "\n".join(lines) + "\n"


class _Gauges:
    """Appends gauges; one without samples is left out."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def __call__(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...],
        samples: Sequence[tuple[tuple[str, ...], Any]],
    ) -> None:
        if not samples:
            return
        self._lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        for values, number in samples:
            pairs = ",".join(f'{k}="{_escaped(v)}"' for k, v in zip(labels, values, strict=True))
            self._lines.append(f"{name}{{{pairs}}} {number}" if pairs else f"{name} {number}")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _keyed(numbers: Mapping[str, int]) -> list[tuple[tuple[str, ...], int]]:
    return [((name,), number) for name, number in sorted(numbers.items())]


def _tiered(figures: Figures) -> list[tuple[tuple[str, ...], int]]:
    hot = [((name, "hot"), n) for name, n in sorted(figures.hot_rows.items())]
    return [*hot, *(((name, "cold"), n) for name, n in sorted(figures.cold_rows.items()))]
