"""`tracker archive`: the archive from the shell.

What belongs here: which days, and reports. What does not: the move itself (`storage.archive`).
"""

import secrets
from datetime import date, datetime, timedelta
from typing import Any

from psycopg import sql

from tracker_pipeline.resources.errors import PipelineError
from tracker_pipeline.storage.archive import TableReport, archive_tables
from tracker_pipeline.storage.archive_policy import get_policies
from tracker_pipeline.storage.audit import Audit
from tracker_pipeline.storage.audit import audit as audit_lake
from tracker_pipeline.storage.compaction import compact_days
from tracker_pipeline.storage.database import Connection, connect
from tracker_pipeline.storage.drill import restore_drill
from tracker_pipeline.storage.part_insertion import OnConflict
from tracker_pipeline.storage.restore import restore_days
from tracker_pipeline.storage.sweeping import expire, sweep

_RUN_ID = "tracker archive"


def run_archive(
    name: str | None, *, day: date | None, cut: datetime | None, dry_run: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """Move the due rows of a table, or of all, or say what would move.

    Returns:
        A record for each day that was looked at, and for each table without one; and what went wrong, in sentences.

    Raises:
        PermanentError: the table has no policy, or a table has neither policy nor exemption.
    """
    reports = archive_tables(
        [name] if name else None, first=day, last=day, cut=cut, dry_run=dry_run, run_id=_RUN_ID
    )
    records = [record for report in reports for record in _records(report, dry_run=dry_run)]
    problems = [f"{report.table}: {report.problem}" for report in reports if report.problem]
    try:
        if not dry_run:
            sweep()
    except PipelineError as error:  # what moved is told all the same
        problems.append(str(error))
    return records, problems


def _records(report: TableReport, *, dry_run: bool) -> list[dict[str, Any]]:
    stays = str(report.left_behind)
    days: list[dict[str, Any]]
    empty: dict[str, Any]
    if dry_run:
        days = [{"day": m.day, "would_move": m.rows_moved, "note": m.reason} for m in report.days]
        empty = {"day": None, "would_move": 0, "note": report.problem}
    else:
        days = [
            {
                "day": m.day,
                "outcome": "moved" if m.rows_moved else "nothing",
                "rows_moved": m.rows_moved,
                "rows_cold": m.rows_cold,
                "bytes": m.bytes,
                "compression": m.compression,
                "note": m.reason,
            }
            for m in report.days
        ]
        empty = {
            "day": None,
            "outcome": report.outcome,
            "rows_moved": 0,
            "rows_cold": 0,
            "bytes": 0,
            "compression": None,
            "note": report.problem,
        }
    rows = days if days and not report.problem else [*days, empty]
    if not dry_run and report.outcome == "nothing" and not stays and not days:
        return []
    return [{"table": report.table, **row, "stays": stays, "cut": report.cut} for row in rows]


def archive_overview(name: str | None) -> list[dict[str, Any]]:
    """Hot and cold rows of each archived table, what they take, and how many times smaller the files are.

    `table_bytes` is what the archived rows took in Postgres with their share of the indexes, as far as that was
    recorded; `saved_bytes` is that less the files.

    Raises:
        PermanentError: the table has no policy.
    """
    policies = get_policies()
    chosen = {name: policies.of(name)} if name else policies.archived
    with connect() as connection:
        cold = {row[0]: row[1:] for row in connection.execute(_COLD).fetchall()}
        held = dict(connection.execute(_HELD).fetchall())
        hot = {table: _hot_size(connection, table) for table in chosen}
    overview = []
    for table, policy in chosen.items():
        rows, files, size, table_bytes, first, last = cold.get(table, (0, 0, 0, 0, None, None))
        overview.append(
            {
                "table": table,
                "group": policy.group,
                "mode": policy.mode,
                "retention_days": policy.retention.total_seconds() / 86_400,
                "hot_rows": hot[table][0],
                "hot_bytes": hot[table][1],
                "cold_rows": rows,
                "files": files,
                "bytes": size,
                "table_bytes": table_bytes,
                "saved_bytes": max(table_bytes - size, 0),
                "compression": round(table_bytes / size, 1) if size and table_bytes else None,
                "oldest_day": first,
                "newest_day": last,
                "held_days": held.get(table, 0),
            }
        )
    return overview


_COLD = """
SELECT table_name, sum(rows)::bigint, count(*), sum(bytes)::bigint, coalesce(sum(table_bytes), 0)::bigint,
       min(data_day), max(data_day)
FROM archive.batches WHERE state = 'live' GROUP BY 1
"""
_HELD = "SELECT table_name, count(*) FROM archive.holds WHERE held_until > now() GROUP BY 1"
# The tree of a table that is not partitioned is empty.
_HOT_SIZE = """
SELECT coalesce((SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree(t) WHERE isleaf),
                pg_total_relation_size(t))::bigint
FROM CAST(%s AS regclass) t
"""


def _hot_size(connection: Connection, name: str) -> tuple[int | None, int]:
    """Rows and bytes of a table in Postgres; no rows where it does not exist."""
    quoted = sql.Identifier(*name.split(".", 1))
    exists = connection.execute("SELECT to_regclass(%s)", [quoted.as_string(None)]).fetchone()
    if not exists or exists[0] is None:
        return None, 0
    count = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(quoted)).fetchone()
    size = connection.execute(_HOT_SIZE, [quoted.as_string(None)]).fetchone()
    return (count or (0,))[0], (size or (0,))[0]


def audit(name: str | None, *, quick: bool = False) -> Audit:
    """What differs between manifest and lake; quick compares sizes only."""
    return audit_lake([name] if name else None, quick=quick)


def restore(
    name: str,
    first: date | None,
    last: date | None,
    *,
    on_conflict: OnConflict,
    hold_days: float,
    dry_run: bool,
) -> list[dict[str, Any]]:
    """Restore archived days; a bound that is not given does not bound."""
    restored = restore_days(
        name,
        first or date.min,
        last or date.max,
        on_conflict=on_conflict,
        held_for=timedelta(days=hold_days),
        dry_run=dry_run,
        run_id=_RUN_ID,
    )
    return [vars(one) for one in restored]


def compact(name: str | None, day: date | None, *, dry_run: bool) -> list[dict[str, Any]]:
    """Merge the parts of days that have several."""
    bounds = (day or date.min, day or date.max)
    tables = [name] if name else list(get_policies().archived)
    return [
        vars(one) for table in tables for one in compact_days(table, *bounds, dry_run=dry_run, run_id=_RUN_ID)
    ]


def expire_and_sweep(*, dry_run: bool) -> list[dict[str, Any]]:
    """What cold retention let go of each table, and the files that were removed."""
    verb = "would " if dry_run else ""
    let_go = [
        {"what": f"{one.table}: {verb}let go {one.first} to {one.last}", "rows": one.rows, "files": one.parts}
        for one in expire(dry_run=dry_run)
    ]
    swept = sweep(dry_run=dry_run)
    removed = [("replaced", swept.replaced), ("never live", swept.leftover)]
    return let_go + [
        {"what": f"{verb}remove files: {kind}", "rows": None, "files": len(paths)}
        for kind, paths in removed
        if paths
    ]


def drill(name: str | None) -> list[dict[str, Any]]:
    """Rehearse the restore of a random archived day."""
    done = restore_drill(secrets.token_hex(8), name)
    return [vars(done)] if done else []
