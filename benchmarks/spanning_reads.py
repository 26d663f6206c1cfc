"""Reads of 1m bars over hot and cold rows: `scan` against the same rows in one Postgres table, side by side.

    python -m benchmarks.spanning_reads [--symbols 90] [--days 181] [--hot-days 1] [--repeat 5]
        [--home FOLDER] [--only NAME]

90 symbols of 181 days are 23,457,600 bars. The peer is one table with the key (venue, symbol, ts) and an index on
ts, vacuumed, read through the same Arrow driver by one statement on an open connection. Ours has the last days in
Postgres and the others in one file a day, written by the archive's own writer and listed by the manifest. A window is
read again and again, so that both sides have it in memory, or another one of the whole table each time. Prints
medians, ratios and whether each target is met; the answers of both sides are compared first. Takes about six minutes
and 8 GB of disk.
"""

import argparse
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path

import numpy as np
import pgpq
import polars as pl
import pyarrow as pa
from psycopg import sql

from benchmarks.market import medians, verdict
from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.resources.postgres import EmbeddedPostgres
from tracker_pipeline.storage import manifest, scan
from tracker_pipeline.storage.archive_policy import get_policies
from tracker_pipeline.storage.catalogue import live_table
from tracker_pipeline.storage.column_forms import fields_of
from tracker_pipeline.storage.database import connect, open_arrow_connection
from tracker_pipeline.storage.hot_partitions import ensure_partitions
from tracker_pipeline.storage.lake_store import lake_store
from tracker_pipeline.storage.part_copy import schema_of
from tracker_pipeline.storage.part_writer import PartWriter

TABLE = BARS["1m"]
START = datetime(2024, 1, 1, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
ONE = "C45/USDT"
# Polars is fastest at this form: a filter of the first and last minute, as the peer has it, takes 4 % more.
DAILY = [
    pl.col("open").sort_by("ts").first(),
    pl.col("high").max(),
    pl.col("low").min(),
    pl.col("close").sort_by("ts").last(),
    pl.col("volume").sum(),
]
COLUMNS = ["symbol", "ts", "open", "high", "low", "close", "volume"]


def main() -> None:
    """Build both sides, compare their answers, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=90)
    parser.add_argument("--days", type=int, default=181)
    parser.add_argument("--hot-days", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--home", type=Path, help="where both sides are kept for the next run")
    parser.add_argument("--only", default="", help="only reads whose name has this in it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = (options.home or Path(folder)).absolute()
        os.environ.update(TRACKER_HOME=str(home / "home"), TRACKER_SETTING="sandbox")
        server = EmbeddedPostgres(home / "postgres")
        server.start()
        os.environ["TRACKER_DATABASE_URL"] = server.url
        built = home / "built"
        try:
            if not built.exists():
                build(options.symbols, options.days, options.hot_days)
                built.touch()
            report(options.symbols, options.days, options.hot_days, options.repeat, options.only)
        finally:
            server.stop_if_unused()


def bars_of_day(day: int, symbols: int) -> pl.DataFrame:
    """All bars of a day, in the order they arrive: minute by minute."""
    rng = np.random.default_rng(day)
    count = 1_440 * symbols
    close = np.round(100 * np.exp(rng.normal(0, 0.01, count)), 4)
    minutes = np.repeat(np.arange(1_440), symbols)
    start = START + day * DAY
    moments = pl.Series(int(start.timestamp() * 1e6) + minutes * 60_000_000).cast(pl.Datetime("us", "UTC"))
    frame = pl.DataFrame(
        {
            "symbol": pl.Series([f"C{i:02}/USDT" for i in range(symbols)]).gather(
                np.tile(np.arange(symbols), 1_440)
            ),
            "ts": moments,
            "open": np.round(close * 0.999, 4),
            "high": np.round(close * 1.002, 4),
            "low": np.round(close * 0.998, 4),
            "close": close,
            "volume": np.round(rng.gamma(2.0, 50.0, count), 3),
            "available_at": moments + 3 * MINUTE,
        }
    ).with_columns(
        venue=pl.lit("bybit"),
        source=pl.lit("rest"),
        revision=pl.lit(1, pl.Int64),
        run_id=pl.lit("benchmark"),
        fetched_at=pl.lit(start + DAY),
    )
    absent = [
        pl.lit(None, TABLE.polars_schema[name]).alias(name)
        for name in TABLE.column_by_name
        if name not in frame.columns
    ]
    return frame.with_columns(absent).select(list(TABLE.column_by_name))


def build(symbols: int, days: int, hot_days: int) -> None:
    """Fill the peer's table with all days, ours with the last, the lake with the others."""
    began = time.perf_counter()
    with connect() as connection:
        connection.execute("CREATE SCHEMA peer")
        connection.execute("CREATE UNLOGGED TABLE peer.bars (LIKE market.ohlc_1m)")
    for day in range(days):
        frame = bars_of_day(day, symbols)
        with connect() as connection:
            copy(connection, sql.Identifier("peer", "bars"), frame)
            if day >= days - hot_days:
                make_hot(connection, frame, day)
            else:
                make_cold(connection, frame, day)
    with connect() as connection:
        connection.execute("SET maintenance_work_mem = '1GB'")
        connection.execute("ALTER TABLE peer.bars ADD PRIMARY KEY (venue, symbol, ts)")
        connection.execute("CREATE INDEX ON peer.bars (ts)")
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE peer.bars")
        connection.execute("VACUUM ANALYZE market.ohlc_1m")
        rows, size = connection.execute(
            "SELECT count(*), pg_total_relation_size('peer.bars') FROM peer.bars"
        ).fetchone() or (0, 0)
        files = connection.execute("SELECT sum(bytes)::bigint FROM archive.batches").fetchone() or (0,)
    print(f"{rows:,} bars; one table {size / 1e9:.2f} GB, files {files[0] / 1e9:.2f} GB;", end=" ")
    print(f"built in {time.perf_counter() - began:.0f} s")


def copy(connection, table: sql.Identifier, frame: pl.DataFrame) -> None:
    """Append a frame to a table by binary COPY."""
    arrow = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    encoder = pgpq.ArrowToPostgresBinaryEncoder(arrow.schema)
    statement = sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(table)
    with connection.cursor() as cursor, cursor.copy(statement) as sink:
        sink.write(encoder.write_header())
        for batch in arrow.to_batches():
            sink.write(encoder.write_batch(batch))
        sink.write(encoder.finish())


def make_hot(connection, frame: pl.DataFrame, day: int) -> None:
    """Put a day into our table."""
    start = START + day * DAY
    ensure_partitions(connection, TABLE, start, start + DAY)
    copy(connection, sql.Identifier("market", "ohlc_1m"), frame)


def make_cold(connection, frame: pl.DataFrame, day: int) -> None:
    """Write a day with the archive's own writer and enter it in the manifest."""
    table = live_table(connection, TABLE.name)
    fields = fields_of(table)
    schema = pa.schema([(field.name, field.arrow) for field in fields])
    moment, date = datetime.now(UTC), (START + day * DAY).date()
    batch_id = manifest.new_batch_id()
    path = manifest.part_path(TABLE.name, date, batch_id)
    with lake_store().stage(path) as staged:
        writer = PartWriter(staged.file, fields, get_policies().of(TABLE.name).sort, {})
        for batch in frame.to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches():
            writer.write(batch.cast(schema))
        writer.close()
        stored = staged.publish()
    times = frame.get_column("ts")
    part = manifest.NewPart(
        batch_id, TABLE.name, date, path, frame.height, stored.bytes, stored.sha256, "", {}, times.min(), times.max(),
        None, schema_of(table, fields), moment, moment, "benchmark",
    )  # fmt: skip
    manifest.add_part(connection, part)


_peers = threading.local()


def peer(statement: str) -> pl.DataFrame:
    """Read the one table, by the connection that each thread keeps open."""
    if not hasattr(_peers, "connection"):
        _peers.connection = open_arrow_connection()
        _peers.connection.adbc_connection.set_autocommit(True)
    with _peers.connection.cursor() as cursor:
        cursor.execute(statement)
        return pl.DataFrame(cursor.fetch_arrow_table())


def peers_day(start: datetime, symbol: str) -> pl.DataFrame:
    """24 h of a symbol out of the one table."""
    return peer(
        f"SELECT {', '.join(COLUMNS)} FROM peer.bars WHERE venue = 'bybit' AND symbol = '{symbol}'"
        f" AND ts >= '{start}' AND ts < '{start + DAY}'"
    )


def our_day(start: datetime, symbol: str) -> pl.DataFrame:
    """24 h of a symbol by `scan`."""
    predicate = (pl.col("venue") == "bybit") & (pl.col("symbol") == symbol)
    return scan(TABLE.name, start, start + DAY, columns=COLUMNS, predicate=predicate).collect()


def window(start: datetime) -> tuple[Callable[[], pl.DataFrame], Callable[[], pl.DataFrame]]:
    """24 h of a symbol, the same each time: the peer's read and ours."""
    return lambda: peers_day(start, ONE), lambda: our_day(start, ONE)


def windows(days: int, symbols: int) -> tuple[Callable[[], pl.DataFrame], Callable[[], pl.DataFrame]]:
    """24 h of any symbol at any time, another each time: the peer's read and ours of the same ones."""
    rng = random.Random(7)
    minutes = range((days - 1) * 1_440)
    chosen = [
        (START + rng.choice(minutes) * MINUTE, f"C{rng.randrange(symbols):02}/USDT") for _ in range(1_000)
    ]
    theirs, ours = cycle(chosen), cycle(chosen)
    return lambda: peers_day(*next(theirs)), lambda: our_day(*next(ours))


def daily(
    start: datetime, symbol: str | None
) -> tuple[Callable[[], pl.DataFrame], Callable[[], pl.DataFrame]]:
    """90 days to daily bars: the peer's read and ours."""
    chosen = f"AND venue = 'bybit' AND symbol = '{symbol}'" if symbol else ""
    # Every day is whole, so the peer may take open and close from the first and last minute, which costs it nothing.
    statement = (
        "SELECT symbol, date_trunc('day', ts, 'UTC') AS day,"
        " max(open) FILTER (WHERE ts = date_trunc('day', ts, 'UTC')) AS open, max(high) AS high, min(low) AS low,"
        " max(close) FILTER (WHERE ts = date_trunc('day', ts, 'UTC') + interval '1439 minutes') AS close,"
        " sum(volume) AS volume FROM peer.bars"
        f" WHERE ts >= '{start}' AND ts < '{start + 90 * DAY}' {chosen} GROUP BY 1, 2"
    )
    predicate = (pl.col("venue") == "bybit") & (pl.col("symbol") == symbol) if symbol else None

    def ours() -> pl.DataFrame:
        rows = scan(TABLE.name, start, start + 90 * DAY, columns=COLUMNS, predicate=predicate)
        return rows.group_by("symbol", pl.col("ts").dt.truncate("1d").alias("day")).agg(DAILY).collect()

    return lambda: peer(statement), ours


def report(symbols: int, days: int, hot_days: int, repeat: int, only: str) -> None:
    """Compare and measure every pair of reads, or those of a name."""
    cut = START + (days - hot_days) * DAY
    pairs = {
        "24 h of one symbol, hot": (window(START + (days - 1) * DAY), 1.0),
        "24 h of one symbol, across the cut": (window(cut - DAY / 2), 1.0),
        "24 h of one symbol, 3 months old": (window(START + (days // 2) * DAY + DAY / 4), 1.0),
        "24 h of one symbol, any of all, another each time": (windows(days, symbols), 1.0),
        "90 days to daily, one symbol": (daily(cut - 90 * DAY, ONE), 8.0),
        "90 days to daily, all symbols": (daily(cut - 90 * DAY, None), 10.0),
        "90 days to daily, all symbols, to now": (daily(START + (days - 90) * DAY, None), 10.0),
    }
    for name, ((theirs, ours), target) in pairs.items():
        if only not in name:
            continue
        equal(name, theirs(), ours())
        rounds = repeat if "all symbols" in name else 6 * repeat
        seconds = medians({"one table": theirs, "scan": ours}, rounds, clock=time.perf_counter)
        print(f"{name}: one table {seconds['one table'] * 1e3:.1f} ms, scan {seconds['scan'] * 1e3:.1f} ms")
        verdict(name, seconds["one table"] / seconds["scan"], target, at_least=True)
    concurrently(cut)


def concurrently(cut: datetime) -> None:
    """100 reads of a window across the cut from 16 threads."""
    theirs, ours = window(cut - DAY / 2)
    expected = theirs().height
    for name, read in (("one table", theirs), ("scan", ours)):
        began = time.perf_counter()
        with ThreadPoolExecutor(16) as threads:
            heights = list(threads.map(lambda _, read=read: read().height, range(100)))
        right = sum(height == expected for height in heights)
        print(
            f"100 reads across the cut, 16 threads, {name}: {time.perf_counter() - began:.2f} s, {right} right"
        )
    verdict("100 reads across the cut", right, 100, at_least=True, unit="right")


def equal(name: str, theirs: pl.DataFrame, ours: pl.DataFrame) -> None:
    """Stop where the answers differ, but for the last digits of sums."""
    key = [column for column in ("symbol", "ts", "day") if column in theirs.columns]
    a, b = (frame.sort(key).select(theirs.columns) for frame in (theirs, ours))
    if a.height != b.height or not a.drop("volume").equals(b.drop("volume")):
        raise SystemExit(f"{name}: the answers differ ({a.height} rows against {b.height})")
    if a.height and (a["volume"] / b["volume"] - 1).abs().max() > 1e-9:
        raise SystemExit(f"{name}: the volumes differ")


if __name__ == "__main__":
    main()
