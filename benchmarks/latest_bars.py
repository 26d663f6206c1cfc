"""Reading recent bars out of many hot rows: the views against the usual queries, side by side in one run.

    python -m benchmarks.latest_bars [--rows 20000000] [--repeat 15]

Fills market.ohlc_1m of a server of its own with days of 90 symbols that end now, and prints median milliseconds of
the whole call from a client: planning, running, fetching as Python values. Filling takes some minutes and 5 GB. The
rows are made by the server and indexed after, which is not what is measured here.
"""

import argparse
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from psycopg import sql

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.resources.postgres import EmbeddedPostgres
from tracker_pipeline.storage.database import Connection, connect, identifier
from tracker_pipeline.storage.hot_partitions import Partition, ensure_partitions_of, partitions

SYMBOLS = 90
MINUTES_A_DAY = 1_440
TABLE = BARS["1m"]
FILL = """
INSERT INTO {} SELECT 'bybit', 'C' || lpad(i::text, 2, '0') || '/USDT', ts, 100 + i, 101 + i, 99 + i, 100.5 + i,
    random() * 100, 100 + i, 7, NULL, 'rest', 1, 'benchmark', ts + interval '61 s', ts + interval '3 min'
FROM generate_series(1, {}) i, generate_series({}, {}, interval '1 minute') ts
"""
INSTRUMENTS = """
INSERT INTO market.instruments (venue, symbol, base, quote, native_symbol, market_type, tier)
SELECT 'bybit', 'C' || lpad(i::text, 2, '0') || '/USDT', 'C' || i, 'USDT', 'C' || i || 'USDT', 'spot', 'mid_cap'
FROM generate_series(1, %s) i
"""
QUERIES = {
    "latest_bars, 90 symbols": "SELECT * FROM market.latest_bars WHERE timeframe = '1m'",
    "latest_bars, one symbol": (
        "SELECT * FROM market.latest_bars WHERE timeframe = '1m' AND venue = 'bybit' AND symbol = 'C42/USDT'"
    ),
    "ohlc_today, one symbol": (
        "SELECT ts, open, high, low, close, volume FROM market.ohlc_today"
        " WHERE timeframe = '1m' AND venue = 'bybit' AND symbol = 'C42/USDT' ORDER BY ts"
    ),
    "ohlc_recent, one symbol, as 1 h": (
        "SELECT date_bin('1 hour', ts, 'epoch'), max(high), min(low), sum(volume) FROM market.ohlc_recent"
        " WHERE timeframe = '1m' AND venue = 'bybit' AND symbol = 'C42/USDT' GROUP BY 1 ORDER BY 1"
    ),
    "usual: table with now(), one symbol": (
        "SELECT ts, open, high, low, close, volume FROM market.ohlc_1m"
        " WHERE venue = 'bybit' AND symbol = 'C42/USDT' AND ts >= now() - interval '24 hours' ORDER BY ts"
    ),
}
DISTINCT_ON = "SELECT DISTINCT ON (venue, symbol) * FROM market.ohlc_1m ORDER BY venue, symbol, ts DESC"


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--repeat", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder))
        server.start()
        os.environ["TRACKER_DATABASE_URL"] = server.url
        try:
            with connect() as connection:
                rows = fill(connection, -(-options.rows // (SYMBOLS * MINUTES_A_DAY)))
                measure(connection, rows, options.repeat)
        finally:
            server.stop_if_unused()


def fill(connection: Connection, days: int) -> int:
    """So many days of minutes until now, and the partitions of the days to come; returns the rows."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    connection.execute(INSTRUMENTS, [SYMBOLS])
    connection.commit()

    def fill_day(partition: Partition) -> None:
        last = min(partition.end - timedelta(minutes=1), now)
        if partition.start <= last:
            bounds = (sql.Literal(partition.start), sql.Literal(last))
            connection.execute(sql.SQL(FILL).format(partition.identifier, SYMBOLS, *bounds))

    for age in range(days, -4, -1):
        with connection.transaction():
            day = pl.Series([now - timedelta(days=age)]).cast(TABLE.polars_schema["ts"])
            ensure_partitions_of(connection, TABLE, day, fill=fill_day)
    connection.commit()
    connection.autocommit = True
    connection.execute(sql.SQL("VACUUM ANALYZE {}").format(identifier(TABLE)))
    connection.execute("VACUUM ANALYZE market.instruments")
    connection.autocommit = False
    found = connection.execute("SELECT count(*) FROM market.ohlc_1m").fetchone()
    return found[0] if found else 0


def measure(connection: Connection, rows: int, repeat: int) -> None:
    """Alternate the queries and print each one's median, what it gave, and what its plan opens."""
    taken: dict[str, list[float]] = {name: [] for name in QUERIES}
    given = {}
    for _ in range(repeat):
        for name, query in QUERIES.items():
            started = time.perf_counter()
            given[name] = len(connection.execute(query, prepare=False, binary=True).fetchall())
            taken[name].append((time.perf_counter() - started) * 1000)
    started = time.perf_counter()
    connection.execute(DISTINCT_ON).fetchall()
    usual = (time.perf_counter() - started) * 1000
    print(f"{rows:,} hot rows in {len(partitions(connection, TABLE))} partitions, medians of {repeat}")
    for name, times in taken.items():
        plan = [
            row[0] for row in connection.execute(f"EXPLAIN (ANALYZE, SUMMARY) {QUERIES[name]}").fetchall()
        ]
        opened = {
            word
            for line in plan
            for word in line.split()
            if word.startswith("market_ohlc_1m_20") and "pkey" not in word
        }
        timing = ", ".join(
            line.strip() for line in plan if "Planning Time" in line or "Execution Time" in line
        )
        print(
            f"  {name:<36} {statistics.median(times):8.2f} ms (fastest {min(times):.2f}), {given[name]:,} rows,"
            f" {len(opened)} partitions in the plan ({timing})"
        )
    print(f"  {'usual: DISTINCT ON, once':<36} {usual:8.0f} ms")
    print(
        f"latest_bars against DISTINCT ON: {usual / statistics.median(taken['latest_bars, 90 symbols']):,.0f} x"
    )


if __name__ == "__main__":
    main()
