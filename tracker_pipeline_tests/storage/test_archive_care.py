"""The archive is audited, rehearsed, let go of and swept; its commands say what they did."""

import json
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from typer.testing import CliRunner

from tracker_pipeline import keys
from tracker_pipeline.assets.archive_care import archive_audit, archive_restore_drill
from tracker_pipeline.automation.archive_care import archive_upkeep
from tracker_pipeline.checks.archive_checks import every_row_came_back, no_row_is_lost
from tracker_pipeline.cli import app
from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import archive, scan, sweeping
from tracker_pipeline.storage.archive_policy import get_policies
from tracker_pipeline.storage.audit import ALTERED, KEY_TWICE, MISSING, ORPHANED, Problem, audit
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.drill import restore_drill
from tracker_pipeline.storage.lake_store import lake_store
from tracker_pipeline.storage.part_proof import PROOF_VERSION
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars
from tracker_pipeline_tests.stores import lake_files, plant_file, read_file

DAY = date(2024, 5, 1)
START = datetime(2024, 5, 1, tzinfo=UTC)
AFTER = datetime(2024, 6, 1, tzinfo=UTC)
TABLE = BARS["15m"]


def move(count: int = 96, skip: int = 0) -> None:
    with connect() as connection:
        write_window(
            connection,
            TABLE,
            bars(count=192).slice(skip, count),
            (START, START + timedelta(days=2)),
            run_id="w",
        )
    for day in (DAY, DAY + timedelta(days=1)):
        archive.move_day(TABLE, day, cut=AFTER, run_id="r")


@pytest.fixture
def archived(own_database, each_store):
    """Two archived days."""
    move(192)


def execute(statement: str) -> None:
    with connect() as connection:
        connection.execute(statement)


def tracker(*arguments: str):
    return CliRunner().invoke(app, ["archive", *arguments])


def test_an_audit_of_an_intact_archive_finds_nothing(archived):
    found = audit()
    assert (found.problems, found.parts, found.rows) == ([], 2, 192)


def test_an_audit_names_what_is_missing_altered_and_unknown(archived):
    first, second = lake_files()
    plant_file(first, read_file(first)[:-1] + b"x")
    lake_store().delete(second)
    plant_file("market/ohlc_15m/day=2024-05-01/part-stray.parquet", b"")
    assert {(p.file.rsplit("/", 1)[1], p.problem, p.is_loss) for p in audit().problems} == {
        (first.rsplit("/", 1)[1], ALTERED, True),
        (second.rsplit("/", 1)[1], MISSING, True),
        ("part-stray.parquet", ORPHANED, False),
    }


def test_an_audit_finds_a_key_that_two_parts_have(archived):
    copy = "market/ohlc_15m/day=2024-05-01/part-copy.parquet"
    execute(
        "INSERT INTO archive.batches SELECT (jsonb_populate_record(b, jsonb_build_object('batch_id', 'copy', 'path',"
        f" '{copy}'))).* FROM archive.batches b WHERE data_day = '2024-05-01'"
    )
    plant_file(copy, read_file(lake_files()[0]))
    assert {(p.problem, p.is_loss) for p in audit().problems} == {(f"96 {KEY_TWICE}", True)}


def test_the_assets_pass_on_a_good_archive_and_their_checks_fail_on_a_bad_one(archived):
    def run() -> dict[str, bool]:
        result = dg.materialize(
            [archive_audit, archive_restore_drill, no_row_is_lost, every_row_came_back], raise_on_error=False
        )
        return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}

    assert run() == {"no_row_is_lost": True, "every_row_came_back": True}
    lake_store().delete(lake_files()[0])
    lake_store().delete(lake_files()[0])
    assert run()["no_row_is_lost"] is False
    assert keys.ARCHIVE_AUDIT in archive_audit.keys


def test_a_drill_restores_a_day_to_a_scratch_table_and_leaves_nothing(archived):
    done = restore_drill(1)
    assert done is not None
    assert (done.table, done.rows, done.rows_archived) == (TABLE.name, 96, 96)
    assert scan(TABLE.name).collect().height == 192


def test_a_drill_of_a_part_that_is_not_what_was_archived_fails(archived):
    execute(
        'UPDATE archive.batches SET column_hashes = column_hashes || \'{"close": "96:0000000000000000"}\''
    )
    with pytest.raises(Exception, match=r"is not what was archived.*close"):
        restore_drill(1)


def test_parts_whose_hashes_were_computed_another_way_are_known_by_their_sha256(own_database, each_store):
    move(90)
    move(6, skip=90)
    execute(
        "UPDATE archive.batches SET schema = schema - 'proof_version',"
        " column_hashes = jsonb_build_object('close', '96:0000000000000000')"
    )
    drilled = restore_drill(1)
    assert drilled is not None
    assert drilled.rows == drilled.rows_archived
    assert tracker("compact").exit_code == 0
    (part,) = scan("archive.batches").filter(state="live").collect().iter_rows(named=True)
    assert json.loads(part["schema"])["proof_version"] == PROOF_VERSION
    assert json.loads(part["column_hashes"])["close"] != "96:0000000000000000"
    assert (scan(TABLE.name).collect().height, restore_drill(1).rows) == (96, 96)


def test_a_replaced_file_goes_a_day_after_it_was_replaced(own_database, each_store):
    move(90)
    move(6, skip=90)
    assert tracker("compact").exit_code == 0
    assert len(lake_files()) == 3
    assert sweeping.sweep().replaced == ()
    execute("UPDATE archive.batches SET ended_at = ended_at - interval '25 hours' WHERE state <> 'live'")
    assert len(sweeping.sweep(dry_run=True).replaced) == 2
    assert len(sweeping.sweep().replaced) == 2
    assert len(lake_files()) == 1
    assert scan(TABLE.name).collect().height == 96


def test_a_day_that_cannot_be_compacted_keeps_no_other_back_and_fails_the_upkeep_once_all_is_done(
    own_database, each_store
):
    frame = bars(count=192)
    for part in (frame.gather_every(2), frame.gather_every(2, 1)):
        with connect() as connection:
            write_window(connection, TABLE, part, (START, START + timedelta(days=2)), run_id="w")
        for day in (DAY, DAY + timedelta(days=1)):
            archive.move_day(TABLE, day, cut=AFTER, run_id="r")
    broken = lake_files()[0]
    plant_file(broken, read_file(broken)[:-1] + b"x")
    done = archive_upkeep.execute_in_process(raise_on_error=False)
    assert not done.success
    assert "1 days could not be compacted" in str(
        done.failure_data_for_node("tidy_archive").user_failure_data
    )
    parts = scan("archive.batches").filter(state="live").collect()
    assert sorted(parts["data_day"]) == [DAY, DAY, DAY + timedelta(days=1)]
    again = tracker("compact", "--format", "json")
    assert again.exit_code == 1
    assert json.loads(again.stdout)[0]["outcome"] == "failed"
    assert "is not the file that was archived" in again.stderr


def test_what_moved_is_told_also_where_the_lake_is_swept_by_another_deployment(own_database):
    with connect() as connection:
        write_window(connection, TABLE, bars(count=96), (START, START + timedelta(days=1)), run_id="w")
    plant_file(sweeping.MARKER, b"another")
    run = tracker("run", "--table", TABLE.name, "--format", "json")
    assert (run.exit_code, json.loads(run.stdout)[0]["rows_moved"]) == (1, 96)
    assert "is swept by another deployment (another)" in " ".join(run.stderr.split())


def test_a_name_that_nobody_knows_is_not_taken_for_a_table_without_rows(own_database):
    for command in ("run", "status", "audit", "compact", "drill"):
        result = tracker(command, "--table", "market.nope")
        assert (result.exit_code, "market.nope" in result.stderr) == (1, True)
    days = ("--from", "2024-05-02", "--to", "2024-05-01")
    assert tracker("restore", "--table", TABLE.name, *days).exit_code == 2


def test_files_that_are_not_named_like_parts_are_somebody_elses_and_stay(archived, monkeypatch):
    """A lake may be put into a folder or a bucket that holds other files already."""
    monkeypatch.setattr(sweeping, "ORPHAN_GRACE", timedelta(0))
    monkeypatch.setattr(sweeping, "GRACE", timedelta(0))
    others = [
        "thesis.docx",
        "photos/2019/beach.jpg",
        "market/ohlc_15m/notes.unfinished",
        "a/b/day=1/part-1.parquet",
    ]
    for path in others:
        plant_file(path, b"precious")
    plant_file("market/ohlc_15m/day=2024-05-01/part-stray.parquet", b"")
    assert audit().orphans == [
        Problem(
            "market.ohlc_15m", "market/ohlc_15m/day=2024-05-01/part-stray.parquet", ORPHANED, is_loss=False
        )
    ]
    assert sweeping.sweep().leftover == ("market/ohlc_15m/day=2024-05-01/part-stray.parquet",)
    assert set(others) < set(lake_files())


def test_a_lake_of_another_deployment_is_not_swept(archived):
    sweeping.sweep()
    execute("UPDATE archive.deployment SET deployment_id = 'another'")
    with pytest.raises(PermanentError, match="is swept by another deployment"):
        sweeping.sweep()


def test_cold_rows_stay_for_ever_unless_a_policy_lets_them_go(archived, monkeypatch):
    assert sweeping.expire() == []
    policies = get_policies()
    policy = policies.of(TABLE.name).model_copy(update={"cold_retention": timedelta(days=30)})
    changed = type(policies)({TABLE.name: policy}, policies.never)
    monkeypatch.setattr(sweeping, "get_policies", lambda: changed)
    (planned,) = sweeping.expire(now=datetime(2024, 6, 1, tzinfo=UTC), dry_run=True)
    assert (planned.first, planned.last, planned.rows) == (DAY, DAY, 96)
    assert scan(TABLE.name).collect().height == 192
    sweeping.expire(now=datetime(2024, 6, 1, tzinfo=UTC))
    assert scan(TABLE.name).collect().height == 96


def test_the_commands_say_what_they_did(archived):
    status = json.loads(tracker("status", "--table", TABLE.name, "--format", "json").stdout)[0]
    assert (status["hot_rows"], status["cold_rows"], status["files"]) == (0, 192, 2)
    assert status["saved_bytes"] == status["table_bytes"] - status["bytes"] > 0
    assert "192 rows archived in" in tracker("status").stdout
    whole = json.loads(tracker("status", "--table", "market.regimes", "--format", "json").stdout)[0]
    assert whole["hot_bytes"] > 0  # the key alone has a page, though the table has no partitions
    arguments = ("restore", "--table", TABLE.name, "--day", "2024-05-01", "--format", "json")
    assert json.loads(tracker(*arguments, "--dry-run").stdout)[0]["outcome"] == "would restore"
    assert json.loads(tracker(*arguments).stdout)[0]["inserted"] == 96
    assert json.loads(tracker(*arguments).stdout) == []
    assert tracker("restore", "--table", TABLE.name).exit_code == 2
    assert "market.ohlc_15m" in tracker("drill").stdout
    assert "nothing to remove" in tracker("sweep").stdout
    assert tracker("restore", "--table", "features.ml_features_15m", "--day", "2024-05-01").exit_code == 1
