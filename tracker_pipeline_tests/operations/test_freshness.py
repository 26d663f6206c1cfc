"""Each series is judged by the age of its own data on the exchange's clock, and the state is stored."""

from datetime import UTC, datetime, timedelta

import pytest

from tracker_pipeline.domain.freshness import Judged, judge
from tracker_pipeline.operations import freshness
from tracker_pipeline.storage.database import connect
from tracker_pipeline_tests.operations.series import bar_closing, track

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LIMIT = 105 * MINUTE


def states(now: datetime = NOW) -> dict[tuple[str, str], str]:
    with connect() as connection:
        freshness.check(connection, now)
        rows = connection.execute("SELECT table_name, symbol, state FROM operations.freshness").fetchall()
    return {(table, symbol): state for table, symbol, state in rows}


@pytest.mark.parametrize(
    ("age", "state"),
    [(LIMIT, "fresh"), (LIMIT + MINUTE, "late"), (2 * LIMIT, "late"), (2 * LIMIT + MINUTE, "stale")],
)
def test_a_series_is_late_after_its_limit_and_stale_after_twice_that(age, state):
    assert judge(NOW - age, now=NOW, late_after=LIMIT, former=None).state == state


def test_what_never_came_is_late_at_first_and_stale_once_a_row_would_be():
    late = judge(None, now=NOW, late_after=LIMIT, former=None)
    assert late == Judged("late", NOW)
    assert judge(None, now=NOW + 2 * LIMIT, late_after=LIMIT, former=late) == late
    stale = judge(None, now=NOW + 2.1 * LIMIT, late_after=LIMIT, former=late)
    assert stale.state == "stale"
    assert judge(None, now=NOW + 9 * LIMIT, late_after=LIMIT, former=stale) == stale


def test_a_series_that_comes_back_is_recovered_for_an_hour_and_then_fresh():
    stale = Judged("stale", NOW - timedelta(hours=5))
    back = judge(NOW, now=NOW, late_after=LIMIT, former=stale)
    assert back == Judged("recovered", NOW)
    assert judge(NOW, now=NOW + 59 * MINUTE, late_after=LIMIT, former=back) == back
    assert judge(NOW, now=NOW + 60 * MINUTE, late_after=LIMIT, former=back).state == "fresh"


def test_one_dead_symbol_is_not_hidden_by_the_others(own_database):
    track("BTC/USDT", "ETH/USDT")
    bar_closing(NOW, "BTC/USDT")
    bar_closing(NOW - timedelta(hours=9), "ETH/USDT")
    assert states() == {
        ("market.ohlc_15m", "BTC/USDT"): "fresh",
        ("market.ohlc_15m", "ETH/USDT"): "stale",
    }


def test_each_timeframe_has_its_own_limit(own_database):
    track("BTC/USDT")
    bar_closing(NOW - timedelta(hours=4), "BTC/USDT")
    bar_closing(NOW.replace(hour=0), "BTC/USDT", timeframe="1d")
    assert states() == {
        ("market.ohlc_15m", "BTC/USDT"): "stale",
        ("market.ohlc_1d", "BTC/USDT"): "fresh",
    }


def test_a_thin_symbol_may_be_older(own_database):
    track("BTC/USDT", "MOG/USDT", thin=("MOG/USDT",))
    bar_closing(NOW - timedelta(hours=5), "BTC/USDT", "MOG/USDT")
    assert [state for _, state in sorted(states().items())] == ["stale", "fresh"]


def test_rows_of_the_past_refresh_nothing(own_database):
    track("BTC/USDT")
    bar_closing(NOW - timedelta(hours=9), "BTC/USDT")
    assert states() == {("market.ohlc_15m", "BTC/USDT"): "stale"}
    bar_closing(NOW - timedelta(days=40), "BTC/USDT")
    assert states() == {("market.ohlc_15m", "BTC/USDT"): "stale"}


def test_the_state_and_its_beginning_are_stored_and_a_delisted_symbol_is_forgotten(own_database):
    track("BTC/USDT", "ETH/USDT")
    bar_closing(NOW, "BTC/USDT", "ETH/USDT")
    states()
    states(NOW + MINUTE)
    with connect() as connection:
        since = connection.execute("SELECT DISTINCT since FROM operations.freshness").fetchall()
        connection.execute("UPDATE market.instruments SET listed_to = now() WHERE symbol = 'ETH/USDT'")
    assert since == [(NOW,)]
    assert states(NOW + 2 * MINUTE) == {("market.ohlc_15m", "BTC/USDT"): "fresh"}
