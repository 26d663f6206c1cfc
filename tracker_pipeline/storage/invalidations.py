"""Records which stored bars changed after others had been made of them, and reads the record in order.

A bar that is revised, or that arrives before the newest bar of its symbol, makes stale what was computed without it.
The record is written in the transaction that writes the bars.

What belongs here: the record. What does not: which assets are stale (`domain.staleness`), asking for runs
(`automation`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl
from psycopg import sql

from tracker_pipeline.domain.schemas import BAR_INVALIDATIONS, BARS, Table
from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.storage.database import Connection, identifier

# The newest stored bar of each series, looked for among bars that could make one of the new ones late.
_NEWEST = """
SELECT s.venue, s.symbol, greatest({newest},
    (SELECT max(a.max_ts) FROM archive.batches a WHERE a.table_name = ANY(%s) AND a.state = 'live'))
FROM unnest(%s::text[], %s::text[]) s (venue, symbol)
"""
_NEWEST_OF = (
    "(SELECT max(b.ts) FROM {bars} b WHERE b.venue = s.venue AND b.symbol = s.symbol AND b.ts > {first})"
    " + {within}"
)
# What looks at finer bars does so beside those of 15m, and is made when these have come.
_BESIDE = BARS["15m"]

_RECORD = """
INSERT INTO {record} (venue, symbol, timeframe, start_ts, transaction_id, end_ts, bars, kind, recorded_at, run_id)
SELECT venue, symbol, %s, start_ts, pg_current_xact_id()::text::bigint, end_ts, bars, kind, now(), %s
FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::bigint[], %s::text[])
    s (venue, symbol, start_ts, end_ts, bars, kind)
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


def late_bars(connection: Connection, bars: Table, new: pl.DataFrame) -> pl.DataFrame:
    """Those of `new`, which are not stored yet, that come before the newest stored bar of their series.

    Finer bars than 15m also come late where 15m bars were there before them, as when minutes are imported afterwards.
    """
    if new.is_empty():
        return new
    series = new.select("venue", "symbol").unique()
    first: datetime = new.select(pl.col("ts").min()).item()
    tables = {bars: timedelta(0)}
    if bars in (BARS["1m"], BARS["5m"]):
        tables[_BESIDE] = duration("15m")  # those within the newest one are late too
    parts = [
        sql.SQL(_NEWEST_OF).format(
            bars=identifier(table), first=sql.Literal(first - within), within=sql.Literal(within)
        )
        for table, within in tables.items()
    ]
    rows = connection.execute(
        sql.SQL(_NEWEST).format(newest=sql.SQL(", ").join(parts)),
        [
            [table.name for table in tables],
            series.get_column("venue").to_list(),
            series.get_column("symbol").to_list(),
        ],
    ).fetchall()
    newest = pl.DataFrame(rows, {**series.schema, "newest": new.schema["ts"]}, orient="row")
    late = new.join(newest, on=["venue", "symbol"], how="left").filter(pl.col("ts") < pl.col("newest"))
    return late.drop("newest")


def record_invalidations(connection: Connection, bars: Table, stale: pl.DataFrame, run_id: str) -> None:
    """Record bars that are about to change or to come late, in the transaction that writes them.

    One row for each symbol's day: a re-fetch of a year that corrects it wholly is 365 rows, not 35,040.

    Args:
        connection: inside the transaction.
        bars: the bar table.
        stale: venue, symbol, ts, and whether the bar is revised; it is late otherwise.
        run_id: of the writer.
    """
    if stale.is_empty():
        return
    timeframe = bars.table.removeprefix("ohlc_")
    days = stale.group_by("venue", "symbol", pl.col("ts").dt.truncate("1d").alias("day")).agg(
        start_ts=pl.col("ts").min(),
        end_ts=pl.col("ts").max() + duration(timeframe),
        bars=pl.len(),
        kind=pl.when(pl.col("revised").any()).then(pl.lit("revised")).otherwise(pl.lit("late")),
    )
    columns = [
        days.get_column(n).to_list() for n in ("venue", "symbol", "start_ts", "end_ts", "bars", "kind")
    ]
    connection.execute(
        sql.SQL(_RECORD).format(record=identifier(BAR_INVALIDATIONS)), [timeframe, run_id, *columns]
    )


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
