"""What of the stored data is missing: hours of the chain, days of the market, scores that a baseline can now mend.

Each read is one statement over a bounded window and answers in milliseconds, because schedules and the health
service ask again and again.

What belongs here: the questions to the database. What does not: which runs follow from the answers
(`automation.backlog`), how a day's coverage is judged (`assets`, `domain`).
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Final

from tracker_pipeline.domain.schemas import ML_FEATURES_15M, WHALE_BALANCE_SNAPSHOTS
from tracker_pipeline.storage.database import Connection

_DAY: Final = timedelta(days=1)

# An archived day of snapshots was complete when it was archived, and its rows are no longer here to be counted.
_MISSING_HOURS: Final = """
SELECT h
FROM generate_series(%(start)s::timestamptz, %(last)s::timestamptz, interval '1 hour') h
WHERE (NOT EXISTS (SELECT FROM onchain.whale_balance_snapshots s
                   WHERE s.network = %(network)s AND s.snapshot_timestamp = h)
       AND NOT EXISTS (SELECT FROM archive.batches b
                       WHERE b.table_name = %(snapshots)s AND b.state = 'live'
                         AND b.data_day = (h AT TIME ZONE 'UTC')::date))
   OR (SELECT count(*) FROM onchain.accumulation_scores a
       WHERE a.network = %(network)s AND a.snapshot_timestamp = h
         AND a.lookback_hours = ANY(%(lookbacks)s)) < %(scores)s
ORDER BY h
"""

_MENDABLE_SCORES: Final = """
SELECT DISTINCT a.snapshot_timestamp
FROM onchain.accumulation_scores a
WHERE a.network = %(network)s AND a.status = 'no_baseline'
  AND a.snapshot_timestamp BETWEEN %(start)s AND %(last)s
  AND EXISTS (SELECT FROM onchain.whale_balance_snapshots s
              WHERE s.network = a.network
                AND s.snapshot_timestamp
                    BETWEEN a.snapshot_timestamp - a.lookback_hours * interval '1 hour' - %(tolerance)s
                        AND a.snapshot_timestamp - a.lookback_hours * interval '1 hour' + %(tolerance)s)
ORDER BY 1
"""

# A day is whole once its coverage was judged over all of it: 96 quarters of an hour and the daily bar were expected
# of some symbol, and each tracked symbol was judged. Bars that coverage found missing are for the healing of gaps,
# which has a pace of its own. A symbol is expected from the day after its first stored bar on, so that a coin that
# joins the universe asks for no history: that is a backfill's decision; nor is it expected while it was not listed.
_INCOMPLETE_DAYS: Final = """
WITH tracked AS (
    SELECT i.venue, i.symbol, first.ts AS first_ts
    FROM market.instruments i
    CROSS JOIN LATERAL (SELECT b.ts FROM market.ohlc_15m b WHERE b.venue = i.venue AND b.symbol = i.symbol
                        ORDER BY b.ts LIMIT 1) first
    WHERE i.venue = %(venue)s AND i.market_type = %(market_type)s AND i.listed_to IS NULL
), days AS (
    SELECT d::date AS day FROM generate_series(%(start)s::date, %(last)s::date, interval '1 day') d
), judged AS (
    SELECT symbol, timeframe, (day AT TIME ZONE 'UTC')::date AS day, expected
    FROM market.bar_coverage
    WHERE venue = %(venue)s AND timeframe IN ('15m', '1d')
      AND day >= (%(start)s::date::timestamp AT TIME ZONE 'UTC')
      AND day <= (%(last)s::date::timestamp AT TIME ZONE 'UTC')
), whole AS (
    SELECT day FROM judged GROUP BY day
    HAVING max(expected) FILTER (WHERE timeframe = '15m') = 96
       AND max(expected) FILTER (WHERE timeframe = '1d') = 1
)
SELECT day, count(*) AS symbols
FROM days
CROSS JOIN tracked t
LEFT JOIN (SELECT symbol, day, timeframe FROM judged WHERE timeframe = '15m') j USING (symbol, day)
WHERE day > (t.first_ts AT TIME ZONE 'UTC')::date
  AND (j.timeframe IS NULL OR day NOT IN (SELECT day FROM whole))
  AND NOT EXISTS (SELECT FROM market.listing_intervals l
                  WHERE l.venue = t.venue AND l.symbol = t.symbol
                  HAVING count(*) > 0 AND NOT bool_or((l.listed_from IS NULL OR l.listed_from <= days.day)
                                                      AND (l.listed_to IS NULL OR l.listed_to > days.day)))
GROUP BY day ORDER BY day
"""

_FEATURES_BEHIND: Final = """
SELECT day
FROM (SELECT (ts AT TIME ZONE 'UTC')::date AS day, max(ts) AS newest
      FROM market.ohlc_15m WHERE venue = %(venue)s AND ts >= %(start)s::date AND ts < %(last)s::date + 1
      GROUP BY 1) bars
WHERE NOT EXISTS (SELECT FROM archive.batches b
                  WHERE b.table_name = %(features)s AND b.state = 'live' AND b.data_day = bars.day
                    AND b.max_ts >= bars.newest)
ORDER BY day
"""


def missing_hours(
    connection: Connection, network: str, start: datetime, last: datetime, lookbacks: Sequence[int]
) -> list[datetime]:
    """Hours of [start, last] without a snapshot or without a score for each look-back, in order."""
    rows = connection.execute(
        _MISSING_HOURS,
        {
            "start": start,
            "last": last,
            "network": network,
            "snapshots": WHALE_BALANCE_SNAPSHOTS.name,
            "lookbacks": list(lookbacks),
            "scores": len(lookbacks),
        },
    ).fetchall()
    return [row[0] for row in rows]


def mendable_hours(
    connection: Connection, network: str, start: datetime, last: datetime, tolerance: timedelta
) -> list[datetime]:
    """Hours of [start, last] scored as without a baseline though a snapshot near the baseline exists by now."""
    values = {"network": network, "start": start, "last": last, "tolerance": tolerance}
    return [row[0] for row in connection.execute(_MENDABLE_SCORES, values).fetchall()]


def first_hour(connection: Connection, network: str) -> datetime | None:
    """The earliest hour that was ever scored; None before the first."""
    row = connection.execute(
        "SELECT min(snapshot_timestamp) FROM onchain.accumulation_scores WHERE network = %s", [network]
    ).fetchone()
    return row[0] if row else None


def incomplete_days(
    connection: Connection, venue: str, market_type: str, start: date, last: date
) -> dict[date, int]:
    """Days of [start, last] whose coverage was not judged over all of the day, and how many symbols that concerns."""
    values = {"venue": venue, "market_type": market_type, "start": start, "last": last}
    return dict(connection.execute(_INCOMPLETE_DAYS, values).fetchall())


def days_without_features(connection: Connection, venue: str, start: date, last: date) -> list[date]:
    """Days of [start, last] that have 15m bars later than their newest features, in order."""
    values = {"venue": venue, "start": start, "last": last, "features": ML_FEATURES_15M.name}
    return [row[0] for row in connection.execute(_FEATURES_BEHIND, values).fetchall()]
