"""What Dagster's own tables say, read with SQL: it works while Dagster is down, and costs no import of Dagster.

What belongs here: reads of the schema `dagster`. What does not: what follows from them (`causes`, `metrics`).
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tracker_pipeline.storage.database import Connection

# Runs that nobody watches: those of schedules and sensors. A person sees the runs that they start themselves, and a
# backfill says on its own page which of its partitions failed.
_LAST_RUNS: Final = """
SELECT DISTINCT ON (r.pipeline_name) r.pipeline_name, r.run_id, r.status, to_timestamp(r.end_time)
FROM dagster.runs r
WHERE r.status IN ('SUCCESS', 'FAILURE') AND r.end_time > %(since)s
  AND EXISTS (SELECT FROM dagster.run_tags t WHERE t.run_id = r.run_id
              AND t.key IN ('dagster/schedule_name', 'dagster/sensor_name'))
  AND NOT EXISTS (SELECT FROM dagster.run_tags t WHERE t.run_id = r.run_id AND t.key = 'dagster/backfill')
ORDER BY r.pipeline_name, r.end_time DESC
"""

_FAILED_CHECKS: Final = """
SELECT asset_key, check_name, evaluation_event FROM (
    SELECT DISTINCT ON (asset_key, check_name) asset_key, check_name, execution_status, evaluation_event
    FROM dagster.asset_check_executions c
    WHERE execution_status <> 'PLANNED' AND create_timestamp > %(since)s
      AND NOT EXISTS (SELECT FROM dagster.run_tags t WHERE t.run_id = c.run_id AND t.key = 'dagster/backfill')
    ORDER BY asset_key, check_name, id DESC) newest
WHERE execution_status = 'FAILED'
"""

_FIRST_ERROR: Final = """
SELECT step_key, event FROM dagster.event_logs
WHERE run_id = %s AND dagster_event_type IN ('STEP_FAILURE', 'RUN_FAILURE', 'PIPELINE_FAILURE')
ORDER BY CASE dagster_event_type WHEN 'STEP_FAILURE' THEN 0 ELSE 1 END, id LIMIT 1
"""


@dataclass(frozen=True)
class FailedRun:
    """The last unattended run of a job, where it failed."""

    job: str
    run_id: str
    ended_at: datetime
    reason: str


@dataclass(frozen=True)
class FailedCheck:
    """A check whose last evaluation failed with severity ERROR."""

    asset: str
    check: str
    description: str


def is_there(connection: Connection) -> bool:
    """Whether Dagster has ever made its tables."""
    row = connection.execute("SELECT to_regclass('dagster.asset_check_executions') IS NOT NULL").fetchone()
    return bool(row and row[0])


def failed_runs(connection: Connection, now: datetime) -> list[FailedRun]:
    """Jobs whose last unattended run of the past week failed."""
    since = (now - timedelta(days=7)).timestamp()
    rows = connection.execute(_LAST_RUNS, {"since": since}).fetchall()
    return [
        FailedRun(job, run_id, ended, _reason(connection, run_id))
        for job, run_id, status, ended in rows
        if status == "FAILURE"
    ]


def failed_checks(connection: Connection, since: datetime) -> list[FailedCheck]:
    """Checks that failed when they were last evaluated since a moment; those that only warn are left out."""
    naive = since.astimezone(UTC).replace(tzinfo=None)
    found = []
    for asset, check, event in connection.execute(_FAILED_CHECKS, {"since": naive}).fetchall():
        data = _specific_data(event)
        if _enum(data.get("severity")) == "WARN":
            continue
        found.append(
            FailedCheck("/".join(json.loads(asset)), check, str(data.get("description") or "failed"))
        )
    return found


def run_counts(connection: Connection, now: datetime) -> dict[tuple[str, str], int]:
    """Number of runs of the past day by job and status."""
    since = (now - timedelta(days=1)).replace(tzinfo=None)
    rows = connection.execute(
        "SELECT pipeline_name, status, count(*) FROM dagster.runs WHERE create_timestamp > %s GROUP BY 1, 2",
        [since],
    ).fetchall()
    return {(job, status): count for job, status, count in rows}


def last_success(connection: Connection) -> dict[str, datetime]:
    """When a run of each job last succeeded."""
    return dict(
        connection.execute(
            "SELECT pipeline_name, to_timestamp(max(end_time)) FROM dagster.runs WHERE status = 'SUCCESS' GROUP BY 1"
        ).fetchall()
    )


def queue_age_seconds(connection: Connection, now: datetime) -> int:
    """How long the oldest queued run has waited; 0 where none waits."""
    row = connection.execute(
        "SELECT extract(epoch FROM %s - min(create_timestamp)) FROM dagster.runs WHERE status = 'QUEUED'",
        [now.replace(tzinfo=None)],
    ).fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def heartbeat_ages_seconds(connection: Connection, now: datetime) -> dict[str, int]:
    """How long ago each part of the daemon was last alive."""
    rows = connection.execute("SELECT daemon_type, timestamp FROM dagster.daemon_heartbeats").fetchall()
    naive = now.replace(tzinfo=None)
    return {kind: max(0, int((naive - at).total_seconds())) for kind, at in rows}


def database_bytes(connection: Connection) -> dict[str, int]:
    """Size of the largest tables of the instance, indexes included."""
    return dict(
        connection.execute(
            "SELECT c.relname, pg_total_relation_size(c.oid) FROM pg_class c JOIN pg_namespace n"
            " ON n.oid = c.relnamespace WHERE n.nspname = 'dagster' AND c.relkind = 'r'"
        ).fetchall()
    )


def _reason(connection: Connection, run_id: str) -> str:
    row = connection.execute(_FIRST_ERROR, [run_id]).fetchone()
    if row is None:
        return "the run ended without saying why: its process was killed or never started"
    step, event = row
    data = _specific_data(event)
    described = (data.get("user_failure_data") or {}).get("description")
    words = described or _root_message(data.get("error")) or "no reason recorded"
    return f"{(step or '').replace('__', '/')}: {' '.join(str(words).split())[:400]}".removeprefix(": ")


def _root_message(error: Any) -> str:
    while isinstance(error, dict) and error.get("cause"):
        error = error["cause"]
    return str(error.get("message", "")) if isinstance(error, dict) else ""


def _specific_data(event: str | None) -> dict[str, Any]:
    try:
        parsed = json.loads(event or "{}")
    except ValueError:
        return {}
    inner = parsed.get("dagster_event") or parsed
    return inner.get("event_specific_data") or {}


def _enum(value: Any) -> str:
    """Dagster writes an enumeration as {"__enum__": "Name.MEMBER"}."""
    text = value.get("__enum__", "") if isinstance(value, dict) else str(value or "")
    return str(text).rsplit(".", 1)[-1]
