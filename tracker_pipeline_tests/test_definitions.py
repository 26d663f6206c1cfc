"""Every asset is described, owned, grouped and proven, and the code location loads."""

import inspect
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from tracker_pipeline.definitions import build_definitions, defs
from tracker_pipeline.domain.schemas import TABLES
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars

SPECS = {spec.key: spec for spec in defs.resolve_all_asset_specs()}
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


def test_todays_partition_of_the_market_chain_exists_and_the_current_hour_of_the_other_does_not():
    from tracker_pipeline.partitions import DAILY, HOURLY

    now = datetime.now(UTC)
    assert DAILY.has_partition_key(f"{now:%Y-%m-%d}")
    assert not HOURLY.has_partition_key(f"{now:%Y-%m-%d-%H}:00")


@pytest.mark.parametrize(
    ("schedule", "partitions"),
    [
        ("market_hourly", "2026-03-02"),
        ("onchain_hourly", "2026-03-02-06:00"),
        ("market_daily_close", "2026-03-01"),
        ("labels_daily", ("2026-02-26", "2026-03-01")),
        ("training_weekly", "2026-02-23"),
    ],
)
def test_a_schedule_asks_for_the_partitions_of_its_tick(schedule, partitions):
    (request,) = requests_of(schedule)
    if isinstance(partitions, str):
        assert request.partition_key == partitions
    else:
        assert request_range(request) == partitions


def test_the_archive_asks_for_all_days_that_left_the_hot_window_however_old(own_database):
    for day in (
        datetime(2024, 5, 1, tzinfo=UTC),
        datetime(2025, 2, 28, tzinfo=UTC),
        datetime(2026, 3, 1, tzinfo=UTC),
    ):
        with connect() as connection:
            frame = bars(start=day, count=96 * 2)
            write_window(
                connection, TABLES["market.ohlc_15m"], frame, (day, day + timedelta(days=2)), run_id="r"
            )
    requests = requests_of("archive_daily")
    assert [request_range(r) for r in requests] == [
        ("2024-05-01", "2024-05-02"),
        ("2025-02-28", "2025-03-01"),
    ]
    assert {key.to_user_string() for r in requests for key in r.asset_selection} == {
        "archive/market/ohlc_15m"
    }


def request_range(request: dg.RunRequest) -> tuple[str, str]:
    return (
        request.tags["dagster/asset_partition_range_start"],
        request.tags["dagster/asset_partition_range_end"],
    )


def requests_of(schedule: str) -> list[dg.RunRequest]:
    tick = datetime(2026, 3, 2, 7, 5, tzinfo=UTC)
    definition = defs.resolve_schedule_def(schedule)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=tick,
            repository_def=defs.get_repository_def(),
        )
        assert definition.default_status is dg.DefaultScheduleStatus.RUNNING
        return list(definition.evaluate_tick(context).run_requests)


def test_every_module_says_what_it_is():
    import importlib
    import pkgutil

    import tracker_pipeline

    for module in pkgutil.walk_packages(tracker_pipeline.__path__, "tracker_pipeline."):
        if module.name.endswith("__main__"):
            continue
        assert inspect.getdoc(importlib.import_module(module.name)), module.name
