"""`tracker archive`: the archive from the shell.

What belongs here: which days, and reports. What does not: the move itself (`storage.archive`).
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from tracker_pipeline.domain.schemas import TABLES, Table
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.archive import hot_days, move_day
from tracker_pipeline.storage.lake_store import lake_store, sha256_of
from tracker_pipeline.storage.sweeping import sweep

_RUN_ID = "tracker archive run"
STRAY = "not in the manifest"


def run_archive(name: str, *, day: date | None, cut: datetime | None, dry_run: bool) -> list[dict[str, Any]]:
    """Move the closed days of a table before `cut`, or say what would move.

    Raises:
        PermanentError: the table is unknown or is never archived.
    """
    table = _archived_table(name)
    cut = cut or datetime.now(UTC) - timedelta(days=get_config().archive.hot_days[name])
    counts = hot_days(table)
    chosen = {d: n for d, n in counts.items() if (day is None or d == day) and _ends(d) <= cut}
    if dry_run:
        return [{"table": name, "day": d, "would_move": n} for d, n in chosen.items()]
    moved = [move_day(table, d, cut=cut, run_id=_RUN_ID) for d in chosen]
    sweep()
    return [
        {
            "table": name,
            "day": m.day,
            "rows_moved": m.rows_moved,
            "rows_cold": m.rows_cold,
            "note": m.reason,
        }
        for m in moved
    ]


def archive_overview(name: str | None) -> list[dict[str, Any]]:
    """Hot and cold rows, files and bytes of each archived table."""
    tables = [_archived_table(name)] if name else [TABLES[n] for n in get_config().archive.hot_days]
    parts = scan("archive.batches").filter(pl.col("state") == "live").collect()
    overview = []
    for table in tables:
        own = parts.filter(pl.col("table_name") == table.name)
        overview.append(
            {
                "table": table.name,
                "hot_days": get_config().archive.hot_days[table.name],
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
    policies = get_config().archive.hot_days
    if name not in policies:
        raise PermanentError(f"{name} is not archived; archived tables are {', '.join(sorted(policies))}")
    return TABLES[name]


def _ends(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC) + timedelta(days=1)
