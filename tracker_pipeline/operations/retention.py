"""Keeps Dagster's own records small: old runs and their events go, the newest materialization of everything stays.

Dagster purges ticks and nothing else; a materialized partition costs about 60 events, so that a year of hourly
partitions is millions of rows. What the UI needs of an old partition is its newest materialization and the newest
result of its checks. Those events stay, and the run that they belong to as well, so that a click on it leads
somewhere.

What belongs here: what goes and in which order. What does not: when (`assets.instance_retention`).
"""

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from tracker_pipeline.storage.database import Connection

# One transaction holds at most so many deletions: runs that write events meanwhile wait no longer.
_BATCH: Final = 20_000

_KEEP: Final = """
CREATE TEMP TABLE kept_events ON COMMIT PRESERVE ROWS AS
SELECT max(id) AS id FROM dagster.event_logs
WHERE dagster_event_type IN ('ASSET_MATERIALIZATION', 'ASSET_OBSERVATION') AND asset_key IS NOT NULL
GROUP BY dagster_event_type, asset_key, partition
UNION
SELECT evaluation_event_storage_id FROM (
    SELECT DISTINCT ON (asset_key, check_name, partition) evaluation_event_storage_id
    FROM dagster.asset_check_executions
    WHERE evaluation_event_storage_id IS NOT NULL AND execution_status <> 'PLANNED'
    ORDER BY asset_key, check_name, partition, id DESC) newest
"""
_ENDED: Final = """
SELECT run_id FROM dagster.runs
WHERE status IN ('SUCCESS', 'FAILURE', 'CANCELED')
  AND coalesce(to_timestamp(end_time), update_timestamp AT TIME ZONE 'UTC') < %(before)s
"""
_DELETE_EVENTS: Final = f"""
DELETE FROM dagster.event_logs WHERE id IN (
    SELECT e.id FROM dagster.event_logs e
    WHERE NOT EXISTS (SELECT FROM kept_events k WHERE k.id = e.id)
      AND (e.run_id IN ({_ENDED})
           OR (e.dagster_event_type = 'ASSET_MATERIALIZATION' AND e.timestamp < %(naive)s
               AND NOT EXISTS (SELECT FROM dagster.runs r WHERE r.run_id = e.run_id)))
    LIMIT %(batch)s)
"""  # noqa: S608  # its parts are constants of this module
_DELETE_EVENT_TAGS: Final = """
DELETE FROM dagster.asset_event_tags t
WHERE NOT EXISTS (SELECT FROM dagster.event_logs e WHERE e.id = t.event_id)
"""
_DELETE_CHECKS: Final = """
DELETE FROM dagster.asset_check_executions c
WHERE c.create_timestamp < %(naive)s
  AND (c.execution_status = 'PLANNED'
       OR EXISTS (SELECT FROM dagster.asset_check_executions later
                  WHERE later.asset_key = c.asset_key AND later.check_name = c.check_name
                    AND later.partition IS NOT DISTINCT FROM c.partition AND later.id > c.id))
"""
_DELETE_RUNS: Final = f"""
DELETE FROM dagster.runs r WHERE r.run_id IN ({_ENDED})
  AND NOT EXISTS (SELECT FROM dagster.event_logs e WHERE e.run_id = r.run_id)
RETURNING run_id
"""  # noqa: S608  # the same
_DELETE_TICKS: Final = """
DELETE FROM dagster.job_ticks
WHERE (timestamp < %(naive)s OR (status = 'SKIPPED' AND timestamp < %(skipped)s))
"""
_DELETE_BACKFILLS: Final = """
DELETE FROM dagster.bulk_actions
WHERE status LIKE 'COMPLETED%%' AND timestamp < %(naive)s
"""


@dataclass(frozen=True)
class Removed:
    """What went and what is left."""

    runs_deleted: int
    events_deleted: int
    ticks_deleted: int
    log_files_deleted: int
    runs: int
    events: int
    database_bytes: int
    log_bytes: int


def prune(connection: Connection, *, before: datetime, now: datetime, logs: Path) -> Removed:
    """Remove what ended before a moment, batch by batch; what breaks off is gone on with next time.

    Args:
        connection: outside of any transaction.
        before: runs that ended earlier go.
        now: ticks that did nothing go a day before it.
        logs: folder of what steps printed, by run.
    """
    values = {
        "before": before,
        "naive": before.replace(tzinfo=None),
        "skipped": (now - timedelta(days=1)).replace(tzinfo=None),
        "batch": _BATCH,
    }
    connection.execute("DROP TABLE IF EXISTS kept_events")
    connection.execute(_KEEP)
    connection.execute("CREATE INDEX ON kept_events (id)")
    connection.commit()
    events = 0
    while deleted := connection.execute(_DELETE_EVENTS, values).rowcount:
        events += deleted
        connection.commit()
    connection.execute(_DELETE_EVENT_TAGS)
    connection.execute(_DELETE_CHECKS, values)
    runs = connection.execute(_DELETE_RUNS, values).fetchall()
    ticks = connection.execute(_DELETE_TICKS, values).rowcount
    connection.execute(_DELETE_BACKFILLS, values)
    connection.execute("DROP TABLE kept_events")
    connection.commit()
    files = _remove_logs(logs, before)
    return Removed(
        runs_deleted=len(runs),
        events_deleted=events,
        ticks_deleted=ticks,
        log_files_deleted=files,
        runs=_count(connection, "dagster.runs"),
        events=_count(connection, "dagster.event_logs"),
        database_bytes=_size(connection),
        log_bytes=sum(path.stat().st_size for path in logs.rglob("*") if path.is_file()),
    )


def _remove_logs(logs: Path, before: datetime) -> int:
    """Remove the folders of runs whose newest file is older than a moment; returns the number of files."""
    removed = 0
    for folder in logs.iterdir() if logs.is_dir() else []:
        files = [path for path in folder.rglob("*") if path.is_file()]
        if all(path.stat().st_mtime < before.timestamp() for path in files):
            removed += len(files)
            shutil.rmtree(folder, ignore_errors=True)
    return removed


def _count(connection: Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    return int(row[0]) if row else 0


def _size(connection: Connection) -> int:
    row = connection.execute(
        "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'dagster' AND c.relkind = 'r'"
    ).fetchone()
    return int(row[0]) if row else 0
