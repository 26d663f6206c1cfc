"""Moving old rows to Parquet: ours, proven and removed, against pandas and against DELETE with VACUUM, in one run.

    python -m benchmarks.archive_move [--repeat 3] [--json-rows 5000000] [--scale 1.0]

The peer is the usual `pandas.read_sql` by psycopg2 and `to_parquet` (snappy), which verifies and removes nothing; it
needs the extra `benchmarks`. Ours is the
whole move in partition mode: locked, streamed, compared with the hashes of the database, published, recorded and
dropped. Each run is a process of its own, so that its peak of memory is its own; the methods alternate. Then rows
with 400 characters of JSON move in row mode under a limit of 512 MB for the whole process. It takes about five
minutes, most of them for making the rows.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tracker_pipeline.resources.postgres import EmbeddedPostgres
from tracker_pipeline.storage import migrations
from tracker_pipeline.storage.catalogue import live_partitions, live_table
from tracker_pipeline.storage.database import Connection, open_connection
from tracker_pipeline.storage.partition_mode import drop_partition

LIMIT_BYTES = 512 << 20
CUT = "2026-01-20T00:00:00+00:00"
PRICES, TRADES = 1_308_922, 824_849

MAKE = {
    # Three tokens at 1 Hz, walking in steps of a few hundredths of a percent.
    "prices": """
CREATE TABLE bench.prices (
    id bigint, "timestamp" timestamp NOT NULL, token varchar(20) NOT NULL, price float8 NOT NULL,
    PRIMARY KEY (id, "timestamp")) PARTITION BY RANGE ("timestamp");
CREATE INDEX ON bench.prices ("timestamp");
CREATE INDEX ON bench.prices (token, "timestamp");
CREATE TABLE bench.prices_source AS
SELECT id, at AS "timestamp", token,
       round((base * exp(sum(step) OVER (PARTITION BY token ORDER BY id)))::numeric, 4)::float8 AS price
FROM (SELECT i AS id, timestamp '2026-01-06' + (i / 3) * interval '1 second' AS at,
             (ARRAY['SOL', 'BTC', 'ETH'])[1 + i % 3] AS token, (ARRAY[140, 92000, 3100])[1 + i % 3] AS base,
             CASE WHEN random() < 0.35 THEN (random() - 0.5) * 0.0004 ELSE 0 END AS step
      FROM generate_series(0, {rows} - 1) AS i) AS made;
""",
    # Wallets of 44 and signatures of 88 characters in base 58, three exact amounts.
    "trades": """
CREATE FUNCTION bench.base58(length int, seed int) RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT string_agg(substr('123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz',
                             1 + floor(random() * 58)::int, 1), '') FROM generate_series(1, length + 0 * seed) $$;
CREATE TABLE bench.wallets AS SELECT n, bench.base58(44, n) AS wallet FROM generate_series(0, 19999) AS n;
CREATE TABLE bench.trades (id bigint, wallet_address varchar(255) NOT NULL, signature varchar(255),
    trade_timestamp timestamp NOT NULL,
    stablecoin_amount numeric(20,8), sol_amount numeric(20,8), price numeric(20,8),
    direction varchar(10), perp_direction varchar(10), created_at timestamp, PRIMARY KEY (id, trade_timestamp))
    PARTITION BY RANGE (trade_timestamp);
CREATE INDEX ON bench.trades (trade_timestamp);
CREATE INDEX ON bench.trades (wallet_address);
CREATE TABLE bench.trades_source AS
SELECT i::bigint AS id, w.wallet AS wallet_address, s AS signature,
       timestamp '2026-01-06' + i * interval '0.52 seconds' AS trade_timestamp,
       (amount * p)::numeric(20,8) AS stablecoin_amount, amount::numeric(20,8) AS sol_amount,
       p::numeric(20,8) AS price, (ARRAY['buy', 'sell'])[1 + i % 2] AS direction,
       (ARRAY[NULL, NULL, 'long', 'short'])[1 + i % 4] AS perp_direction,
       timestamp '2026-01-06' + i * interval '0.52 seconds' + random() * interval '5 seconds' AS created_at
FROM (SELECT i, floor(random() * random() * 20000)::int AS w, (10 ^ (random() * 4 - 2)) AS amount,
             140 + 3 * sin(i / 50000.0) + random() * 0.05 AS p, bench.base58(88, i) AS s
      FROM generate_series(0, {rows} - 1) AS i) AS made JOIN bench.wallets w ON w.n = made.w ORDER BY i;
""",
    "books": """
CREATE TABLE bench.books (id bigserial PRIMARY KEY, "timestamp" timestamp NOT NULL, symbol varchar(20), mid float8,
    bids_json text, asks_json jsonb);
INSERT INTO bench.books ("timestamp", symbol, mid, bids_json)
SELECT timestamp '2026-01-06' + i * interval '0.017 seconds', 'SOLUSDT', 140 + sin(i / 1000.0),
       (SELECT '[' || string_agg('[' || round((140 - k * 0.01 + random() * 0.001)::numeric, 4) || ','
                                 || round((random() * 900)::numeric, 3) || ']', ',') || ']'
        FROM generate_series(1, 22) AS k WHERE i >= 0)
FROM generate_series(0, {rows} - 1) AS i;
""",
}
POLICIES = """
archived:
  bench.prices: {time_column: timestamp, retention: 24 h, mode: partition, sort: [token, timestamp]}
  bench.trades: {time_column: trade_timestamp, retention: 24 h, mode: partition}
  bench.books: {time_column: timestamp, retention: 24 h}
never_archived: {bench.prices_source: "", bench.trades_source: "", bench.wallets: ""}
"""

OURS = """
import sys
from datetime import datetime
from tracker_pipeline.storage.archive import archive_tables
import numpy, pyarrow.parquet
pyarrow.array([0])  # imports pandas where it is installed, which it is for the peer
from tracker_pipeline.domain.copy_binary import take_rows
from tracker_pipeline.domain.postgres_hash import hash_float64, hash_int64, hash_scaled, hash_text
from tracker_pipeline.storage.archive_policy import get_policies
from tracker_pipeline.storage.database import connect
get_policies()
with connect():
    pass
# Compiled code is loaded as modules are, once for a process.
one = numpy.zeros(1, numpy.int64)
seeds = hash_int64(one), hash_float64(one.astype(float)), hash_scaled(one, 8)
hash_text(numpy.zeros(1, numpy.uint8), one, one, None)
copied, there = numpy.zeros(64, numpy.uint8), numpy.zeros((1, 1), bool)
numbers, ends = numpy.zeros((1, 1), numpy.int64), numpy.zeros((1, 2), numpy.int32)
of_fields = one, one.astype(numpy.uint64), one
take_rows(copied, 0, 0, 0, 0, *of_fields, numbers, copied, one.repeat(2), ends, there, one, one)
from benchmarks.archive_move import measured
def work():
    (report,) = archive_tables([sys.argv[1]], cut=datetime.fromisoformat(sys.argv[2]), run_id="benchmark")
    assert report.outcome == "moved", report
    return {"rows": sum(d.rows_moved for d in report.days), "bytes": sum(d.bytes for d in report.days)}
measured(work)
"""
PANDAS = """
import os, sys, tempfile
import pandas, sqlalchemy, pyarrow.parquet
from benchmarks.archive_move import measured
# SQLAlchemy's usual driver, which is twice as fast here as psycopg 3.
engine = sqlalchemy.create_engine(os.environ["TRACKER_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://"))
engine.connect().close()
def work():
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        frame = pandas.read_sql(f"SELECT * FROM {sys.argv[1]}", engine)
        frame.to_parquet(file.name, compression="snappy")
        return {"rows": len(frame), "bytes": os.path.getsize(file.name)}
measured(work)
"""


def measured(work) -> None:  # type: ignore[no-untyped-def]
    """Run `work` in this process and print its time and how far its memory grew."""
    Path("/proc/self/clear_refs").write_text("5")
    before, started, busy = _status("VmRSS"), time.perf_counter(), time.process_time()
    done = work()
    seconds, cpu, peak = time.perf_counter() - started, time.process_time() - busy, _status("VmHWM")
    print(json.dumps({**done, "seconds": seconds, "cpu": cpu, "growth": peak - before, "peak": peak}))


def _status(name: str) -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) << 10


def main() -> None:
    """Make the rows, run all methods in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows of prices and trades")
    parser.add_argument("--json-rows", type=int, default=5_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder))
        server.start()
        try:
            with open_connection(server.url) as connection:
                migrations.apply(connection)
                run(connection, _environment(server.url, Path(folder)), options)
        finally:
            server.stop_if_unused()


def _environment(url: str, folder: Path) -> dict[str, str]:
    (folder / "policies.yaml").write_text(POLICIES)
    (folder / "config.yaml").write_text("archive: {policies: [policies.yaml]}\n")
    return {
        **os.environ,
        "TRACKER_DATABASE_URL": url,
        "TRACKER_CONFIG": str(folder / "config.yaml"),
        "TRACKER_HOME": str(folder / "home"),
    }


def run(connection: Connection, environment: dict[str, str], options: argparse.Namespace) -> None:
    """All parts of the benchmark."""
    connection.execute("CREATE SCHEMA bench; SELECT setseed(0.5)")
    for name, rows in (("prices", PRICES), ("trades", TRADES)):
        connection.execute(MAKE[name].format(rows=int(rows * options.scale)))
        connection.commit()
        compare(connection, environment, name, options.repeat)
    remove(connection, environment, options.repeat)
    if options.json_rows:
        connection.execute(MAKE["books"].format(rows=options.json_rows))
        connection.commit()
        under_limit(connection, environment)


def compare(connection: Connection, environment: dict[str, str], name: str, repeat: int) -> None:
    """Ours against pandas over the same rows."""
    taken: dict[str, list[dict[str, float]]] = {"pandas": [], "ours": []}
    for _ in range(repeat):
        refill(connection, name)
        for method, program in (("pandas", PANDAS), ("ours", OURS)):
            taken[method].append(in_process(program, f"bench.{name}", environment))
    medians = {
        method: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for method, runs in taken.items()
    }
    pandas, ours = medians["pandas"], medians["ours"]
    print(f"{name}: {int(ours['rows']):,} rows, medians of {repeat}")
    for method, figures in medians.items():
        print(
            f"  {method:<8}{figures['seconds']:7.2f} s, {figures['cpu']:.2f} s of it its own work,"
            f" growth {figures['growth'] / 2**20:.0f} MB,"
            f" file {figures['bytes'] / 1e6:6.1f} MB"
        )
    print(
        f"  faster {pandas['seconds'] / ours['seconds']:.1f} x, growth 1/{pandas['growth'] / ours['growth']:.1f},"
        f" file {ours['bytes'] / pandas['bytes']:.2f} x"
    )


def refill(connection: Connection, name: str) -> None:
    """Make the partitions and rows of the table anew."""
    column = {"prices": '"timestamp"', "trades": "trade_timestamp"}[name]
    row = connection.execute(f"SELECT max({column})::date FROM bench.{name}_source").fetchone()
    assert row is not None
    connection.execute(f"DELETE FROM archive.batches WHERE table_name = 'bench.{name}'")
    for day in range(6, row[0].day + 1):
        connection.execute(
            f"DROP TABLE IF EXISTS bench.{name}_{day};"
            f"CREATE TABLE bench.{name}_{day} PARTITION OF bench.{name}"
            f" FOR VALUES FROM ('2026-01-{day:02}') TO ('2026-01-{day + 1:02}')"
        )
    connection.execute(f"INSERT INTO bench.{name} SELECT * FROM bench.{name}_source")
    connection.commit()
    connection.autocommit = True
    connection.execute(f"VACUUM ANALYZE bench.{name}")
    connection.execute("CHECKPOINT")
    connection.autocommit = False


def remove(connection: Connection, environment: dict[str, str], repeat: int) -> None:
    """Detach and drop, as partition mode does, against DELETE and VACUUM: time and log."""
    taken: dict[str, list[tuple[float, float]]] = {"DELETE + VACUUM": [], "detach and drop": []}
    for _ in range(repeat):
        refill(connection, "prices")
        taken["DELETE + VACUUM"].append(timed(connection, delete_and_vacuum))
        refill(connection, "prices")
        taken["detach and drop"].append(timed(connection, detach_and_drop))
    medians = {
        name: [statistics.median(run[i] for run in runs) for i in range(2)] for name, runs in taken.items()
    }
    print(f"removing the price rows, medians of {repeat}")
    for name, (seconds, wal) in medians.items():
        print(f"  {name:<16}{seconds:7.3f} s   log {wal / 1e6:8.2f} MB")
    (slow, much), (fast, little) = medians.values()
    print(f"  faster {slow / fast:.1f} x, log 1/{much / little:.0f}")


def timed(connection: Connection, work) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Seconds and bytes of log of some work."""
    log, started = wal_bytes(connection), time.perf_counter()
    work(connection)
    return time.perf_counter() - started, wal_bytes(connection) - log


def delete_and_vacuum(connection: Connection) -> None:
    """The usual way."""
    connection.execute("DELETE FROM bench.prices WHERE \"timestamp\" < '2026-01-20'")
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM bench.prices")
    connection.autocommit = False


def detach_and_drop(connection: Connection) -> None:
    """What partition mode does once the files are proven, a transaction for each partition."""
    for partition in live_partitions(connection, live_table(connection, "bench.prices")):
        drop_partition(connection, partition)
        connection.commit()


def under_limit(connection: Connection, environment: dict[str, str]) -> None:
    """Rows with JSON, in a process that is ended as soon as it takes more than the limit."""
    row = connection.execute("SELECT count(*), avg(length(bids_json))::int FROM bench.books").fetchone()
    connection.commit()
    assert row is not None
    figures = in_process(OURS, "bench.books", environment, limit=LIMIT_BYTES)
    print(f"{row[0]:,} rows with {row[1]} characters of JSON, row mode, limit {LIMIT_BYTES >> 20} MB")
    print(
        f"  {figures['seconds']:.1f} s, peak of the whole process {figures['peak'] / 2**20:.0f} MB,"
        f" file {figures['bytes'] / 1e6:.0f} MB"
    )


def in_process(
    program: str, table: str, environment: dict[str, str], limit: int | None = None
) -> dict[str, float]:
    """Run a program and return the figures that it prints; end it if it takes more memory than `limit`."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, table, CUT], env=environment, stdout=subprocess.PIPE, text=True
    )
    watched = psutil.Process(process.pid)
    while limit and process.poll() is None:
        try:
            if watched.memory_info().rss > limit:
                process.kill()
                raise SystemExit(f"{table}: more than {limit >> 20} MB")
        except psutil.NoSuchProcess:
            break
        time.sleep(0.02)
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{table}: the process ended with {process.returncode}")
    figures: dict[str, float] = json.loads(said)
    return figures


def wal_bytes(connection: Connection) -> int:
    """Bytes of write-ahead log so far."""
    row = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()
    connection.commit()
    return row[0] if row else 0


if __name__ == "__main__":
    main()
