"""Every asset is described, owned, grouped and proven, and the code location loads."""

import inspect
import shlex
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
import typer

from tracker_pipeline.cli import app
from tracker_pipeline.commands.project import PROJECT
from tracker_pipeline.definitions import build_definitions, defs
from tracker_pipeline.domain.schemas import TABLES

# In one order for all worker processes of a test run.
SPECS = {spec.key: spec for spec in sorted(defs.resolve_all_asset_specs(), key=lambda spec: spec.key.path)}
BLOCKING = {
    check_key.asset_key
    for check in defs.asset_checks
    for check_key, spec in zip(check.check_keys, check.check_specs, strict=True)
    if spec.blocking
}


def test_the_code_location_loads():
    dg.Definitions.validate_loadable(build_definitions())


@pytest.mark.parametrize("key", SPECS, ids=lambda key: key.to_user_string())
def test_an_asset_tells_what_it_is_who_owns_it_and_is_proven(key):
    spec = SPECS[key]
    assert spec.description
    assert spec.description.endswith(".")
    assert "Args:" not in spec.description
    assert spec.owners
    assert spec.kinds
    assert spec.group_name == key.path[0]
    assert spec.metadata["dagster/column_schema"].columns
    assert key in BLOCKING


@pytest.mark.parametrize("key", SPECS, ids=lambda key: key.to_user_string())
def test_an_asset_names_a_page_that_exists_and_a_command_that_does(key):
    metadata = SPECS[key].metadata
    assert (PROJECT / metadata["documentation"].value).is_file()
    program, *words = shlex.split(metadata["at the terminal"].value)
    assert program == "tracker"
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("tracker", words)


@pytest.mark.parametrize("key", SPECS, ids=lambda key: key.to_user_string())
def test_every_column_is_described(key):
    columns = SPECS[key].metadata["dagster/column_schema"].columns
    assert not [column.name for column in columns if not column.description]


def test_every_job_schedule_sensor_and_check_says_what_it_does():
    repository = defs.get_repository_def()
    things = [
        *(job for job in repository.get_all_jobs() if not job.name.startswith("__")),
        *repository.schedule_defs,
        *repository.sensor_defs,
        *(spec for check in defs.asset_checks for spec in check.check_specs),
    ]
    assert not [thing.name for thing in things if not (thing.description or "").strip().endswith(".")]


@pytest.mark.parametrize(
    "key", [k for k in SPECS if k.path[0] != "archive"], ids=lambda key: key.to_user_string()
)
def test_a_key_is_the_address_of_a_declared_table(key):
    assert ".".join(key.path) in TABLES


@pytest.mark.parametrize("key", SPECS, ids=lambda key: key.to_user_string())
def test_a_partitioned_asset_takes_a_range_in_one_run(key):
    asset = next(a for a in defs.assets if key in a.keys)
    if asset.partitions_def:
        assert asset.backfill_policy == dg.BackfillPolicy.single_run()


def test_todays_partition_of_the_market_chain_exists_and_so_does_the_hour_that_has_struck():
    from tracker_pipeline.partitions import DAILY, HOURLY

    now = datetime.now(UTC)
    assert DAILY.has_partition_key(f"{now:%Y-%m-%d}")
    assert HOURLY.has_partition_key(f"{now:%Y-%m-%d-%H}:00")
    assert not HOURLY.has_partition_key(f"{now + timedelta(hours=1):%Y-%m-%d-%H}:00")


def test_every_module_says_what_it_is():
    import importlib
    import pkgutil

    import tracker_pipeline

    for module in pkgutil.walk_packages(tracker_pipeline.__path__, "tracker_pipeline."):
        if module.name.endswith("__main__"):
            continue
        assert inspect.getdoc(importlib.import_module(module.name)), module.name
