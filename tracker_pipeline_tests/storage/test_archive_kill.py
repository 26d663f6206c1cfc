"""Whenever a run is killed, every row is there exactly once, at once and after the next run."""

import os
import random
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import polars as pl
import psycopg
import pytest

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.archive import archive_tables
from tracker_pipeline.storage.audit import audit
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars
from tracker_pipeline_tests.storage.foreign import use_policies

pytestmark = pytest.mark.usefixtures("each_store")
START = datetime(2024, 5, 1, tzinfo=UTC)
CUT = datetime(2024, 6, 1, tzinfo=UTC)
SEEDS = int(os.environ.get("TRACKER_KILL_SEEDS", "2"))
STEPS = ["before write", "after fsync", "after rename", "before commit", "during commit"]
TABLES = {"partition": "market.ohlc_15m", "row": "public.prices"}
POLICY = (
    "archived:\n  public.prices: {time_column: timestamp, retention: 24 h, sort: [token]}\n"
    "never_archived: {public.other: none}\n"
)
# It says when it begins, and ends itself without any farewell at the step that is asked for.
CHILD = """
import os, signal, sys, threading, time
from datetime import datetime
from tracker_pipeline.storage import archive
from tracker_pipeline.storage.database import connect
import adbc_driver_postgresql.dbapi, pyarrow.parquet
table, cut, wanted = sys.argv[1:]
end = lambda: os.kill(os.getpid(), signal.SIGKILL)
def step(name):
    if name == wanted:
        end()
    if name == "before commit" and wanted == "during commit":
        threading.Timer(0.15, end).start()
archive._no_step = step
with connect():
    print("ready", flush=True)
(report,) = archive.archive_tables([table], cut=datetime.fromisoformat(cut), run_id="killed")
print(report.outcome, report.problem)
"""


@pytest.fixture(params=["partition", "row"])
def table(request, own_database, monkeypatch, tmp_path):
    if request.param == "partition":
        with connect() as connection:
            write_window(
                connection, BARS["15m"], bars(count=288), (START, START + timedelta(days=3)), run_id="w"
            )
    else:
        with psycopg.connect(own_database) as connection:
            connection.execute(
                'CREATE TABLE prices (id bigint PRIMARY KEY, "timestamp" timestamp, token text, price float8);'
                "INSERT INTO prices SELECT i, timestamp '2024-05-01' + i * interval '45 s', 'SOL', i / 7.0"
                " FROM generate_series(0, 5759) AS i"
            )
    use_policies(
        monkeypatch, tmp_path, "archive_policies.yaml", text=POLICY if request.param == "row" else ""
    )
    return TABLES[request.param]


def content(table: str) -> pl.DataFrame:
    rows = scan(table).collect()
    return rows.sort([name for name in ("id", "symbol", "ts") if name in rows.columns])


def child(table: str, step: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, table, CUT.isoformat(), step], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def slow_commits() -> None:
    """Make every commit of a manifest entry take a while, on the server."""
    with connect() as connection:
        connection.execute(
            "CREATE FUNCTION archive.rest() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;"
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON archive.batches DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION archive.rest()"
        )


def drop_slow_commits() -> None:
    with connect() as connection:
        connection.execute("DROP TRIGGER IF EXISTS slow ON archive.batches")


def is_right_after_the_next_run(table: str, before: pl.DataFrame) -> None:
    deadline = time.monotonic() + 20
    while True:  # the session of the dead process may live on in the server for a moment, with its lock
        (report,) = archive_tables([table], cut=CUT, run_id="next")
        if report.outcome != "skipped" or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert (report.problem, report.outcome in ("moved", "nothing")) == ("", True)
    assert content(table).equals(before)
    with connect() as connection:
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    assert [problem for problem in audit([table]).problems if problem.is_loss] == []


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step(table, step):
    before = content(table)
    if step == "during commit":
        slow_commits()
    process = child(table, step)
    assert process.wait(60) == -9
    assert content(table).equals(before)
    drop_slow_commits()
    is_right_after_the_next_run(table, before)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_killed_at_any_moment_while_late_rows_come_and_a_reader_counts(table, seed):
    randomly = random.Random(seed)
    before = content(table)
    written, wrong, stop = [before.height], [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            least = written[0]
            count = scan(table).select(pl.len()).collect().item()
            if not least <= count <= written[0] + 1:
                wrong.append((least, count, written[0]))

    def write_late() -> None:
        for number in range(1_000):
            if stop.wait(0.05):
                return
            insert_late(table, number)
            written[0] += 1

    threads = [threading.Thread(target=work) for work in (read, write_late)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        process = child(table, "never")
        time.sleep(randomly.uniform(0, 0.5))
        process.kill()
        process.wait()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    after = content(table)
    assert after.height == written[0]
    is_right_after_the_next_run(table, after)


def insert_late(table: str, number: int) -> None:
    if table == "public.prices":
        with connect() as connection:
            connection.execute(
                "INSERT INTO prices VALUES (%s, timestamp '2024-05-02 00:00' + %s * interval '1 s', 'LATE', 1)",
                [10_000 + number, number],
            )
        return
    late = bars(count=1, start=START + timedelta(days=number % 3), symbol=f"LATE{number}/USDT")
    with connect() as connection:
        write_window(connection, BARS["15m"], late, (START, START + timedelta(days=3)), run_id="late")


def test_two_runners_at_once_one_of_which_is_skipped(table):
    before, reports = content(table), []
    slow_commits()
    runners = [
        threading.Thread(target=lambda: reports.extend(archive_tables([table], cut=CUT, run_id="r")))
        for _ in range(2)
    ]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert sorted(report.outcome for report in reports) == ["moved", "skipped"]
    assert content(table).equals(before)
