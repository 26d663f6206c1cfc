"""An outage is one cause while it is news; bars asked for in vain are one cause for a venue."""

from datetime import UTC, datetime, timedelta

from tracker_pipeline.operations import causes
from tracker_pipeline.storage.database import connect

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def keys(now: datetime = NOW) -> dict[str, str]:
    with connect() as connection:
        found = causes.find(connection, now, [])
    return {cause.key: cause.title for cause in found if cause.key.startswith(("outage/", "gaps/"))}


def test_an_outage_is_said_once_and_an_old_one_that_a_backfill_finds_not_at_all(own_database):
    with connect() as connection:
        for ended in (NOW - HOUR, NOW - 800 * HOUR):
            connection.execute(
                "INSERT INTO market.outages VALUES ('bybit', %s, %s, '5m', 88, 90, 'bybit', now(), NULL, 'r')",
                [ended - HOUR, ended],
            )
    assert keys() == {"outage/bybit/2026-03-01T10:00": "bybit had no bars from 2026-03-01 10:00 to 11:00 UTC"}
    assert keys(NOW + 24 * HOUR) == {}


def test_bars_asked_for_in_vain_three_times_are_one_cause_for_the_venue(own_database):
    with connect() as connection:
        for symbol, attempts in (("BTC/USDT", 3), ("ETH/USDT", 4), ("SOL/USDT", 1)):
            connection.execute(
                "INSERT INTO market.bar_gaps VALUES ('bybit', %s, '15m', %s, %s, 4, 'missing', %s, now(), now())",
                [symbol, NOW - 2 * HOUR, NOW - HOUR, attempts],
            )
    assert keys() == {"gaps/bybit": "8 bars of 2 symbols of bybit missing"}
