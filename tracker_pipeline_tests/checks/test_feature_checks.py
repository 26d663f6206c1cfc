"""A feature that has seen the future, or belongs to no bar, stops what is made of features."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl
import pytest

from tracker_pipeline.assets.features import ml_features_15m
from tracker_pipeline.checks import feature_checks
from tracker_pipeline.checks.row_checks import blocking_checks
from tracker_pipeline.checks.schema_checks import as_declared
from tracker_pipeline.domain.schemas import BARS, ML_FEATURES_15M
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.io_managers import ParquetIOManager, PostgresIOManager, store_day
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars

START = datetime(2024, 5, 1, tzinfo=UTC)
DAY = "2024-05-03"
RESOURCES = {"postgres": PostgresIOManager(), "parquet": ParquetIOManager()}
CHECKS = [
    *feature_checks.ALL,
    blocking_checks(ML_FEATURES_15M, [as_declared(ML_FEATURES_15M), *feature_checks.ROWS.values()]),
]


@pytest.fixture
def day_of_features(own_database):
    wave = pl.int_range(pl.len()).cast(pl.Float64).sin()
    series = [
        bars(count=96 * 3, symbol=symbol, price=100.0).with_columns(close=pl.col("close") + wave / 2)
        for symbol in ("BTC/USDT", "ETH/USDT")
    ]
    with connect() as connection:
        window = (START, START + timedelta(days=3))
        write_window(connection, BARS["15m"], pl.concat(series), window, run_id="r")
    assert outcomes(dg.AssetSelection.assets(ml_features_15m), DAY) == dict.fromkeys(NAMES, True)
    return scan(ML_FEATURES_15M.name).collect()


NAMES = (
    "known_no_earlier_than_its_bar",
    "equal_when_the_future_is_cut_off",
    "filled_and_within_range",
    "stored_as_declared",
)


def outcomes(selection: dg.AssetSelection, day: str | None = None) -> dict[str, bool]:
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [ml_features_15m, *CHECKS],
            instance=instance,
            resources=RESOURCES,
            selection=selection,
            partition_key=day,
            raise_on_error=False,
        )
    return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}


def store(frame: pl.DataFrame) -> dict[str, bool]:
    store_day(ML_FEATURES_15M, datetime.fromisoformat(DAY).date(), frame, run_id="r")
    return outcomes(dg.AssetSelection.checks_for_assets(ml_features_15m))


def test_features_of_stored_bars_pass(day_of_features):
    assert day_of_features.height == 2 * 96


def test_a_value_made_of_a_later_bar_is_found(day_of_features):
    leaked = day_of_features.with_columns(ret_1h=pl.col("ret_1h").shift(-1).over("symbol").fill_null(0.0))
    found = store(leaked)
    assert not found["equal_when_the_future_is_cut_off"]
    assert found["stored_as_declared"]


def test_a_row_that_claims_to_be_known_before_its_bar_is_found(day_of_features):
    early = day_of_features.with_columns(available_at=pl.col("available_at") - timedelta(minutes=15))
    assert not store(early)["known_no_earlier_than_its_bar"]


def test_an_impossible_value_is_found(day_of_features):
    assert not store(day_of_features.with_columns(rsi_14=pl.lit(130.0)))["filled_and_within_range"]
