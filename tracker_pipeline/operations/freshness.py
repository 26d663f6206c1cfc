"""Judges each series by the exchange's clock and stores its state, outside of any run.

A run that failed or brought half of its rows refreshes nothing: the age is that of the data, not of a
materialization, so that a backfill of January leaves a stale March stale.

What belongs here: the check and its record. What does not: the rules (`domain.freshness`), alerts.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from tracker_pipeline.domain.freshness import Judged, judge
from tracker_pipeline.operations.newest import Series, newest_series
from tracker_pipeline.resources.errors import PipelineError
from tracker_pipeline.settings import get_config, get_endpoints
from tracker_pipeline.storage.database import Connection

_THIN_FACTOR: Final = 4  # a symbol that trades in fewer than 98 % of its minutes

_UPSERT: Final = """
INSERT INTO operations.freshness
    (table_name, venue, symbol, newest_at, age_seconds, late_after_seconds, state, since, checked_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (table_name, venue, symbol) DO UPDATE SET
    newest_at = excluded.newest_at, age_seconds = excluded.age_seconds,
    late_after_seconds = excluded.late_after_seconds, state = excluded.state, since = excluded.since,
    checked_at = excluded.checked_at
"""


@dataclass(frozen=True)
class Checked:
    """A series with its state."""

    series: Series
    age: timedelta | None
    late_after: timedelta
    judged: Judged


class ExchangeClock:
    """What time it is for the exchange, asked every ten minutes; the own clock where the exchange is away."""

    _ASK_AGAIN: Final = 600.0

    def __init__(self) -> None:
        self._offset = timedelta(0)
        self._asked = float("-inf")
        self.note = ""

    def now(self) -> datetime:
        """The exchange's time."""
        if time.monotonic() - self._asked > self._ASK_AGAIN:
            self._asked = time.monotonic()
            self._offset, self.note = self._ask()
        return datetime.now(UTC) + self._offset

    def _ask(self) -> tuple[timedelta, str]:
        from tracker_pipeline.resources.exchange import Exchange  # ccxt takes 2 s to import
        from tracker_pipeline.resources.sandbox_process import resolve

        url = get_endpoints().exchange_url
        market = get_config().market
        try:
            exchange = Exchange(market.venue, market.market_type, url=resolve(url) if url else None)
            offset = exchange.server_time() - datetime.now(UTC)
        except PipelineError as error:
            return self._offset, f"the exchange does not tell the time, so the own clock counts: {error}"
        # Below half a second it is the way of the answer, not the clock.
        return (offset if abs(offset) > timedelta(milliseconds=500) else timedelta(0)), ""


def check(connection: Connection, now: datetime) -> list[Checked]:
    """Judge every series and store what came out, in one transaction.

    Args:
        connection: to the migrated database.
        now: by the clock of the exchange.
    """
    limits = get_config().operations.freshness_minutes
    with connection.transaction():
        former = _stored(connection)
        checked = [
            _judged(series, now, limits[series.table], former)
            for series in newest_series(connection, list(limits))
        ]
        with connection.cursor() as cursor:
            cursor.executemany(_UPSERT, [_row(one, now) for one in checked])
        current = [(one.series.table, one.series.venue, one.series.symbol) for one in checked]
        gone = set(former) - set(current)
        if gone:
            cursor = connection.cursor()
            cursor.executemany(
                "DELETE FROM operations.freshness WHERE table_name = %s AND venue = %s AND symbol = %s",
                sorted(gone),
            )
    return checked


def late_series(connection: Connection, table: str, now: datetime) -> list[Checked]:
    """The series of one table that are late or stale at `now`, whatever was said of them before."""
    minutes = get_config().operations.freshness_minutes.get(table)
    if minutes is None:
        return []
    checked = [_judged(series, now, minutes, {}) for series in newest_series(connection, [table])]
    return [one for one in checked if one.judged.state != "fresh"]


def _judged(
    series: Series, now: datetime, minutes: int, former: dict[tuple[str, str, str], Judged]
) -> Checked:
    late_after = timedelta(minutes=minutes) * (_THIN_FACTOR if series.thin else 1)
    age = None if series.newest_at is None else max(timedelta(0), now - series.newest_at)
    before = former.get((series.table, series.venue, series.symbol))
    return Checked(
        series, age, late_after, judge(series.newest_at, now=now, late_after=late_after, former=before)
    )


def _stored(connection: Connection) -> dict[tuple[str, str, str], Judged]:
    rows = connection.execute(
        "SELECT table_name, venue, symbol, state, since FROM operations.freshness FOR UPDATE"
    ).fetchall()
    return {(table, venue, symbol): Judged(state, since) for table, venue, symbol, state, since in rows}


def _row(one: Checked, now: datetime) -> tuple[object, ...]:
    series = one.series
    age = None if one.age is None else int(one.age.total_seconds())
    limit = int(one.late_after.total_seconds())
    return (
        series.table, series.venue, series.symbol, series.newest_at, age, limit, one.judged.state,
        one.judged.since, now,
    )  # fmt: skip
