"""Records which stored bars changed after others had been made of them, and reads the record in order.

A bar that is revised, or that arrives before the newest bar of its symbol, makes stale what was computed without it.
The record is written in the transaction that writes the bars.

What belongs here: the record. What does not: which assets are stale (`domain.staleness`), asking for runs
(`automation`).
"""

from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from tracker_pipeline.domain.schemas import BAR_INVALIDATIONS, Table
from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.storage.database import Connection, identifier

# One row for each symbol's day: a re-fetch of a year that corrects it wholly is 365 rows, not 35,040.
_RECORD = """
WITH newest AS (
    SELECT series.venue, series.symbol, greatest(
        (SELECT max(n.ts) FROM {bars} n WHERE n.venue = series.venue AND n.symbol = series.symbol),
        (SELECT max(b.max_ts) FROM archive.batches b WHERE b.table_name = %(table)s AND b.state = 'live')) AS ts
    FROM (SELECT DISTINCT venue, symbol FROM {stage}) series
), stale AS (
    SELECT s.venue, s.symbol, s.ts, true AS revised
    FROM {stage} s JOIN {bars} t ON t.venue = s.venue AND t.symbol = s.symbol AND t.ts = s.ts
    WHERE {differs}
    UNION ALL
    SELECT s.venue, s.symbol, s.ts, s.revision > 1
    FROM {stage} s JOIN newest n ON n.venue = s.venue AND n.symbol = s.symbol AND s.ts < n.ts
    WHERE NOT EXISTS (SELECT FROM {bars} t WHERE t.venue = s.venue AND t.symbol = s.symbol AND t.ts = s.ts)
)
INSERT INTO {record} (venue, symbol, timeframe, start_ts, transaction_id, end_ts, bars, kind, recorded_at, run_id)
SELECT venue, symbol, %(timeframe)s, min(ts), pg_current_xact_id()::text::bigint, max(ts) + %(step)s, count(*),
       CASE WHEN bool_or(revised) THEN 'revised' ELSE 'late' END, now(), %(run_id)s
FROM stale
GROUP BY venue, symbol, date_trunc('day', ts, 'UTC')
"""


@dataclass(frozen=True)
class Invalidation:
    """Bars of one symbol's day that changed."""

    transaction_id: int
    venue: str
    symbol: str
    timeframe: str
    start: datetime
    end: datetime


def record_invalidations(
    connection: Connection, bars: Table, stage: sql.Identifier, differs: sql.Composed, run_id: str
) -> None:
    """Record what the staged bars will change; call before they are written, in the same transaction.

    Args:
        connection: inside the transaction.
        bars: the bar table.
        stage: the staged rows.
        differs: condition on `t` (stored) and `s` (staged) that their values differ.
        run_id: of the writer.
    """
    timeframe = bars.table.removeprefix("ohlc_")
    statement = sql.SQL(_RECORD).format(
        record=identifier(BAR_INVALIDATIONS), stage=stage, bars=identifier(bars), differs=differs
    )
    values = {
        "timeframe": timeframe,
        "step": duration(timeframe),
        "run_id": run_id,
        "table": bars.name,
    }
    connection.execute(statement, values)


def invalidations_after(connection: Connection, transaction_id: int) -> list[Invalidation]:
    """Invalidations of later transactions, oldest first.

    Transactions that may still have one of a lower number running beside them are left for the next time, so that
    none is ever passed over.
    """
    rows = connection.execute(
        "SELECT transaction_id, venue, symbol, timeframe, start_ts, end_ts FROM market.bar_invalidations"
        " WHERE transaction_id > %s AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
        " ORDER BY transaction_id, start_ts, venue, symbol, timeframe",
        [transaction_id],
    ).fetchall()
    return [Invalidation(*row) for row in rows]
