"""Moves closed days of a hot table to the lake, exactly once.

The file is written, synced, read back and compared first; then one transaction deletes the rows and makes the
file live. Until that commits the file is invisible, after it the rows are gone: a reader finds each row in one
place, whenever it looks and wherever a run breaks off.

What belongs here: the move and what it guarantees. What does not: when to move (`assets.archive`), files (`lake`).
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import polars as pl
import psycopg
from psycopg import sql

from tracker_pipeline.domain.schemas import Table
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.storage import lake, manifest
from tracker_pipeline.storage.database import Connection, connect, identifier

DAY = timedelta(days=1)
# A day counts as over once its last bars are final for certain, whatever cut is given.
_SETTLING = timedelta(hours=1)


@dataclass(frozen=True)
class Moved:
    """What happened to one day.

    Attributes:
        rows_moved: rows that left Postgres now.
        rows_cold: rows of the day in the lake afterwards.
        reason: why nothing moved, or empty.
    """

    day: date
    rows_moved: int
    rows_cold: int
    reason: str = ""


def move_day(table: Table, day: date, *, cut: datetime, run_id: str) -> Moved:
    """Move the rows of one UTC day to the lake if the whole day lies before `cut`.

    Rows that came for a day already archived are merged with its part into a new one, which supersedes it; where
    both have a key, the hot row is the correction and wins.

    Raises:
        PermanentError: the table is not one that can be archived.
        TransientError: the lake cannot be written to, or the rows changed while they were moved; nothing moved.
    """
    if table.time_column is None or table.store != "postgres":
        raise PermanentError(f"{table.name} has no hot rows with a time, so there is nothing to archive")
    with connect() as connection, _one_writer(connection, table):
        live = manifest.live_batch(connection, table, day)
        cold_rows = live.rows if live else 0
        closed = min(cut, datetime.now(UTC) - _SETTLING)
        if datetime.combine(day, time(), UTC) + DAY > closed:
            return Moved(day, 0, cold_rows, reason=f"the day is not over at the cut {closed:%Y-%m-%d %H:%M}")
        connection.commit()
        try:
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                return _move(connection, table, day, cut, run_id)
        except psycopg.errors.SerializationFailure as error:
            raise TransientError(
                f"{table.name} of {day}: rows changed while they were moved, so nothing was moved"
            ) from error


def _move(connection: Connection, table: Table, day: date, cut: datetime, run_id: str) -> Moved:
    hot = _hot_rows(connection, table, day)
    live = manifest.live_batch(connection, table, day)
    if hot.is_empty():
        return Moved(day, 0, live.rows if live else 0, reason="no hot rows")
    rows = hot
    if live:
        cold = lake.scan_parts(table, [live.path]).collect()
        rows = pl.concat([cold.join(hot, on=table.key, how="anti"), hot])
    part = lake.write_part(table, day, rows, manifest.new_batch_id())
    try:
        deleted = connection.execute(_statement("DELETE FROM {} WHERE {}", table), _bounds(day)).rowcount
        if deleted != hot.height:
            raise TransientError(f"{table.name} of {day}: {hot.height} rows were read and {deleted} would go")
        manifest.commit_batch(connection, table, day, part, cut=cut, run_id=run_id)
    except BaseException:
        lake.discard_part(part)
        raise
    return Moved(day, hot.height, part.rows)


def _hot_rows(connection: Connection, table: Table, day: date) -> pl.DataFrame:
    exact = {"numeric", "numeric(78,0)", "jsonb"}
    columns = sql.SQL(", ").join(
        sql.SQL("{}::text").format(sql.Identifier(c.name))
        if c.type.postgres in exact
        else sql.Identifier(c.name)
        for c in table.columns
    )
    statement = sql.SQL("SELECT {} FROM {} WHERE {}").format(columns, identifier(table), _within(table))
    rows = connection.execute(statement, _bounds(day), binary=True).fetchall()
    return pl.DataFrame(rows, schema=table.polars_schema, orient="row")


def _statement(text: str, table: Table) -> sql.Composed:
    return sql.SQL(text).format(identifier(table), _within(table))


def _within(table: Table) -> sql.Composed:
    return sql.SQL("{0} >= %s AND {0} < %s").format(sql.Identifier(table.time_column or ""))


def _bounds(day: date) -> list[datetime]:
    start = datetime.combine(day, time(), UTC)
    return [start, start + DAY]


def hot_days(table: Table) -> dict[date, int]:
    """UTC days that have rows in Postgres, with their number, in order."""
    statement = sql.SQL("SELECT ({0} AT TIME ZONE 'UTC')::date, count(*) FROM {1} GROUP BY 1 ORDER BY 1")
    with connect() as connection:
        rows = connection.execute(
            statement.format(sql.Identifier(table.time_column or ""), identifier(table))
        ).fetchall()
    return dict(rows)


class _one_writer:  # noqa: N801  # reads as a context manager function
    """Hold the table's lock beyond one transaction.

    It is the lock of `database.lock_table`. It is taken before the snapshot of the move: a repeatable read whose
    first statement waits for a lock would see the table as it was before the wait.
    """

    def __init__(self, connection: Connection, table: Table) -> None:
        self._connection = connection
        self._name = f"tracker:{table.name}"

    def __enter__(self) -> None:
        self._connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [self._name])
        self._connection.commit()

    def __exit__(self, *_: object) -> None:
        # Closing the connection frees the lock as well, which is what happens when this one is broken.
        if not self._connection.broken:
            self._connection.rollback()
            self._connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [self._name])
            self._connection.commit()
