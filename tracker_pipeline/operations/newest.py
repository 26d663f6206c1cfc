"""The end of the newest bar or row of each series: what freshness is judged by.

One statement for each table, answered from the key's index: some milliseconds for 90 symbols.

What belongs here: reads. What does not: the judgement (`domain.freshness`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from psycopg import sql

from tracker_pipeline.domain.schemas import BARS, TABLES
from tracker_pipeline.domain.timeframes import TIMEFRAMES
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage.database import Connection, identifier

# Rows of these are made at each 15m bar and stamped with its open.
_AT_BARS: Final = {"market.regimes", "features.ml_features_15m"}
_LAKE_DAYS: Final = timedelta(days=30)

_OF_SYMBOLS: Final = """
SELECT i.symbol, i.liquidity_class = 'thin', n.ts
FROM market.instruments i
LEFT JOIN LATERAL (SELECT max(b.ts) AS ts FROM {bars} b WHERE b.venue = i.venue AND b.symbol = i.symbol) n ON true
WHERE i.venue = %s AND i.market_type = %s AND i.listed_to IS NULL
ORDER BY i.symbol
"""


@dataclass(frozen=True)
class Series:
    """One series and the end of its newest data.

    Attributes:
        symbol: `*` where a table is judged as a whole.
        thin: whether bars without trades are usual in it.
    """

    table: str
    venue: str
    symbol: str
    thin: bool
    newest_at: datetime | None


def newest_series(connection: Connection, tables: Iterator[str] | list[str]) -> list[Series]:
    """The series of tables that hold any row; a table that is not collected has no age."""
    found = []
    for name in tables:
        found += _series_of(connection, name)
    return found


def _series_of(connection: Connection, name: str) -> list[Series]:
    market = get_config().market
    timeframe = next((t for t, table in BARS.items() if table.name == name), None)
    if timeframe:
        statement = sql.SQL(_OF_SYMBOLS).format(bars=identifier(TABLES[name]))
        rows = connection.execute(statement, [market.venue, market.market_type]).fetchall()
        if all(ts is None for _, _, ts in rows):
            return []
        length = TIMEFRAMES[timeframe]
        return [Series(name, market.venue, s, bool(thin), ts and ts + length) for s, thin, ts in rows]
    table = TABLES[name]
    if table.store == "lake":
        row = connection.execute(
            "SELECT max(max_ts) FROM archive.batches WHERE table_name = %s AND state = 'live' AND data_day > %s",
            [name, date.today() - _LAKE_DAYS],  # noqa: DTZ011  # bounds the read, a day more or less is no matter
        ).fetchone()
    else:
        statement = sql.SQL("SELECT max({}) FROM {}").format(
            sql.Identifier(table.time_column or ""), identifier(table)
        )
        row = connection.execute(statement).fetchone()
    newest = row[0] if row else None
    if newest is None:
        return []
    ends = newest + TIMEFRAMES["15m"] if name in _AT_BARS else newest
    of = get_config().chain.network if table.schema == "onchain" else market.venue
    return [Series(name, of, "*", thin=False, newest_at=ends)]
