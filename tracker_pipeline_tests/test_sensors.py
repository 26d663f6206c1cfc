"""What bars make stale, and labels that have become decidable, are asked for again: those days and no others."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl
import pytest
from dagster import DagsterRun

from tracker_pipeline.automation import sensors
from tracker_pipeline.automation.backlog import RANGE_END, RANGE_START
from tracker_pipeline.domain import schemas, staleness
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.invalidations import Invalidation
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars

START = datetime(2024, 5, 1, tzinfo=UTC)
RUN_KEY = "dagster/run_key"


def write(frame: pl.DataFrame, timeframe: str = "15m") -> None:
    window = (START, START + timedelta(days=90))
    with connect() as connection:
        write_window(connection, schemas.BARS[timeframe], frame, window, run_id="r")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    return sensors.stale_after_bars(dg.build_sensor_context(instance=instance, cursor=cursor))


def ranges(result: dg.SensorResult) -> list[tuple[str, str]]:
    return [
        (request.partition_key or request.tags[RANGE_START], request.partition_key or request.tags[RANGE_END])
        for request in result.run_requests
    ]


def test_without_corrections_nothing_is_asked_for(own_database, instance):
    write(bars(count=96))
    assert isinstance(tick(instance), dg.SkipReason)


def correct(place: int) -> None:
    frame = bars(count=96 * 3)
    write(frame)
    write(frame.with_columns(close=pl.when(pl.int_range(pl.len()) == place).then(1.0).otherwise("close")))


def test_a_corrected_bar_asks_for_the_days_that_see_it_once(own_database, instance):
    correct(100)
    first = tick(instance)
    assert ranges(first) == [("2024-04-28", "2024-05-01"), ("2024-05-02", "2024-05-26")]
    labels, whole = first.run_requests
    assert schemas.ML_FEATURES_15M.table in {key.path[-1] for key in whole.asset_selection}
    assert {key.path[-1] for key in labels.asset_selection} == {
        "strategy_dca_labels",
        "strategy_swing_labels",
        "strategy_channel_labels",
    }
    assert isinstance(tick(instance, first.cursor), dg.SkipReason)
    assert [r.run_key for r in tick(instance).run_requests] == [r.run_key for r in first.run_requests]


def launch(instance: dg.DagsterInstance, request: dg.RunRequest, status: dg.DagsterRunStatus) -> None:
    instance.add_run(DagsterRun("market_day", status=status, tags={RUN_KEY: request.run_key or ""}))


def test_days_whose_run_failed_are_asked_for_again_until_one_succeeds(own_database, instance):
    correct(100)
    result = tick(instance)
    failed, succeeded = result.run_requests
    launch(instance, failed, dg.DagsterRunStatus.FAILURE)
    launch(instance, succeeded, dg.DagsterRunStatus.STARTED)
    assert isinstance(tick(instance, result.cursor), dg.SkipReason), "not at once"
    later = re.sub(r'"at": "[^"]+"', '"at": "2024-05-01T00:00:00+00:00"', result.cursor or "")
    second = tick(instance, later)
    assert ranges(second) == [ranges(result)[0]], "that which is under way is not asked for twice"
    assert second.run_requests[0].run_key != failed.run_key
    launch(instance, second.run_requests[0], dg.DagsterRunStatus.SUCCESS)
    launch(instance, succeeded, dg.DagsterRunStatus.SUCCESS)
    third = tick(instance, second.cursor)
    assert not third.run_requests
    assert isinstance(tick(instance, third.cursor), dg.SkipReason)


def test_a_cursor_of_before_there_were_requests_is_read_on_from(own_database, instance):
    correct(100)
    seen = json.loads(tick(instance).cursor)["seen"]
    assert isinstance(tick(instance, str(seen)), dg.SkipReason)
    assert tick(instance, str(seen - 1)).run_requests


def stale_of(timeframe: str, symbol: str, start: datetime, length: timedelta, today=date(2026, 1, 1)) -> list:
    one = Invalidation(1, "bybit", symbol, timeframe, start, start + length)
    return [(sorted(products), *days) for products, days in sensors.stale_days([one], today=today)]


def day(number: int) -> date:
    return START.date() + timedelta(days=number)


def test_a_change_reaches_as_far_as_what_looks_back_at_it():
    quarter, whole_day = timedelta(minutes=15), timedelta(days=1)
    later = ["labels", "setups"]
    assert stale_of("15m", "ETH/USDT", START, quarter) == [
        (["labels"], day(-4), day(-1)),
        (["features", *later], day(0), day(7)),
        (later, day(8), day(10)),
    ]
    closing = START + timedelta(hours=23, minutes=45)
    assert stale_of("15m", "ETH/USDT", closing, quarter)[-1] == (["features"], day(11), day(31))
    assert stale_of("1d", "ETH/USDT", START, whole_day) == []
    assert stale_of("1d", "BTC/USDT", START, whole_day) == [
        (["features", "labels", "regimes", "setups"], day(0), day(213 + 22))
    ]
    assert stale_of("1h", "ETH/USDT", START, timedelta(hours=1)) == [(later, day(0), day(22))]
    assert stale_of("5m", "ETH/USDT", START, timedelta(minutes=5)) == [(["features"], day(0), day(0))]
    assert stale_of("1m", "ETH/USDT", START, timedelta(minutes=1)) == [(["labels"], day(-4), day(0))]


def test_nothing_is_asked_for_before_history_or_after_today():
    early = datetime(2023, 12, 20, tzinfo=UTC)
    found = stale_of("15m", "BTC/USDT", early, timedelta(minutes=15), today=date(2024, 1, 5))
    assert [days for _, *days in found] == [[date(2024, 1, 1), date(2024, 1, 5)]]


def test_ranges_that_touch_are_one_run():
    days = [date(2024, 5, d) for d in (1, 2, 4, 5, 9)]
    assert staleness.merged([(day, day) for day in days]) == [
        (days[0], days[1]),
        (days[2], days[3]),
        (days[4], days[4]),
    ]


def test_pending_labels_are_due_once_the_stored_bars_pass_their_horizon(own_database):
    label = {
        "setup_id": "a",
        "venue": "bybit",
        "symbol": "BTC/USDT",
        "timestamp": START,
        "setup_detected": True,
        "outcome": "PENDING",
        "label_version": "1",
    }
    final = {**label, "setup_id": "b", "outcome": "WIN"}
    labels = pl.DataFrame([label, final])
    with connect() as connection:
        window = (START, START + timedelta(days=1))
        write_window(connection, schemas.DCA_LABELS, labels, window, run_id="r")
    soon, due = START + timedelta(hours=73), START + timedelta(hours=75)
    assert sensors.due_label_days({"bybit": soon}) == {}
    assert sensors.due_label_days({"bybit": due}) == {"dca": [(START.date(), START.date())]}
    assert sensors.due_label_days({"bybit": soon, "binance": due}) == {}, "a venue waits for its own bars"
