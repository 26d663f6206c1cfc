"""Bars that know whether they are complete: what is absent is named, told apart, and healed."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
import stamina

from tracker_pipeline import keys
from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect
from tracker_pipeline_tests.assets.market_runs import (
    DAY,
    Faults,
    exchange,
    failure,
    hours,
    record_instruments,
    run,
)
from tracker_pipeline_tests.conftest import forget_settings

FETCHED = [keys.BARS[name] for name in ("15m", "1h", "4h", "1d")]
CHAIN = [*FETCHED, keys.BAR_COVERAGE]
QUARTER = timedelta(minutes=15)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.fixture
def faults(own_database: str) -> Faults:
    record_instruments()
    return Faults()


def coverage(timeframe: str = "15m") -> pl.DataFrame:
    return (
        scan("market.bar_coverage").filter(pl.col("timeframe") == timeframe).sort("symbol", "day").collect()
    )


def gaps(timeframe: str = "15m") -> pl.DataFrame:
    return (
        scan("market.bar_gaps").filter(pl.col("timeframe") == timeframe).sort("symbol", "gap_start").collect()
    )


def counts(timeframe: str = "15m") -> dict[str, tuple[int, ...]]:
    """Expected, present, empty, outage and missing bars by symbol."""
    names = ["expected", "present", "empty", "outage", "missing"]
    return {row[0]: row[1:] for row in coverage(timeframe).select("symbol", *names).iter_rows()}


def be_due() -> None:
    """Let the time of the next attempt come."""
    with connect() as connection:
        connection.execute(
            "UPDATE market.bar_gaps SET next_attempt_at = now() - interval '1 s' WHERE next_attempt_at IS NOT NULL"
        )


def test_a_whole_day_is_covered_by_every_timeframe_that_is_asked_for_or_made(faults):
    with exchange(faults) as resource:
        result = run(resource, CHAIN, checks=True)
    assert result.success
    assert all(evaluation.passed for evaluation in result.get_asset_check_evaluations())
    expected = {"15m": 96, "1h": 24, "4h": 6, "1d": 1}
    assert {name: counts(name)["BTC/USDT"] for name in expected} == {
        name: (count, count, 0, 0, 0) for name, count in expected.items()
    }
    assert gaps().is_empty()
    made = scan(BARS["4h"].name).collect()
    assert made.get_column("source").unique().to_list() == ["rollup"]
    assert made.get_column("n_src").unique().to_list() == [16]


def test_one_symbol_that_fails_leaves_the_others_stored_and_the_run_failed_with_its_name(faults):
    faults.refuse = {"ETHUSDT": 500}
    with exchange(faults) as resource:
        result = run(resource, [keys.OHLC_15M])
    assert not result.success
    assert "1 of 4 symbols could not be fetched (ETH/USDT)" in failure(result)
    stored = scan(BARS["15m"].name).collect()
    assert stored.group_by("symbol").len().get_column("len").to_list() == [96] * 3
    (gap,) = gaps().to_dicts()
    assert (gap["symbol"], gap["state"], gap["bars"]) == ("ETH/USDT", "missing", 96)
    assert gap["last_error"]
    assert gap["next_attempt_at"] <= datetime.now(UTC)


def test_what_was_missing_is_asked_for_exactly_and_healed_with_all_that_is_made_of_it(faults):
    with exchange(faults) as resource:
        assert run(resource, CHAIN).success
        lost = (DAY + hours(5), DAY + hours(6.5))
        with connect() as connection:
            for timeframe in ("15m", "1h", "4h"):
                connection.execute(
                    f"DELETE FROM market.ohlc_{timeframe} WHERE symbol = 'SOL/USDT'"  # type: ignore[arg-type]
                    " AND ts + %s > %s AND ts < %s",
                    [{"15m": QUARTER, "1h": hours(1), "4h": hours(4)}[timeframe], *lost],
                )
        before = scan(BARS["15m"].name).collect()
        assert run(resource, [keys.BAR_COVERAGE]).success
        assert counts()["SOL/USDT"] == (96, 90, 0, 0, 6)
        assert counts("4h")["SOL/USDT"] == (6, 5, 0, 0, 1)
        faults.asked.clear()
        result = run(resource, [keys.BAR_GAPS], None)
        assert result.success
    asked = {(symbol, interval) for symbol, interval, _, _ in faults.asked}
    assert asked == {("SOLUSDT", "15"), ("SOLUSDT", "60")}
    quarters = [(start, end) for _, interval, start, end in faults.asked if interval == "15"]
    assert min(quarters)[0] == lost[0].timestamp() * 1000
    assert max(end for _, end in quarters) < lost[1].timestamp() * 1000
    assert counts()["SOL/USDT"] == (96, 96, 0, 0, 0)
    assert counts("4h")["SOL/USDT"] == (6, 6, 0, 0, 0)
    assert gaps().get_column("resolved_at").null_count() == 0
    assert gaps().height == 1, "a gap that was filled is resolved and stays"
    assert scan(BARS["15m"].name).collect().height == before.height + 6


def test_what_the_exchange_says_it_does_not_have_is_empty_and_not_missing(faults):
    faults.without = [({"XRPUSDT"}, DAY + hours(2), DAY + hours(3))]
    with exchange(faults) as resource:
        assert run(resource, CHAIN).success
    assert counts()["XRP/USDT"] == (96, 92, 4, 0, 0)
    (gap,) = gaps().to_dicts()
    assert (gap["state"], gap["bars"], gap["confirmed_by"], gap["next_attempt_at"]) == (
        "empty",
        4,
        "bybit",
        None,
    )
    assert counts("1h")["XRP/USDT"] == (24, 23, 1, 0, 0)
    four_hours = scan(BARS["4h"].name).filter(pl.col("symbol") == "XRP/USDT").collect()
    assert four_hours.get_column("n_src").to_list() == [12, 16, 16, 16, 16, 16], (
        "its children are known not to exist"
    )


def test_a_bar_that_comes_after_it_was_confirmed_empty_resolves_the_gap(faults):
    faults.without = [({"XRPUSDT"}, DAY + hours(2), DAY + hours(3))]
    with exchange(faults) as resource:
        assert run(resource, CHAIN).success
        faults.without = []
        assert run(resource, CHAIN).success
    assert counts()["XRP/USDT"] == (96, 96, 0, 0, 0)
    assert gaps().get_column("resolved_at").null_count() == 0


def test_what_all_symbols_lack_at_once_is_one_outage_and_asked_again_a_bounded_number_of_times(faults):
    down = (DAY + hours(12), DAY + hours(14))
    faults.without = [({"BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"}, *down)]
    with exchange(faults) as resource:
        assert run(resource, CHAIN).success
        assert counts()["BTC/USDT"] == (96, 88, 0, 8, 0)
        asked = 0
        for _ in range(8):
            be_due()
            faults.asked.clear()
            result = run(resource, [keys.BAR_GAPS], None)
            assert result.success, failure(result)
            asked += any(symbol == "BTCUSDT" and interval == "15" for symbol, interval, _, _ in faults.asked)
    assert asked == 6
    (outage,) = scan("market.outages").collect().to_dicts()
    assert (outage["outage_start"], outage["outage_end"]) == down
    assert (outage["timeframe"], outage["symbols_absent"], outage["symbols_expected"]) == ("15m", 4, 4)
    assert outage["confirmed_by"] == "bybit"
    assert gaps().get_column("state").unique().to_list() == ["outage"]
    assert gaps().height == 4
    assert gaps().get_column("next_attempt_at").null_count() == 4


def test_an_outage_that_was_ours_heals_and_is_resolved(faults):
    with exchange(faults) as resource:
        assert run(resource, CHAIN).success
        with connect() as connection:
            connection.execute(
                "DELETE FROM market.ohlc_15m WHERE ts >= %s AND ts < %s", [DAY + hours(7), DAY + hours(9)]
            )
        assert run(resource, [keys.BAR_COVERAGE]).success
        assert counts()["BTC/USDT"] == (96, 88, 0, 8, 0)
        assert run(resource, [keys.BAR_GAPS], None).success
    assert counts()["BTC/USDT"] == (96, 96, 0, 0, 0)
    (outage,) = scan("market.outages").collect().to_dicts()
    assert outage["resolved_at"] is not None


def test_a_gap_that_cannot_be_filled_is_asked_for_less_and_less_often_and_its_run_fails(faults):
    faults.refuse = {"ETHUSDT": 500}
    with exchange(faults) as resource:
        run(resource, [keys.OHLC_15M])
        waits = []
        for _ in range(3):
            be_due()
            before = datetime.now(UTC)
            result = run(resource, [keys.BAR_GAPS], None)
            assert not result.success
            assert "ETH/USDT" in failure(result)
            (gap,) = gaps().to_dicts()
            waits.append((gap["next_attempt_at"] - before).total_seconds() / 60)
    assert gap["attempts"] == 3
    assert [round(wait) for wait in waits] == [5, 15, 45]


def test_a_new_listing_lacks_nothing_before_it_was_listed(faults):
    record_instruments(("BTC",), listed_from=DAY + hours(6))
    with exchange(faults) as resource:
        assert run(resource, CHAIN).success
    assert counts()["BTC/USDT"] == (72, 72, 0, 0, 0)
    assert counts()["ETH/USDT"] == (96, 96, 0, 0, 0)
    assert gaps().is_empty()
    assert counts("4h")["BTC/USDT"] == (4, 4, 0, 0, 0)


def test_a_second_run_changes_no_row(faults):
    faults.without = [({"XRPUSDT"}, DAY + hours(2), DAY + hours(3))]
    tables = ("market.bar_gaps", "market.bar_coverage", "market.ohlc_4h", "market.outages")
    with exchange(faults) as resource:
        assert run(resource, CHAIN).success
        first = {table: scan(table).collect() for table in tables}
        assert run(resource, CHAIN).success
    for table in tables:
        assert scan(table).collect().equals(first[table]), table


def test_a_symbol_that_was_delisted_and_came_back_has_no_gap_between(faults):
    away = (DAY + hours(4), DAY + hours(20))
    faults.without = [({"XRPUSDT"}, *away)]
    listings = [
        {"from": None, "to": f"{away[0]:%Y-%m-%dT%H:%M:%SZ}"},
        {"from": f"{away[1]:%Y-%m-%dT%H:%M:%SZ}", "to": None},
    ]
    record_instruments(("XRP",), listings=json.dumps(listings))
    with exchange(faults) as resource:
        assert run(resource, [keys.OHLC_15M, keys.BAR_COVERAGE]).success
    assert counts()["XRP/USDT"] == (32, 32, 0, 0, 0)
    assert gaps().is_empty()
    assert not [
        1
        for symbol, _, start, _ in faults.asked
        if symbol == "XRPUSDT" and away[0] <= moment(start) < away[1] - QUARTER
    ]


def test_a_symbol_of_unknown_listing_is_unlisted_before_the_first_bar_that_the_exchange_has(faults):
    faults.without = [({"XRPUSDT"}, DAY - timedelta(days=900), DAY + hours(12))]
    with exchange(faults) as resource:
        result = run(resource, [keys.OHLC_15M, keys.BAR_COVERAGE], (DAY - timedelta(days=1), DAY))
        assert result.success, failure(result)
    assert counts()["XRP/USDT"] == (48, 48, 0, 0, 0)
    (gap,) = gaps().to_dicts()
    assert (gap["symbol"], gap["state"], gap["bars"]) == ("XRP/USDT", "unlisted", 96 + 48)
    assert gap["next_attempt_at"] is None


def test_a_missing_bar_that_the_exchange_says_it_does_not_have_is_empty_from_then_on(faults):
    with exchange(faults) as resource:
        assert run(resource, [keys.OHLC_15M, keys.BAR_COVERAGE]).success
        lost = (DAY + hours(7), DAY + hours(8))
        with connect() as connection:
            connection.execute(
                "DELETE FROM market.ohlc_15m WHERE symbol = 'BTC/USDT' AND ts >= %s AND ts < %s", lost
            )
        assert run(resource, [keys.BAR_COVERAGE]).success
        assert counts()["BTC/USDT"] == (96, 92, 0, 0, 4)
        faults.without = [({"BTCUSDT"}, *lost)]
        assert run(resource, [keys.BAR_GAPS], None).success
        assert counts()["BTC/USDT"] == (96, 92, 4, 0, 0)
        faults.asked.clear()
        be_due()
        assert run(resource, [keys.BAR_GAPS], None).success
    assert "15" not in {interval for _, interval, _, _ in faults.asked}


def moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def test_bars_made_of_minutes_equal_those_that_the_exchange_serves_itself(faults, tmp_path, monkeypatch):
    path = tmp_path / "minutes.yaml"
    path.write_text("market: {native_timeframes: [1m]}\n")
    monkeypatch.setenv("TRACKER_CONFIG", str(path))
    forget_settings()
    record_instruments(("BTC",))
    lost = (DAY + hours(3), DAY + hours(3) + timedelta(minutes=7))
    faults.without = [({"BTCUSDT"}, *lost)]
    with exchange(faults) as resource:
        assert run(resource, [*keys.BARS.values(), keys.BAR_COVERAGE]).success
        assert {interval for _, interval, _, _ in faults.asked} == {"1"}
        for timeframe, count in {"5m": 287, "15m": 96, "1h": 24, "4h": 6, "1d": 1}.items():
            assert counts(timeframe)["BTC/USDT"][1] == count
        faults.without = []
        whole = resource.client().bars_many(["BTC/USDT"], "15m", DAY, DAY + hours(24))["BTC/USDT"].frame
    made = scan(BARS["15m"].name, predicate=pl.col("symbol") == "BTC/USDT").collect().sort("ts")
    assert made.filter(pl.col("ts") == lost[0]).get_column("n_src").to_list() == [8]
    values = ["ts", "open", "high", "low", "close", "volume"]
    untouched = pl.col("ts") != lost[0]
    assert made.filter(untouched).select(values).equals(whole.filter(untouched).select(values))
    assert counts("5m")["BTC/USDT"] == (288, 287, 1, 0, 0), "five minutes of which none exists do not exist"
