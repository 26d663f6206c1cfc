"""A tick asks for what is missing in the stored data: one tick after a stop asks for all that the stop skipped."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl
import pytest

from tracker_pipeline import keys
from tracker_pipeline.automation.backlog import RANGE_END, RANGE_START
from tracker_pipeline.definitions import defs
from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.schemas import TABLES
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.holds import hold
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars

TICK = datetime(2026, 3, 2, 7, 5, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
HOUR_TICK = TICK - HOUR  # five past six, when the chain has settled the block of six


@pytest.fixture(scope="module")
def shared_instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as persistent:
        yield persistent


@pytest.fixture
def instance(shared_instance) -> Iterator[dg.DagsterInstance]:
    yield shared_instance
    shared_instance.wipe()


def ask(schedule: str, instance: dg.DagsterInstance, tick: datetime = TICK) -> list[dg.RunRequest]:
    definition = defs.resolve_schedule_def(schedule)
    assert definition.default_status is dg.DefaultScheduleStatus.RUNNING
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=tick, repository_def=defs.get_repository_def()
    )
    return list(definition.evaluate_tick(context).run_requests or [])


def ranges(requests: list[dg.RunRequest]) -> list[tuple[str, str]]:
    return [
        (request.partition_key or request.tags[RANGE_START], request.partition_key or request.tags[RANGE_END])
        for request in requests
    ]


def store(table: schemas.Table, frame: pl.DataFrame) -> None:
    window = None
    if table.time_column:
        times = frame.get_column(table.time_column)
        window = (times.min(), times.max() + timedelta(microseconds=1))
    with connect() as connection:
        write_window(connection, table, frame, window, run_id="r")


def store_days(first: date, last: date, *, without: tuple[date, ...] = ()) -> None:
    """A tracked symbol with every 15m bar and daily bar of the days, and their coverage."""
    instrument = {
        "venue": "bybit", "symbol": "BTC/USDT", "base": "BTC", "quote": "USDT", "native_symbol": "BTCUSDT",
        "market_type": "spot", "tier": "large_cap",
    }  # fmt: skip
    store(schemas.INSTRUMENTS, pl.DataFrame([instrument]))
    start = datetime.combine(first, datetime.min.time(), UTC)
    count = (last - first).days + 1
    fine = bars("15m", start=start, count=96 * count)
    daily = bars("1d", start=start, count=count)
    kept = ~pl.col("ts").dt.date().is_in(list(without))
    store(schemas.BARS["15m"], fine.filter(kept))
    store(schemas.BARS["1d"], daily.filter(kept))
    days = [start + i * DAY for i in range(count) if (start + i * DAY).date() not in without]
    judged = [
        {
            "venue": "bybit", "symbol": "BTC/USDT", "timeframe": timeframe, "day": day, "expected": bars_a_day,
            "present": bars_a_day, "empty": 0, "outage": 0, "missing": 0,
        }
        for day in days
        for timeframe, bars_a_day in (("15m", 96), ("1d", 1))
    ]  # fmt: skip
    store(schemas.BAR_COVERAGE, pl.DataFrame(judged))


def store_features(first: date, last: date) -> None:
    """The manifest's word that the days have features up to their last bar."""
    rows = [
        {
            "batch_id": f"{day}", "table_name": "features.ml_features_15m", "data_day": day, "path": f"{day}",
            "rows": 96, "bytes": 1, "sha256": "", "content_hash": "", "column_hashes": "{}", "schema": "{}",
            "state": "live",
            "max_ts": datetime.combine(day, datetime.max.time(), UTC), "created_at": TICK, "verified_at": TICK,
            "run_id": "r",
        }
        for day in (first + i * DAY for i in range((last - first).days + 1))
    ]  # fmt: skip
    store(TABLES["archive.batches"], pl.DataFrame(rows))


def store_hour(hour: datetime, *, status: str = "ok", scored: bool = True) -> None:
    block = {"block_number": 1, "block_hash": "0x", "block_timestamp": hour, "run_id": "r"}
    snapshot = {
        "network": "ethereum", "asset": "ETH", "whale_address": f"0x{1:040x}", "snapshot_timestamp": hour,
        "balance": "1", "status": "ok", **block,
    }  # fmt: skip
    store(schemas.WHALE_BALANCE_SNAPSHOTS, pl.DataFrame([snapshot]))
    counts = dict.fromkeys(
        ("universe", "matched", "missing_current", "missing_historical", "entrants", "leavers", "accumulators",
         "distributors", "neutral", "outliers"), 1,
    )  # fmt: skip
    scores = [
        {
            "network": "ethereum", "snapshot_timestamp": hour, "lookback_hours": lookback, **counts,
            "is_anomaly": False, "tags": [], "status": status, "run_id": "r",
        }
        for lookback in get_config().chain.lookback_hours
    ]  # fmt: skip
    if scored:
        store(schemas.ACCUMULATION_SCORES, pl.DataFrame(scores))


def test_a_first_tick_asks_for_today_and_the_hour_that_has_struck_and_for_no_history(own_database, instance):
    assert ranges(ask("market_hourly", instance)) == [("2026-03-02", "2026-03-02")]
    assert ranges(ask("onchain_hourly", instance, HOUR_TICK)) == [("2026-03-02-06:00", "2026-03-02-06:00")]
    midnight = TICK.replace(hour=0, minute=15)
    assert ranges(ask("market_daily_close", instance, midnight)) == [("2026-03-01", "2026-03-01")]


def test_one_tick_after_a_stop_asks_for_every_hour_that_the_stop_skipped(own_database, instance):
    for hours in (20, 19, 18, 5, 4, 2):
        store_hour(TICK.replace(minute=0) - hours * HOUR)
    asked = ranges(ask("onchain_hourly", instance, HOUR_TICK))
    assert asked == [
        ("2026-03-01-14:00", "2026-03-02-01:00"),
        ("2026-03-02-04:00", "2026-03-02-04:00"),
        ("2026-03-02-06:00", "2026-03-02-06:00"),
    ]


def test_an_hour_with_a_snapshot_and_no_score_is_missing(own_database, instance):
    store_hour(datetime(2026, 3, 2, 5, tzinfo=UTC))
    store_hour(datetime(2026, 3, 2, 6, tzinfo=UTC), scored=False)
    assert ranges(ask("onchain_hourly", instance, HOUR_TICK)) == [("2026-03-02-06:00", "2026-03-02-06:00")]


def test_a_long_stop_is_healed_in_bounded_pieces_the_newest_first(own_database, instance):
    store_hour(TICK.replace(minute=0) - 200 * HOUR)
    ((first, last),) = ranges(ask("onchain_hourly", instance, HOUR_TICK))
    assert last == "2026-03-02-06:00"
    assert first == f"{TICK - get_config().automation.most_hours * HOUR:%Y-%m-%d-%H}:00"


def test_a_score_is_made_again_once_its_baseline_has_arrived(own_database, instance):
    scored = datetime(2026, 3, 2, 6, tzinfo=UTC)
    for hour in (scored - i * HOUR for i in range(22)):
        store_hour(hour)
    store_hour(scored, status="no_baseline")
    assert ask("onchain_hourly", instance, HOUR_TICK) == []
    store_hour(scored - 24 * HOUR)
    *missing, request = ask("onchain_hourly", instance, HOUR_TICK)
    assert ranges(missing) == [("2026-03-01-07:00", "2026-03-01-08:00")]
    assert ranges([request]) == [("2026-03-02-06:00", "2026-03-02-06:00")]
    assert request.asset_selection == [keys.ACCUMULATION_SCORES]


def test_one_tick_after_a_stop_asks_for_every_day_that_is_not_whole(own_database, instance):
    store_days(date(2026, 2, 20), date(2026, 3, 1), without=(date(2026, 2, 24), date(2026, 2, 25)))
    store_features(date(2026, 2, 20), date(2026, 3, 1))
    asked = ranges(ask("market_hourly", instance))
    assert asked == [("2026-02-24", "2026-02-25"), ("2026-03-02", "2026-03-02")]


@pytest.mark.parametrize("change", ["expected = 95, present = 95", "symbol = 'ETH/USDT'"])
def test_a_day_counts_as_whole_only_when_its_coverage_says_so(own_database, instance, change):
    store_days(date(2026, 2, 25), date(2026, 3, 1))
    store_features(date(2026, 2, 25), date(2026, 3, 1))
    assert ranges(ask("market_hourly", instance)) == [("2026-03-02", "2026-03-02")]
    with connect() as connection:
        connection.execute(
            f"UPDATE market.bar_coverage SET {change} WHERE day = '2026-02-27' AND timeframe = '15m'"
        )
    assert ranges(ask("market_hourly", instance)) == [
        ("2026-02-27", "2026-02-27"),
        ("2026-03-02", "2026-03-02"),
    ]


def test_bars_that_coverage_found_missing_are_left_to_the_healing_of_gaps(own_database, instance):
    store_days(date(2026, 2, 25), date(2026, 3, 1))
    store_features(date(2026, 2, 25), date(2026, 3, 1))
    with connect() as connection:
        connection.execute(
            "UPDATE market.bar_coverage SET present = 90, missing = 6"
            " WHERE day = '2026-02-27' AND timeframe = '15m'"
        )
    assert ranges(ask("market_hourly", instance)) == [("2026-03-02", "2026-03-02")]


def test_a_day_without_features_is_not_whole(own_database, instance):
    store_days(date(2026, 2, 27), date(2026, 3, 1))
    store_features(date(2026, 2, 27), date(2026, 2, 28))
    assert ranges(ask("market_hourly", instance)) == [("2026-03-01", "2026-03-02")]


def test_a_day_whose_run_broke_off_after_the_bars_is_not_whole(own_database, instance):
    for key in (keys.REGIMES, keys.ML_FEATURES_15M, keys.STRATEGY_SETUPS, keys.STRATEGY_DCA_LABELS,
                keys.STRATEGY_SWING_LABELS, keys.STRATEGY_CHANNEL_LABELS):  # fmt: skip
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="2026-02-20"))
    instance.report_runless_asset_event(dg.AssetMaterialization(keys.OHLC_15M, partition="2026-02-20"))
    assert ("2026-02-20", "2026-02-20") in ranges(ask("market_hourly", instance))


def test_yesterday_is_not_asked_for_before_it_can_be_whole(own_database, instance):
    store_days(date(2026, 2, 27), date(2026, 2, 28))
    store_features(date(2026, 2, 27), date(2026, 2, 28))
    early = datetime(2026, 3, 2, 0, 5, tzinfo=UTC)
    assert ranges(ask("market_hourly", instance, early)) == [("2026-03-02", "2026-03-02")]
    assert ranges(ask("market_daily_close", instance, early.replace(minute=15))) == [
        ("2026-03-01", "2026-03-01")
    ]


def test_what_a_run_is_making_is_not_asked_for_again(own_database, instance):
    (request,) = ask("onchain_hourly", instance, HOUR_TICK)
    run = instance.create_run_for_job(
        defs.resolve_job_def("onchain_hour"),
        tags={"dagster/partition": request.partition_key},
        status=dg.DagsterRunStatus.STARTED,
    )
    assert ask("onchain_hourly", instance, HOUR_TICK) == []
    instance.report_run_canceled(run)
    assert ranges(ask("onchain_hourly", instance, HOUR_TICK)) == ranges([request])


def test_the_same_tick_evaluated_twice_asks_by_the_same_keys(own_database, instance):
    store_hour(TICK.replace(minute=0) - 9 * HOUR)
    for schedule in ("market_hourly", "onchain_hourly"):
        once, twice = ask(schedule, instance), ask(schedule, instance)
        assert [request.run_key for request in once] == [request.run_key for request in twice]


def test_labels_are_judged_again_over_the_longest_horizon(instance):
    assert ranges(ask("labels_daily", instance)) == [("2026-02-26", "2026-03-01")]


def test_a_week_that_was_missed_is_trained_with_the_last_one(instance):
    week = "2026-02-09"
    instance.report_runless_asset_event(dg.AssetMaterialization(keys.OHLC_15M, partition=week))
    asked = [request.partition_key for request in ask("training_weekly", instance)]
    assert asked == ["2026-02-09", "2026-02-23"]


def test_the_archive_asks_for_all_days_that_left_the_hot_window_however_old(own_database, instance):
    for day in (datetime(2024, 5, 1, tzinfo=UTC), datetime(2025, 2, 28, tzinfo=UTC), TICK - DAY):
        store(schemas.BARS["15m"], bars(start=day.replace(hour=0, minute=0), count=96 * 2))
    requests = ask("archive_hourly", instance)
    assert ranges(requests) == [("2024-05-01", "2024-05-02"), ("2025-02-28", "2025-03-01")]
    assert {key.to_user_string() for r in requests for key in r.asset_selection} == {
        "archive/market/ohlc_15m"
    }


def test_the_archive_does_not_ask_for_days_that_are_held_back(own_database, instance):
    store(schemas.BARS["15m"], bars(start=datetime(2024, 5, 1, tzinfo=UTC), count=96 * 3))
    until = datetime.now(UTC) + DAY
    with connect() as connection:
        hold(connection, "market.ohlc_15m", [date(2024, 5, 2)], until=until, reason="restored", run_id="r")
    asked = ranges(ask("archive_hourly", instance))
    assert asked == [("2024-05-01", "2024-05-01"), ("2024-05-03", "2024-05-03")]


def test_a_clock_that_jumps_back_asks_for_nothing_that_is_there(own_database, instance):
    for hours in range(7):
        store_hour(TICK.replace(minute=0) - hours * HOUR)
    assert ask("onchain_hourly", instance, TICK) == []
    assert ask("onchain_hourly", instance, TICK - 3 * HOUR) == []


def test_a_clock_that_jumps_forward_asks_for_the_hours_between_once(own_database, instance):
    store_hour(TICK.replace(minute=0) - HOUR)
    ((first, last),) = ranges(ask("onchain_hourly", instance, TICK + 5 * HOUR))
    assert (first, last) == ("2026-03-02-07:00", "2026-03-02-12:00")
