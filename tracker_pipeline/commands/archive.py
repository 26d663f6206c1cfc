"""`tracker archive`: the archive from the shell.

What belongs here: which days, and reports. What does not: the move itself (`storage.archive`).
"""

from datetime import date, datetime
from typing import Any

import polars as pl

from tracker_pipeline.domain.schemas import TABLES, Table
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.archive import TableReport, archive_tables, hot_days
from tracker_pipeline.storage.archive_policy import get_policies
from tracker_pipeline.storage.lake_store import lake_store, sha256_of
from tracker_pipeline.storage.sweeping import sweep

_RUN_ID = "tracker archive run"
STRAY = "not in the manifest"


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
    if not dry_run:
        sweep()
    records = [record for report in reports for record in _records(report, dry_run=dry_run)]
    return records, [f"{report.table}: {report.problem}" for report in reports if report.problem]


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
    """Hot and cold rows, files and bytes of each archived table."""
    tables = [_archived_table(name)] if name else [TABLES[n] for n in get_policies().archived if n in TABLES]
    parts = scan("archive.batches").filter(pl.col("state") == "live").collect()
    overview = []
    for table in tables:
        own = parts.filter(pl.col("table_name") == table.name)
        overview.append(
            {
                "table": table.name,
                "hot_days": get_policies().of(table.name).retention.days,
                "hot_rows": sum(hot_days(table).values()),
                "cold_rows": int(own.get_column("rows").sum()),
                "files": own.height,
                "bytes": int(own.get_column("bytes").sum()),
                "oldest_day": own.get_column("data_day").min(),
                "newest_day": own.get_column("data_day").max(),
            }
        )
    return overview


def audit(name: str | None) -> list[dict[str, Any]]:
    """Files that are missing, altered, or in the lake without a row in the manifest."""
    store = lake_store()
    parts = scan("archive.batches").collect()
    live = parts.filter(pl.col("state") == "live")
    if name:
        live = live.filter(pl.col("table_name") == _archived_table(name).name)
    problems = []
    for part in live.iter_rows(named=True):
        if store.size(part["path"]) is None:
            problems.append({"file": part["path"], "problem": "missing"})
        elif sha256_of(store, part["path"]) != part["sha256"]:
            problems.append({"file": part["path"], "problem": "altered"})
    listed = set(parts.get_column("path"))  # a replaced part stays until it is swept
    found = {file.path for file in store.list(name.replace(".", "/") if name else "")}
    problems += [{"file": path, "problem": STRAY} for path in sorted(found - listed)]
    return problems


def _archived_table(name: str) -> Table:
    get_policies().of(name)
    return TABLES[name]
