"""A program that is killed comes back, a database that restarts costs one try, a full disk loses nothing."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import psycopg
import pytest

from tracker_pipeline.commands import up
from tracker_pipeline.commands.project import shared_instance
from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.freshness import judge
from tracker_pipeline.keys import key_of
from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.resources.failures import RETRIES
from tracker_pipeline.resources.postgres import EmbeddedPostgres
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect, ready_url
from tracker_pipeline.storage.io_managers import PartitionFrames, PostgresIOManager, store_day
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.conftest import forget_settings
from tracker_pipeline_tests.frames import bars

DAY = datetime(2024, 5, 1, tzinfo=UTC)
DAYS = dg.DailyPartitionsDefinition("2024-05-01")


def test_a_program_that_ends_by_itself_is_started_again_a_few_times():
    said: list[str] = []
    part = up._Part("the daemon", ["json.tool", "/nowhere"], {})
    codes = []
    while not codes or codes[-1] == 0:
        part.process.wait(30)
        codes.append(part.kept_alive(said.append))
    assert len(codes) == 4
    assert said[:3] == ["the daemon ended with code 2 and is started again"] * 3
    assert said[3] == "the daemon ended 4 times within ten minutes, last with code 2"
    assert codes[-1] == 2


def test_a_program_that_was_killed_is_started_again():
    part = up._Part("the daemon", ["http.server", "--bind", "127.0.0.1", "0"], {})
    first = part.process.pid
    part.process.kill()
    part.process.wait(30)
    assert part.kept_alive(lambda text: None) == 0
    assert part.process.pid != first
    assert part.process.poll() is None
    up._end(part.process)


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "postgres")
    server.start()
    monkeypatch.setenv("TRACKER_DATABASE_URL", server.url)
    forget_settings()
    yield server
    server.stop_if_unused()


def test_a_database_that_restarts_during_a_run_costs_one_try_and_doubles_nothing(own_server):
    tries = []

    @dg.asset(
        key=key_of(schemas.BARS["15m"]),
        io_manager_key="postgres",
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRIES,
    )
    def bars_of_days(context: dg.AssetExecutionContext) -> PartitionFrames:
        tries.append(context.retry_number)
        return PartitionFrames(frames())

    def frames() -> Iterator[tuple[str, pl.DataFrame]]:
        for number in range(3):
            if number == 1 and len(tries) == 1:
                own_server.stop_if_unused()
                threading.Timer(1.5, own_server.start).start()
            yield f"{DAY + timedelta(days=number):%Y-%m-%d}", day(number)

    def day(number: int) -> pl.DataFrame:
        return bars(start=DAY + timedelta(days=number), count=96)

    ready_url()
    with shared_instance() as instance:  # whose records are in the database that goes away
        result = dg.materialize(
            [bars_of_days],
            resources={"postgres": PostgresIOManager()},
            instance=instance,
            tags={
                "dagster/asset_partition_range_start": "2024-05-01",
                "dagster/asset_partition_range_end": "2024-05-03",
            },
        )
        assert result.success
        assert tries == [0, 1]
        assert instance.get_run_by_id(result.run_id).status is dg.DagsterRunStatus.SUCCESS
        made = instance.get_materialized_partitions(key_of(schemas.BARS["15m"]))
        assert made == {"2024-05-01", "2024-05-02", "2024-05-03"}
    stored = scan("market.ohlc_15m").collect()
    assert stored.height == 3 * 96
    assert not stored.select("venue", "symbol", "ts").is_duplicated().any()


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own behind a folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(own_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A lake on a disk of 160 KiB."""
    with disk(tmp_path / "disk", "160k"):
        monkeypatch.setenv("TRACKER_LAKE_URI", str(tmp_path / "disk"))
        forget_settings()
        yield tmp_path / "disk"


@pytest.fixture
def server_on_a_small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The database on a disk of 150 MiB, a third of it taken."""
    with disk(tmp_path / "disk", "150m"):
        server = EmbeddedPostgres(tmp_path / "disk")
        server.start()
        monkeypatch.setenv("TRACKER_DATABASE_URL", server.url)
        forget_settings()
        ready_url()
        yield tmp_path / "disk"
        server.stop_if_unused()


def test_a_database_whose_disk_is_full_takes_nothing_of_a_write_and_all_of_it_once_there_is_space(
    server_on_a_small_disk,
):
    def write() -> int:
        with connect() as connection:
            rows, window = bars(start=DAY, count=96 * 200), (DAY, DAY + timedelta(days=200))
            return write_window(connection, schemas.BARS["15m"], rows, window, run_id="r").inserted

    filler = server_on_a_small_disk / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(server_on_a_small_disk).free - 200_000))
    for _ in range(2):
        with pytest.raises(psycopg.errors.DiskFull):
            write()
    assert scan("market.ohlc_15m").collect().is_empty()
    filler.unlink()
    assert write() == scan("market.ohlc_15m").collect().height == 96 * 200


def test_a_full_disk_fails_the_write_whole_and_the_next_try_succeeds_once_there_is_space(small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 150 * 1024)
    rows = features_of_a_day()
    with pytest.raises(TransientError, match="No space left on device"):
        store_day(schemas.ML_FEATURES_15M, DAY.date(), rows, run_id="r")
    assert scan("features.ml_features_15m").collect().is_empty()
    assert list(small_disk.rglob("*.parquet")) == []
    filler.unlink()
    assert store_day(schemas.ML_FEATURES_15M, DAY.date(), rows, run_id="r").inserted == rows.height
    assert scan("features.ml_features_15m").collect().height == rows.height


def features_of_a_day() -> pl.DataFrame:
    from tracker_pipeline.domain.features import features_15m

    made = features_15m(bars(count=96 * 2))
    return schemas.ML_FEATURES_15M.conform(
        made.filter(pl.col("ts") < DAY + timedelta(days=1)).select(
            [name for name in schemas.ML_FEATURES_15M.polars_schema if name in made.columns]
        )
    )


def test_a_clock_that_jumped_back_finds_nothing_late():
    newest = DAY + timedelta(hours=5)
    assert judge(newest, now=DAY, late_after=timedelta(hours=1), former=None).state == "fresh"
