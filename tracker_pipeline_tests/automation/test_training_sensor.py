"""Training rows are made again exactly where a feature, setup or label changed after they were made."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from tracker_pipeline import keys
from tracker_pipeline.assets.training_set import training_set
from tracker_pipeline.automation.training import training_stale
from tracker_pipeline.domain import schemas
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.io_managers import ParquetIOManager, PostgresIOManager, store_day
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.domain.test_training_set import features, labels, setups

SIGNAL = datetime(2024, 5, 1, tzinfo=UTC)
WEEKS = ("2024-04-22", "2024-04-29", "2024-05-06")
RESOURCES = {"postgres": PostgresIOManager(), "parquet": ParquetIOManager()}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def make(instance: dg.DagsterInstance, week: str, run_key: str = "") -> None:
    dg.materialize(
        [training_set],
        partition_key=week,
        instance=instance,
        resources=RESOURCES,
        tags={"dagster/run_key": run_key},
    )


def store_label(outcome: str) -> None:
    label = {"setup_id": "a", "outcome": outcome}
    pending = {} if outcome == "WIN" else {"actual_return": None, "exit_ts": None}
    with connect() as connection:
        window = (SIGNAL, SIGNAL + timedelta(days=1))
        write_window(connection, schemas.DCA_LABELS, labels({**label, **pending}), window, run_id="r")


def tell(instance: dg.DagsterInstance, key: dg.AssetKey, day: str, *, updated: int) -> None:
    """What the IO manager says of a day that it has stored."""
    counts = {"inserted": 0, "updated": updated, "deleted": 0, "unchanged": 7}
    instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day, metadata=counts))


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    return training_stale(dg.build_sensor_context(instance=instance, cursor=cursor))


def weeks(result: dg.SensorResult | dg.SkipReason) -> list[str | None]:
    requests = result.run_requests if isinstance(result, dg.SensorResult) else None
    return [request.partition_key for request in requests or []]


def test_a_label_that_becomes_final_after_its_week_was_made_joins_it(own_database, instance):
    with connect() as connection:
        window = (SIGNAL, SIGNAL + timedelta(days=1))
        write_window(
            connection, schemas.SETUPS, setups({"setup_id": "a", "signal_ts": SIGNAL}), window, run_id="r"
        )
    store_day(schemas.ML_FEATURES_15M, SIGNAL.date(), features(SIGNAL), run_id="r")
    store_label("PENDING")
    tell(instance, keys.STRATEGY_DCA_LABELS, "2024-05-01", updated=1)
    assert weeks(tick(instance)) == [], "a week that was never made is the schedule's"
    make(instance, "2024-04-29")
    assert weeks(tick(instance)) == [], "what it was made of was there before"

    store_label("WIN")
    tell(instance, keys.STRATEGY_DCA_LABELS, "2024-05-01", updated=1)
    result = tick(instance)
    assert weeks(result) == ["2024-04-29"]
    make(instance, "2024-04-29", result.run_requests[0].run_key)
    assert scan("labels.training_set").select("setup_id", "outcome").collect().rows() == [("a", "WIN")]
    done = tick(instance, result.cursor)
    assert weeks(done) == []
    assert isinstance(tick(instance, done.cursor), dg.SkipReason)
    assert weeks(tick(instance)) == [], "from the beginning of the record, nothing is stale either"


def test_labels_reach_weeks_in_which_others_were_alive_and_features_their_own(own_database, instance):
    for week in WEEKS:
        make(instance, week)
    before, week, after = WEEKS
    cursor = None
    for key, day, expected in (
        (keys.ML_FEATURES_15M, "2024-05-05", [week]),
        (keys.STRATEGY_SETUPS, "2024-05-02", [before, week, after]),  # four days around: Sunday to Monday
        (keys.STRATEGY_SWING_LABELS, "2024-05-03", [week, after]),
        (keys.STRATEGY_CHANNEL_LABELS, "2024-04-30", [before, week]),
        (keys.STRATEGY_DCA_LABELS, "2024-05-16", [after]),
        (keys.STRATEGY_DCA_LABELS, "2024-05-17", []),
    ):
        tell(instance, key, day, updated=0)
        unchanged = tick(instance, cursor)
        assert weeks(unchanged) == [], "rows that were written again as they were change nothing"
        tell(instance, key, day, updated=2)
        result = tick(instance, unchanged.cursor)
        assert weeks(result) == expected, (key, day)
        cursor = result.cursor
