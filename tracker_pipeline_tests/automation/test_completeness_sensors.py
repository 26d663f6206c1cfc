"""What is due, what was corrected and what was imported is asked for, and nothing else."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from tracker_pipeline import keys
from tracker_pipeline.automation import sensors
from tracker_pipeline.automation.backlog import RANGE_END, RANGE_START
from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars

START = datetime(2024, 5, 1, tzinfo=UTC)
Sensor = Callable[[dg.SensorEvaluationContext], dg.SensorResult | dg.SkipReason]


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def tick(
    sensor: Sensor, instance: dg.DagsterInstance, cursor: str | None = None
) -> dg.SensorResult | dg.SkipReason:
    return sensor(dg.build_sensor_context(instance=instance, cursor=cursor))


def asked(result: dg.SensorResult | dg.SkipReason) -> list[tuple[str, str, set[str]]]:
    assert isinstance(result, dg.SensorResult)
    return [
        (
            r.partition_key or r.tags[RANGE_START],
            r.partition_key or r.tags[RANGE_END],
            {key.path[-1] for key in r.asset_selection or []},
        )
        for r in result.run_requests or []
    ]


def record_gap(venue: str, due: timedelta) -> None:
    with connect() as connection:
        connection.execute(
            "INSERT INTO market.bar_gaps VALUES (%s, 'BTC/USDT', '15m', %s, %s, 4, 'missing', 0, now() + %s, now())",
            [venue, START, START + timedelta(hours=1), due],
        )


def test_a_run_heals_gaps_once_one_of_the_exchange_is_due(own_database, instance):
    assert "no gap is due" in str(tick(sensors.gaps_due, instance))
    record_gap("binance", -timedelta(hours=1))
    assert isinstance(tick(sensors.gaps_due, instance), dg.SkipReason), "nobody asks another exchange"
    record_gap("bybit", timedelta(hours=1))
    assert isinstance(tick(sensors.gaps_due, instance), dg.SkipReason)
    with connect() as connection:
        connection.execute("UPDATE market.bar_gaps SET next_attempt_at = now() - interval '1 min'")
    result = tick(sensors.gaps_due, instance)
    assert isinstance(result, dg.SensorResult)
    assert len(result.run_requests or []) == 1


def test_a_corrected_bar_asks_for_the_longer_bars_and_the_coverage_of_its_day(own_database, instance):
    window = (START, START + timedelta(days=3))
    with connect() as connection:
        write_window(connection, BARS["15m"], bars(count=250), window, run_id="r")
    assert isinstance(tick(sensors.rollups_stale, instance), dg.SkipReason)
    corrected = bars(start=START + timedelta(days=1, hours=2), count=1, price=7.0)
    with connect() as connection:
        write_window(connection, BARS["15m"], corrected, window, run_id="r")
    result = tick(sensors.rollups_stale, instance)
    assert asked(result) == [("2024-05-02", "2024-05-02", {"ohlc_1h", "ohlc_4h", "ohlc_1d", "bar_coverage"})]
    assert isinstance(tick(sensors.rollups_stale, instance, result.cursor), dg.SkipReason)


def test_imported_days_get_their_longer_bars_once(own_database, instance):
    for day in ("2024-05-01", "2024-05-02", "2024-05-09"):
        event = dg.AssetMaterialization(keys.BARS["1m"], partition=day)
        instance.report_runless_asset_event(event)
    result = tick(sensors.rollups_of_imports, instance)
    longer = {"ohlc_5m", "ohlc_15m", "ohlc_1h", "ohlc_4h", "ohlc_1d", "bar_coverage"}
    assert asked(result) == [("2024-05-01", "2024-05-02", longer), ("2024-05-09", "2024-05-09", longer)]
    again = tick(sensors.rollups_of_imports, instance, result.cursor)
    assert not again.run_requests
