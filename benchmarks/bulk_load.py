"""Loading bars into a keyed table: ours against a bare COPY, SQLAlchemy and ON CONFLICT, side by side in one run.

    python -m benchmarks.bulk_load [--rows 500000] [--repeat 3]

Prints medians and ratios. The methods alternate, so that noise of the machine falls on all of them alike. What is
measured includes conversion from the same Polars frame and the commit. It uses a server of its own in a temporary
folder and takes about a minute.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pgpq
import polars as pl
import sqlalchemy as sa
from psycopg import sql

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.resources.postgres import EmbeddedPostgres
from tracker_pipeline.storage import migrations
from tracker_pipeline.storage.database import Connection, open_connection
from tracker_pipeline.storage.writing import write_window

TABLE = BARS["15m"]
START = datetime(2024, 1, 1, tzinfo=UTC)
SYMBOLS = 90
# Row by row methods are measured on fewer rows and scaled: they take minutes otherwise.
SCALED_ROWS = 20_000


def main() -> None:
    """Run all methods in turn and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    bars = make_bars(options.rows)
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder))
        server.start()
        try:
            with open_connection(server.url) as connection:
                migrations.apply(connection)
                report(measure(connection, server.url, bars, options.repeat), bars.height)
        finally:
            server.stop_if_unused()


def make_bars(rows: int) -> pl.DataFrame:
    """Seeded bars of many symbols, sorted as they are fetched: symbol by symbol."""
    per_symbol = rows // SYMBOLS
    random = np.random.default_rng(7)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.003, SYMBOLS * per_symbol)).clip(-4, 4))
    times = pl.datetime_range(
        START,
        START + (per_symbol - 1) * timedelta(minutes=15),
        "15m",
        time_unit="us",
        time_zone="UTC",
        eager=True,
    )
    frame = pl.DataFrame({"symbol": [f"C{i:02}/USDT" for i in range(SYMBOLS)]}).join(
        times.alias("ts").to_frame(), how="cross"
    )
    return TABLE.conform(
        frame.with_columns(
            venue=pl.lit("bybit"),
            open=pl.Series(close),
            high=pl.Series(close * 1.002),
            low=pl.Series(close * 0.998),
            close=pl.Series(close),
            volume=pl.Series(random.gamma(2.0, 50.0, close.size)),
            source=pl.lit("rest"),
            revision=pl.lit(1, pl.Int64),
            run_id=pl.lit("benchmark"),
            fetched_at=pl.lit(START),
            available_at=pl.col("ts") + timedelta(minutes=17),
        )
    )


def measure(connection: Connection, url: str, bars: pl.DataFrame, repeat: int) -> dict[str, float]:
    """Median seconds of each method, for all rows."""
    few = bars.head(SCALED_ROWS)
    scale = bars.height / few.height
    taken: dict[str, list[float]] = {}

    def note(name: str, work: Callable[[], object], factor: float = 1.0) -> None:
        started = time.perf_counter()
        work()
        taken.setdefault(name, []).append((time.perf_counter() - started) * factor)

    for _ in range(repeat):
        empty(connection)
        note("bare COPY, not idempotent", lambda: bare_copy(connection, bars))
        empty(connection)
        note("ours, empty table", lambda: ours(connection, bars))
        wal = wal_bytes(connection)
        note("ours, same rows again", lambda: ours(connection, bars))
        taken.setdefault("WAL bytes of the same rows again", []).append(wal_bytes(connection) - wal)
        note("ON CONFLICT DO UPDATE, same rows again", lambda: on_conflict_update(connection, bars))
        empty(connection)
        note("SQLAlchemy executemany (scaled)", lambda: executemany(url, few), scale)
    return {name: statistics.median(times) for name, times in taken.items()}


def ours(connection: Connection, bars: pl.DataFrame) -> None:
    """The write that assets use."""
    write_window(connection, TABLE, bars, (START, START + timedelta(days=3650)), run_id="benchmark")


def bare_copy(connection: Connection, bars: pl.DataFrame, table: str = "market.ohlc_15m") -> None:
    """Binary COPY straight into a table."""
    arrow = bars.to_arrow(compat_level=pl.CompatLevel.oldest())
    encoder = pgpq.ArrowToPostgresBinaryEncoder(arrow.schema)
    statement = sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(sql.Identifier(*table.split(".")))
    with connection.transaction(), connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(encoder.write_header())
        for batch in arrow.to_batches(max_chunksize=65_536):
            copy.write(encoder.write_batch(batch))
        copy.write(encoder.finish())


def on_conflict_update(connection: Connection, bars: pl.DataFrame) -> None:
    """The usual upsert: COPY to a stage, then overwrite whatever is there."""
    changed = sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c.name))
        for c in TABLE.columns
        if c.name not in TABLE.key
    )
    with connection.transaction():
        connection.execute("CREATE TEMP TABLE upsert (LIKE market.ohlc_15m) ON COMMIT DROP")
        bare_copy(connection, bars, "upsert")
        connection.execute(
            sql.SQL(
                "INSERT INTO market.ohlc_15m SELECT * FROM upsert ON CONFLICT (venue, symbol, ts) DO UPDATE SET {}"
            ).format(changed)
        )


def executemany(url: str, bars: pl.DataFrame) -> None:
    """What most projects begin with."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    table = sa.Table("ohlc_15m", sa.MetaData(schema="market"), autoload_with=engine)
    statement = sa.dialects.postgresql.insert(table).on_conflict_do_nothing()
    with engine.begin() as connection:
        connection.execute(statement, bars.to_dicts())
    engine.dispose()


def empty(connection: Connection) -> None:
    """Begin with an empty table and no vacuum due."""
    connection.execute("TRUNCATE market.ohlc_15m, market.bar_invalidations")
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE market.ohlc_15m")
    connection.autocommit = False


def wal_bytes(connection: Connection) -> int:
    """Bytes of write-ahead log so far."""
    row = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()
    connection.commit()
    return row[0] if row else 0


def report(seconds: dict[str, float], rows: int) -> None:
    """Print medians, and the ratios that matter."""
    wal = seconds.pop("WAL bytes of the same rows again")
    print(f"{rows:,} rows, medians")
    for name, taken in seconds.items():
        print(f"  {name:<42} {taken:8.2f} s")
    first, again = seconds["ours, empty table"], seconds["ours, same rows again"]
    print(f"ours, speed of bare COPY: {seconds['bare COPY, not idempotent'] / first:.2f} x (aim 0.6)")
    print(f"ours, against executemany: {seconds['SQLAlchemy executemany (scaled)'] / first:.1f} x (aim 7)")
    print(
        "same rows again, against ON CONFLICT DO UPDATE: "
        f"{seconds['ON CONFLICT DO UPDATE, same rows again'] / again:.1f} x (aim 3.5)"
    )
    print(f"write-ahead log of the same rows again:         {wal:,.0f} bytes")


if __name__ == "__main__":
    main()
