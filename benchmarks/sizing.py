"""What an installation takes: bytes a row hot and cold, rows a day, memory and time of the jobs, Dagster's records.

    python -m benchmarks.sizing [--whales 1000] [--days 8]

Fills an embedded Postgres from the local sandbox (all symbols of the universe), runs what the hourly and the daily
schedules run, each run as a process of its own so that its peak of memory is its own, archives all of it, and scales
what was measured to a year. Nothing here is compared with anything: see the other benchmarks for that.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.operations import PROJECT, hour_key, installation, run_job

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MIB = 2**20
# Rows of these come with symbols or whales; the others are few.
TABLES = (
    "market.ohlc_15m",
    "market.ohlc_1h",
    "market.ohlc_4h",
    "market.ohlc_1d",
    "market.bar_coverage",
    "market.regimes",
    "features.ml_features_15m",
    "onchain.whale_balance_snapshots",
    "onchain.whale_candidates",
    "onchain.accumulation_scores",
)


@dataclass(frozen=True)
class Spent:
    """One process."""

    seconds: float
    peak_mib: float


def in_process(job: str, first: str | None = None, last: str | None = None) -> Spent:
    """Run a job in a fresh process, start-up and imports included."""
    command = [sys.executable, "-m", "benchmarks.sizing", "--job", job, first or "", last or first or ""]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=PROJECT)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{job} ended with {status}"
    return Spent(time.perf_counter() - started, usage.ru_maxrss / 1024)


def run_here(job: str, first: str, last: str) -> None:
    from tracker_pipeline.commands.project import shared_instance
    from tracker_pipeline.definitions import defs

    with shared_instance() as instance:
        run_job(defs, instance, job, first or None, last or None)


def figures(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    from tracker_pipeline.storage.database import connect

    with connect() as connection:
        return connection.execute(statement, list(values)).fetchall()


def hot_bytes(table: str) -> tuple[int, int]:
    """Bytes of a table with all its partitions: heap, and with indexes."""
    ((heap, whole),) = figures(
        "SELECT sum(pg_relation_size(oid))::bigint, sum(pg_total_relation_size(oid))::bigint FROM"
        " (SELECT %s::regclass AS oid UNION SELECT inhrelid FROM pg_inherits WHERE inhparent = %s::regclass) t",
        table,
        table,
    )
    return heap, whole


def show_rows(days: int, hours: int, symbols: int, whales: int) -> dict[str, int]:
    """Rows and bytes of each table; returns the rows."""
    from tracker_pipeline.domain.schemas import TABLES as DECLARED
    from tracker_pipeline.storage import scan

    print(f"rows of {days} days of {symbols} symbols and {hours} hours of {whales} whales:")
    print(f"  {'table':32}{'rows':>10}{'a day':>10}  hot bytes a row: heap, with indexes")
    counted = {}
    for name in TABLES:
        table = DECLARED[name]
        rows = scan(name).collect().height
        counted[name] = rows
        a_day = rows * 24 / hours if name.startswith("onchain.") else rows / days
        sizes = ""
        if table.store == "postgres" and rows:
            heap, whole = hot_bytes(name)
            sizes = f"{heap / rows:8.0f}{whole / rows:8.0f}"
        print(f"  {name:32}{rows:>10,}{a_day:>10,.0f}{sizes}")
    return counted


def archive_all(now: datetime) -> None:
    """Move every row of the archived tables that can be moved, whatever its age, and print bytes a row."""
    from tracker_pipeline.storage.archive import archive_tables
    from tracker_pipeline.storage.archive_policy import get_policies

    for table in get_policies().archived:
        if table not in TABLES:
            continue
        (report,) = archive_tables([table], first=None, last=now.date(), cut=now, run_id="sizing")
        report.raise_failure()
    for table, rows, size in figures(
        "SELECT table_name, sum(rows)::bigint, sum(bytes)::bigint FROM archive.batches WHERE state = 'live'"
        " AND rows > 0 GROUP BY 1 ORDER BY 1"
    ):
        print(f"  {table:32}{rows:>10,} rows cold, {size / rows:6.1f} bytes a row")


def records() -> tuple[int, int]:
    """Events and bytes of Dagster's own tables."""
    ((events,),) = figures("SELECT count(*) FROM dagster.event_logs")
    ((size,),) = figures(
        "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'dagster' AND c.relkind = 'r'"
    )
    return events, size


def show_jobs(now: datetime) -> None:
    """Time and memory of what runs each hour and each day, and what Dagster keeps of it."""
    hour, today = now.replace(minute=0, second=0, microsecond=0), f"{now:%Y-%m-%d}"
    hourly = {
        "market_day": (today,),
        "onchain_hour": (hour_key(hour - HOUR),),
        "onchain_recheck": (),
    }
    yesterday = f"{now - DAY:%Y-%m-%d}"
    daily = {"market_day": (yesterday,), "label_maturing": (f"{now - 4 * DAY:%Y-%m-%d}", yesterday)}
    for title, jobs in {"each hour": hourly, "each day": daily}.items():
        before = records()
        print(f"runs of {title}, as processes:")
        for job, partitions in jobs.items():
            spent = in_process(job, *partitions)
            print(f"  {job:20}{spent.seconds:6.1f} s, peak {spent.peak_mib:5.0f} MiB")
        events, size = (after - was for after, was in zip(records(), before, strict=True))
        print(f"  events {events:,}, {size / MIB:.2f} MiB of Dagster's records")
    ((run_bytes,),) = figures("SELECT avg(pg_column_size(r.*))::integer FROM dagster.runs r")
    print(f"  the record of a run itself {run_bytes:,} bytes")


def vacuum_records() -> None:
    """Give the room of removed records back, so that sizes are those of what is left."""
    import psycopg

    from tracker_pipeline.storage.database import ready_url

    with psycopg.connect(ready_url(), autocommit=True) as connection:
        for (table,) in figures("SELECT tablename FROM pg_tables WHERE schemaname = 'dagster'"):
            connection.execute(f"VACUUM FULL dagster.{table}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whales", type=int, default=1_000)
    parser.add_argument("--days", type=int, default=8, help="of the market chain before today")
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        run_here(*given.job)
        return
    with installation(given.whales):
        from tracker_pipeline.settings import get_config
        from tracker_pipeline.storage.database import ready_url

        ready_url()
        now = datetime.now(UTC)
        hour = now.replace(minute=0, second=0, microsecond=0)
        history = f"{now - given.days * DAY:%Y-%m-%d}", f"{now - DAY:%Y-%m-%d}"
        for job, first, last in (
            ("market_day", *history),
            ("onchain_hour", hour_key(hour - 25 * HOUR), hour_key(hour - 2 * HOUR)),
        ):
            spent = in_process(job, first, last)
            print(
                f"{job} from {first} to {last} in one run: {spent.seconds:.1f} s, peak {spent.peak_mib:.0f} MiB"
            )
        show_rows(given.days, 24, len(get_config().universe.symbols), given.whales)
        show_jobs(now)
        archive_all(now)


if __name__ == "__main__":
    main()
