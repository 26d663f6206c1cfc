"""Native partitions of the hot tables: made before their rows come, listed, found by day.

A table says in its declaration how long its partitions are (`Table.partition`). Partitions are named after table and
first day and live in the schema `hot`; what they hold is read from Postgres' own catalogue, never from their names.

What belongs here: which partitions there are, and making them. What does not: moving rows out of one (`archive`),
rows (`writing`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import polars as pl
from psycopg import sql

from tracker_pipeline.domain.schemas import TABLES, Table
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage.database import Connection, connect, hold_back_readers, identifier, lock_table

SCHEMA: Final = "hot"
_LABELS: Final = {"day": "%Y_%m_%d", "month": "%Y_%m", "year": "%Y"}
# Two daily runs may fail before a writer has to make a partition itself. More would only be opened in vain: a query
# for the latest bars begins with the newest partitions.
AHEAD: Final = timedelta(days=3)

# The session is in UTC, so the bounds are spelled in UTC and read back as such.
_LIST: Final = r"""
SELECT c.relname, bounds[1]::timestamptz, bounds[2]::timestamptz
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid,
     regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''(.*)''\) TO \(''(.*)''\)') bounds
WHERE i.inhparent = %s::regclass AND NOT i.inhdetachpending
ORDER BY 2
"""


@dataclass(frozen=True)
class Partition:
    """One partition.

    Attributes:
        name: its table in the schema `hot`.
        start: first moment it takes.
        end: first moment it takes no more.
    """

    name: str
    start: datetime
    end: datetime

    @property
    def identifier(self) -> sql.Identifier:
        """Its qualified name, quoted."""
        return sql.Identifier(SCHEMA, self.name)


def partitions(connection: Connection, table: Table) -> list[Partition]:
    """The attached partitions of `table`, oldest first; none where it is not partitioned."""
    if table.partition is None:
        return []
    return [Partition(*row) for row in connection.execute(_LIST, [table.name]).fetchall()]


def partition_of_day(connection: Connection, table: Table, day: date) -> Partition | None:
    """The partition that is exactly one UTC day; None where there is none, or only a coarser one."""
    start = datetime.combine(day, time(), UTC)
    wanted = (start, start + timedelta(days=1))
    return next((p for p in partitions(connection, table) if (p.start, p.end) == wanted), None)


def ensure_partitions(
    connection: Connection, table: Table, start: datetime, end: datetime
) -> list[Partition]:
    """Make the partitions that rows of [start, end) need, as part of the caller's transaction.

    Takes the table's lock, so that two writers who need the same partition make it one after the other. Writers of
    other partitions are not held up: a partition is built by itself and then attached. Reads that begin between then
    and the commit wait for it, so it should come soon.

    Returns:
        The partitions that were made now.

    Raises:
        PermanentError: a table of the partition's name exists without being attached.
    """
    if table.partition is None or start >= end:
        return []
    moments = []
    moment = _floor(start, table.partition)
    while moment < end:
        moments.append(moment)
        moment = _next(moment, table.partition)
    return _make(connection, table, moments)


def ensure_partitions_of(
    connection: Connection, table: Table, times: pl.Series, *, fill: Callable[[Partition], None] | None = None
) -> list[Partition]:
    """Make the partitions that rows of these times need; like `ensure_partitions`, without those in between.

    `fill` is called with each new partition before it has an index and is attached, and may add its rows.
    """
    if table.partition is None:
        return []
    unit = {"day": "1d", "month": "1mo", "year": "1y"}[table.partition]
    return _make(connection, table, times.dt.truncate(unit).unique().sort().to_list(), fill)


def create_partitions_ahead(now: datetime) -> dict[str, int]:
    """Make every partition that is needed from `now` until `AHEAD` of it.

    Returns:
        How many were made, by table.
    """
    made = {}
    for table in TABLES.values():
        if table.partition is not None:
            with connect() as connection, connection.transaction():
                made[table.name] = len(ensure_partitions(connection, table, now, now + AHEAD))
    return made


def _make(
    connection: Connection,
    table: Table,
    starts: Sequence[datetime],
    fill: Callable[[Partition], None] | None = None,
) -> list[Partition]:
    assert table.partition is not None  # noqa: S101  # for the type checker; the callers have looked
    lock_table(connection, table)
    wanted = [Partition(_name(table, start), start, _next(start, table.partition)) for start in starts]
    if _attached(connection, table, wanted) == len(wanted):
        return []
    there = partitions(connection, table)
    made = [w for w in wanted if not any(p.start <= w.start and w.end <= p.end for p in there)]
    for partition in made:
        _create(connection, table, partition)
        if fill is not None:
            fill(partition)
    if made:
        hold_back_readers(connection, table.name)
    for partition in made:
        _attach(connection, table, partition)
    return made


def _attached(connection: Connection, table: Table, wanted: list[Partition]) -> int:
    """How many of these names are attached: one look-up, where reading all bounds takes 10 ms for 3,000."""
    row = connection.execute(
        "SELECT count(*) FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid WHERE c.relname = ANY(%s)"
        " AND c.relnamespace = %s::regnamespace AND i.inhparent = %s::regclass AND NOT i.inhdetachpending",
        [[partition.name for partition in wanted], SCHEMA, table.name],
    ).fetchone()
    return int(row[0]) if row else 0


def _create(connection: Connection, table: Table, partition: Partition) -> None:
    taken = connection.execute("SELECT to_regclass(%s)", [f"{SCHEMA}.{partition.name}"]).fetchone()
    if taken and taken[0]:
        raise PermanentError(
            f"{SCHEMA}.{partition.name} is not attached to {table.name} although it is named as a partition of it:"
            " attach it if its rows are needed, drop it if they are archived"
        )
    statement = sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES)")
    connection.execute(statement.format(partition.identifier, identifier(table)))


def _attach(connection: Connection, table: Table, partition: Partition) -> None:
    """Build the key and attach. CREATE ... PARTITION OF would lock out all readers of the table; this does not."""
    statement = sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})")
    connection.execute(
        statement.format(
            identifier(table), partition.identifier, sql.Literal(partition.start), sql.Literal(partition.end)
        )
    )


def _name(table: Table, start: datetime) -> str:
    assert table.partition is not None  # noqa: S101  # for the type checker
    return f"{table.schema}_{table.table}_{start.strftime(_LABELS[table.partition])}"


def _floor(moment: datetime, span: str) -> datetime:
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if span == "year":
        return day.replace(month=1, day=1)
    return day.replace(day=1) if span == "month" else day


def _next(start: datetime, span: str) -> datetime:
    # 32 and 367 days from its first one lie in the next month and year, whatever their length.
    return _floor(start + timedelta(days={"day": 1, "month": 32, "year": 367}[span]), span)
