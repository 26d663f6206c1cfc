"""Old runs go with their events and logs; the newest materialization and check of everything stays."""

import os
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from tracker_pipeline.operations.retention import Removed, prune
from tracker_pipeline.storage.database import connect
from tracker_pipeline_tests.operations.instance import own_instance  # noqa: F401

DAYS = dg.DailyPartitionsDefinition("2026-01-01")
KEY = dg.AssetKey("bars")


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def bars(context: dg.AssetExecutionContext) -> None:
    context.add_asset_metadata({"run": context.run.run_id}, partition_key=context.partition_keys[0])


@dg.asset_check(asset=bars)
def whole() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def materialize(instance: dg.DagsterInstance, day: str) -> str:
    return dg.materialize([bars, whole], instance=instance, partition_key=day).run_id


def prune_until(moment: datetime, logs) -> Removed:
    with connect() as connection:
        return prune(connection, before=moment, now=moment, logs=logs)


@pytest.fixture
def filled(own_instance):  # noqa: F811
    """Five runs of two days."""
    runs = [materialize(own_instance, f"2026-01-0{1 + number % 2}") for number in range(5)]
    return own_instance, runs


def test_the_newest_materialization_of_every_partition_stays_and_all_else_of_old_runs_goes(filled, tmp_path):
    instance, runs = filled
    before = {r.partition_key: r.run_id for r in instance.fetch_materializations(KEY, limit=2).records}
    removed = prune_until(datetime.now(UTC) + timedelta(minutes=1), tmp_path / "logs")
    left = instance.fetch_materializations(KEY, limit=100).records
    assert {record.partition_key: record.run_id for record in left} == before
    assert len(left) == 2
    assert removed.runs_deleted == 3
    assert removed.events == 2 + 1  # and the newest result of the check, which is not by partition
    assert removed.events_deleted > 50
    assert {run.run_id for run in instance.get_runs()} == set(runs[-2:])
    assert instance.get_materialized_partitions(KEY) == {"2026-01-01", "2026-01-02"}
    assert instance.get_latest_materialization_event(KEY).run_id == runs[-1]


def test_what_is_not_old_stays_and_a_second_pass_removes_nothing(filled, tmp_path):
    instance, _ = filled
    assert prune_until(datetime.now(UTC) - timedelta(days=1), tmp_path / "logs").runs_deleted == 0
    later = datetime.now(UTC) + timedelta(minutes=1)
    first, second = prune_until(later, tmp_path / "logs"), prune_until(later, tmp_path / "logs")
    assert (second.runs_deleted, second.events_deleted) == (0, 0)
    assert second.events == first.events
    run = materialize(instance, "2026-01-09")
    assert instance.get_run_by_id(run).status is dg.DagsterRunStatus.SUCCESS


def test_a_run_that_has_not_ended_is_left_alone(own_instance, tmp_path):  # noqa: F811
    job = dg.Definitions(assets=[bars], jobs=[dg.define_asset_job("one")]).resolve_job_def("one")
    run = own_instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    own_instance.report_engine_event("working", run)
    prune_until(datetime.now(UTC) + timedelta(days=90), tmp_path / "logs")
    assert own_instance.get_run_by_id(run.run_id) is not None
    assert own_instance.all_logs(run.run_id)


def test_what_steps_printed_goes_with_its_age(own_database, tmp_path):
    old, new = tmp_path / "old" / "compute_logs", tmp_path / "new" / "compute_logs"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "x.out").write_text("printed")
    os.utime(old / "x.out", (0, 0))
    with connect() as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS dagster")
    from tracker_pipeline.commands.project import shared_instance

    with shared_instance():
        removed = prune_until(datetime(2026, 1, 1, tzinfo=UTC), tmp_path)
    assert removed.log_files_deleted == 1
    assert sorted(
        path.name for path in tmp_path.iterdir() if path.is_dir() and path.name in ("old", "new")
    ) == ["new"]
