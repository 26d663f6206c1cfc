"""Loading bars into a keyed table: ours against COPY, ON CONFLICT, SQLAlchemy and dlt, side by side in one run.

    python -m benchmarks.bulk_load [--rows 1000000] [--repeat 3] [--timeframe 15m]

Prints medians and ratios. The methods alternate, so that noise of the machine falls on all of them alike. What is
measured includes conversion from the same Polars frame and the commit, into the same table with the same key; its
partitions are there beforehand except where the line says that they are made. It uses a server of its own in a
temporary folder and takes about three minutes. dlt is measured where it is installed (`pip install
'dlt[postgres]'`), which the project itself does not need.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pgpq
import polars as pl
import sqlalchemy as sa
from psycopg import sql

from tracker_pipeline.domain.schemas import BARS, Table
from tracker_pipeline.domain.timeframes import TIMEFRAMES
from tracker_pipeline.resources.postgres import EmbeddedPostgres
from tracker_pipeline.storage.database import Connection, connect
from tracker_pipeline.storage.hot_partitions import ensure_partitions, partitions
from tracker_pipeline.storage.writing import write_window

START = datetime(2024, 1, 1, tzinfo=UTC)
SYMBOLS = 90
# Row by row methods are measured on fewer rows and scaled: they take minutes otherwise.
SCALED_ROWS = 20_000
DLT_ROWS = 100_000


def main() -> None:
    """Run all methods in turn and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--timeframe", default="15m", choices=list(BARS))
    options = parser.parse_args()
    table = BARS[options.timeframe]
    bars = make_bars(table, options.rows)
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder))
        server.start()
        os.environ["TRACKER_DATABASE_URL"] = server.url
        try:
            with connect() as connection:
                # Its own work would count as ours in the bytes of the log.
                settle(connection, "ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()")
                report(measure(connection, table, server.url, bars, options.repeat), bars.height, table)
        finally:
            server.stop_if_unused()


def make_bars(table: Table, rows: int) -> pl.DataFrame:
    """Seeded bars of many symbols, sorted as they are fetched: symbol by symbol."""
    step = TIMEFRAMES[table.table.removeprefix("ohlc_")]
    per_symbol = rows // SYMBOLS
    random = np.random.default_rng(7)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.003, SYMBOLS * per_symbol)).clip(-4, 4))
    last = START + (per_symbol - 1) * step
    times = pl.datetime_range(START, last, step, time_unit="us", time_zone="UTC", eager=True)
    frame = pl.DataFrame({"symbol": [f"C{i:02}/USDT" for i in range(SYMBOLS)]}).join(
        times.alias("ts").to_frame(), how="cross"
    )
    return table.conform(
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
            available_at=pl.col("ts") + step + timedelta(minutes=2),
        )
    )


def measure(
    connection: Connection, table: Table, url: str, bars: pl.DataFrame, repeat: int
) -> dict[str, list[float]]:
    """Seconds of each method, for all rows."""
    few, more = bars.head(SCALED_ROWS), bars.head(DLT_ROWS)
    taken: dict[str, list[float]] = {}

    def note(name: str, work: Callable[[], object], factor: float = 1.0) -> None:
        started = time.perf_counter()
        work()
        taken.setdefault(name, []).append((time.perf_counter() - started) * factor)

    for _ in range(repeat):
        empty(connection, table, bars)
        note("bare COPY, not idempotent", lambda: bare_copy(connection, bars, table.name))
        empty(connection, table)
        note("ours, partitions made on the way", lambda: ours(connection, table, bars))
        empty(connection, table, bars)
        note("ours, empty table", lambda: ours(connection, table, bars))
        wal = wal_bytes(connection)
        note("ours, same rows again", lambda: ours(connection, table, bars))
        taken.setdefault("WAL", []).append(wal_bytes(connection) - wal)
        note("ON CONFLICT DO UPDATE, same rows again", lambda: on_conflict_update(connection, table, bars))
        empty(connection, table, bars)
        note(
            "SQLAlchemy executemany (scaled)", lambda: executemany(url, table, few), bars.height / few.height
        )
        if find_spec("dlt"):
            note("dlt merge (scaled)", lambda: dlt_merge(url, table, more), bars.height / more.height)
    return taken


def ours(connection: Connection, table: Table, bars: pl.DataFrame) -> None:
    """The write that assets use."""
    write_window(connection, table, bars, (START, START + timedelta(days=36500)), run_id="benchmark")


def bare_copy(connection: Connection, bars: pl.DataFrame, table: str) -> None:
    """Binary COPY straight into a table."""
    arrow = bars.to_arrow(compat_level=pl.CompatLevel.oldest())
    encoder = pgpq.ArrowToPostgresBinaryEncoder(arrow.schema)
    statement = sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(sql.Identifier(*table.split(".")))
    with connection.transaction(), connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(encoder.write_header())
        for batch in arrow.to_batches(max_chunksize=65_536):
            copy.write(encoder.write_batch(batch))
        copy.write(encoder.finish())


def on_conflict_update(connection: Connection, table: Table, bars: pl.DataFrame) -> None:
    """The usual upsert: COPY to a stage, then overwrite whatever is there."""
    changed = sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c.name))
        for c in table.columns
        if c.name not in table.key
    )
    target = sql.Identifier(table.schema, table.table)
    with connection.transaction():
        connection.execute(sql.SQL("CREATE TEMP TABLE upsert (LIKE {}) ON COMMIT DROP").format(target))
        bare_copy(connection, bars, "upsert")
        connection.execute(
            sql.SQL(
                "INSERT INTO {} SELECT * FROM upsert ON CONFLICT (venue, symbol, ts) DO UPDATE SET {}"
            ).format(target, changed)
        )


def executemany(url: str, table: Table, bars: pl.DataFrame) -> None:
    """What most projects begin with."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    reflected = sa.Table(table.table, sa.MetaData(schema=table.schema), autoload_with=engine)
    statement = sa.dialects.postgresql.insert(reflected).on_conflict_do_nothing()
    with engine.begin() as connection:
        connection.execute(statement, bars.to_dicts())
    engine.dispose()


def dlt_merge(url: str, table: Table, bars: pl.DataFrame) -> None:
    """A loading library, with its merge by key, into a table of its own that is empty each time."""
    import dlt  # a peer that need not be installed

    with tempfile.TemporaryDirectory() as folder:
        pipeline = dlt.pipeline(
            "bars",
            # It insists on a host and a password; the URL's own parameter then names the socket.
            destination=dlt.destinations.postgres(
                url.replace("postgres@/", "postgres:unused@localhost:5432/")
            ),
            dataset_name=f"dlt_{time.time_ns()}",
            pipelines_dir=folder,
        )
        resource = dlt.resource(
            bars.to_arrow(compat_level=pl.CompatLevel.oldest()),
            name="bars",
            primary_key=list(table.key),
            write_disposition="merge",
        )
        pipeline.run(resource)


def empty(connection: Connection, table: Table, bars: pl.DataFrame | None = None) -> None:
    """Begin with an empty table, with the partitions that `bars` need or with none, and no checkpoint due."""
    with connection.transaction():
        for partition in partitions(connection, table):
            connection.execute(sql.SQL("DROP TABLE {}").format(partition.identifier))
        connection.execute("TRUNCATE market.bar_invalidations, market.bar_revisions")
        if bars is not None:
            times = bars.get_column("ts")
            ensure_partitions(connection, table, times.min(), times.max() + timedelta(microseconds=1))
    settle(connection, "CHECKPOINT")


def settle(connection: Connection, *statements: str) -> None:
    """Run statements that must stand outside a transaction."""
    connection.commit()
    connection.autocommit = True
    for statement in statements:
        connection.execute(statement)
    connection.autocommit = False


def wal_bytes(connection: Connection) -> int:
    """Bytes of write-ahead log so far."""
    row = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()
    connection.commit()
    return row[0] if row else 0


def report(taken: dict[str, list[float]], rows: int, table: Table) -> None:
    """Print medians, and the ratios that matter."""
    wal = [int(n) for n in taken.pop("WAL")]
    seconds = {name: statistics.median(times) for name, times in taken.items()}
    print(f"{rows:,} rows of {table.name}, medians")
    for name, median in seconds.items():
        print(f"  {name:<42} {median:8.2f} s")
    copy = seconds["bare COPY, not idempotent"]
    first, again = seconds["ours, empty table"], seconds["ours, same rows again"]
    made = seconds["ours, partitions made on the way"]
    print(f"ours, speed of bare COPY:                  {copy / first:6.2f} x (aim 0.6)")
    print(f"ours with partitions made, of bare COPY:   {copy / made:6.2f} x")
    peers = ["SQLAlchemy executemany (scaled)", "dlt merge (scaled)"]
    for peer in peers:
        if peer in seconds:
            print(f"ours, against {peer:<28} {seconds[peer] / first:6.1f} x (aim 7)")
        else:
            print(f"ours, against {peer:<28} not measured, it is not installed")
    update = seconds["ON CONFLICT DO UPDATE, same rows again"]
    print(f"same rows again, against ON CONFLICT DO UPDATE {update / again:.1f} x (aim 3.5)")
    print(f"write-ahead log of the same rows again, bytes: {', '.join(f'{n:,}' for n in wal)} (aim 0)")


if __name__ == "__main__":
    main()
