"""Whatever moves, merges or comes back, and wherever it is killed: a reader finds every row once at every moment."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.storage import archive, scan
from tracker_pipeline.storage.audit import audit
from tracker_pipeline.storage.compaction import compact_days
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.hot_partitions import ensure_partitions
from tracker_pipeline.storage.query import run_query
from tracker_pipeline.storage.restore import restore_days
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars

pytestmark = pytest.mark.usefixtures("each_store")
DAY = date(2024, 5, 1)
START = datetime(2024, 5, 1, tzinfo=UTC)
AFTER = datetime(2024, 6, 1, tzinfo=UTC)
TABLE = BARS["15m"]
SEEDS = int(os.environ.get("TRACKER_KILL_SEEDS", "2"))


def write(frame: pl.DataFrame) -> None:
    with connect() as connection:
        write_window(connection, TABLE, frame, (START, START + timedelta(days=2)), run_id="w")


def release() -> None:
    with connect() as connection:
        connection.execute("DELETE FROM archive.holds")


def everything() -> pl.DataFrame:
    return scan(TABLE.name).collect().sort(TABLE.key)


def move_merge_and_return() -> None:
    """Once round: archive both days, with the rows that came late; merge; bring them back."""
    for _ in range(2):
        for day in (DAY, DAY + timedelta(days=1)):
            archive.move_day(TABLE, day, cut=AFTER, run_id="r")
    compact_days(TABLE.name, run_id="r")
    restore_days(TABLE.name, DAY, DAY + timedelta(days=1), on_conflict="keep", run_id="r")
    release()


class Writer(threading.Thread):
    """Inserts late rows one by one, and knows how many there may be at any moment."""

    def __init__(self, frame: pl.DataFrame) -> None:
        super().__init__()
        self._frame = frame
        self.begun = self.committed = 0
        self.done = threading.Event()

    def run(self) -> None:
        for i in range(self._frame.height):
            self.begun += 1
            write(self._frame.slice(i, 1))
            self.committed += 1
            if self.done.is_set():
                return


ONE = (pl.col("venue") == "bybit") & (pl.col("symbol") == "BTC/USDT")
READS = {
    "all": lambda: scan(TABLE.name, columns=TABLE.key).collect(),
    "one symbol": lambda: scan(
        TABLE.name, START, START + timedelta(days=2), columns=TABLE.key, predicate=ONE
    ).collect(),
    "sql": lambda: run_query("SELECT venue, symbol, ts FROM market.ohlc_15m WHERE symbol = 'BTC/USDT'"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_read_waits_for_a_partition_that_is_being_attached(own_database, read):
    # What makes this necessary lasts microseconds: a commit can be seen before other sessions know of the partition.
    write(bars(count=96))
    with connect() as connection, ThreadPoolExecutor(1) as pool:
        ensure_partitions(connection, TABLE, START + timedelta(days=1), START + timedelta(days=2))
        reading = pool.submit(read)
        assert not wait([reading], timeout=0.2).done
        connection.commit()
        assert reading.result().height == 96


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_reader_counts_right_while_late_rows_come_and_days_move_merge_and_return(own_database, read):
    frame = bars(count=192)
    write(frame.head(96))
    writer, wrong = Writer(frame.tail(96)), []

    def count() -> None:
        while not writer.done.is_set():
            low = writer.committed
            rows = read()
            if not 96 + low <= rows.height <= 96 + writer.begun or rows.n_unique() != rows.height:
                wrong.append((low, rows.height, writer.begun))

    reader = threading.Thread(target=count)
    writer.start()
    reader.start()
    until = time.monotonic() + 4
    while time.monotonic() < until:
        move_merge_and_return()
    writer.done.set()
    writer.join()
    reader.join()
    assert wrong == []
    assert everything().height == 96 + writer.committed
    assert audit().losses == []


def test_a_hundred_readers_at_once_across_the_cut_are_all_right(own_database):
    frame = bars(count=192)
    write(frame)
    archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    window = (START + timedelta(hours=18), START + timedelta(hours=30))
    expected = frame.filter(pl.col("ts").is_between(*window, closed="left"))
    moving = threading.Thread(
        target=archive.move_day,
        args=(TABLE, DAY + timedelta(days=1)),
        kwargs={"cut": AFTER, "run_id": "r"},
    )
    with ThreadPoolExecutor(16) as readers:
        found = [
            readers.submit(lambda: scan(TABLE.name, *window).collect().sort(TABLE.key)) for _ in range(100)
        ]
        moving.start()
        right = sum(one.result().equals(expected) for one in found)
    moving.join()
    assert right == 100


KILLED = """
import os, signal, sys
from datetime import date
from tracker_pipeline.storage.compaction import compact_days
from tracker_pipeline.storage.query import run_query
from tracker_pipeline.storage.hot_partitions import ensure_partitions
from tracker_pipeline.storage.restore import restore_days

def step(name):
    if name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

print("ready", flush=True)
if sys.argv[1] == "compact":
    compact_days("market.ohlc_15m", run_id="r", step=step)
else:
    restore_days("market.ohlc_15m", date(2024, 5, 1), date(2024, 5, 1), run_id="r", step=step)
"""


def work(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE)


@pytest.fixture
def three_parts(own_database):
    """A day in three parts."""
    frame = bars(count=96)
    for number in range(3):
        write(frame.gather_every(3, number))
        archive.move_day(TABLE, DAY, cut=AFTER, run_id="r")
    return frame


def finish(kind: str) -> None:
    """A clean run; the lock of one that was killed is free once the server has noticed."""
    for _ in range(100):
        if kind == "compact":
            outcomes = {one.outcome for one in compact_days(TABLE.name, run_id="r")}
        else:
            outcomes = {one.outcome for one in restore_days(TABLE.name, DAY, DAY, run_id="r")}
        if "skipped" not in outcomes:
            return
        time.sleep(0.1)
    raise TransientError("the lock was not freed")


def assert_right_before_and_after_a_clean_run(kind: str, frame: pl.DataFrame) -> None:
    assert everything().equals(frame)
    finish(kind)
    assert everything().equals(frame)
    with connect() as connection:
        hot = connection.execute("SELECT count(*) FROM market.ohlc_15m").fetchone()[0]
        parts = connection.execute("SELECT count(*) FROM archive.batches WHERE state = 'live'").fetchone()[0]
    assert (hot, parts) == ((0, 1) if kind == "compact" else (96, 0))
    assert audit().losses == []


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("compact", "before write"),
        ("compact", "after fsync"),
        ("compact", "after rename"),
        ("compact", "before commit"),
        ("restore", "after insert"),
        ("restore", "before commit"),
    ],
)
def test_a_run_that_is_killed_at_a_step_loses_and_doubles_nothing(three_parts, kind, step):
    killed = work(kind, step)
    assert killed.wait(120) == -signal.SIGKILL
    assert_right_before_and_after_a_clean_run(kind, three_parts)


@pytest.mark.parametrize("kind", ["compact", "restore"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_run_that_is_killed_at_any_moment_loses_and_doubles_nothing(three_parts, kind, seed):
    running = work(kind, "never")
    assert running.stdout is not None
    running.stdout.readline()
    time.sleep(random.Random(f"{kind} {seed}").uniform(0, 0.6))
    running.kill()
    running.wait(60)
    assert_right_before_and_after_a_clean_run(kind, three_parts)
