"""Brings archived days back to Postgres, exactly once, and holds them back from the archive for a while.

Where a partition is needed it is made first. Then one transaction a day puts the rows into the table, takes its parts
out of the manifest and sets the hold. Until it commits readers see the rows in the lake, after it in Postgres. The
files stay for another day, for readers that had looked them up.

What belongs here: days, their transaction and their partitions. What does not: the rows of a part and what the table
holds of them (`part_insertion`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import psycopg
from psycopg import sql

from tracker_pipeline.domain.schemas import TABLES
from tracker_pipeline.resources.errors import PermanentError, PipelineError, TransientError
from tracker_pipeline.storage import manifest
from tracker_pipeline.storage.archive_locks import among_writers, only_runner
from tracker_pipeline.storage.catalogue import LiveTable, live_table
from tracker_pipeline.storage.database import Connection, connect
from tracker_pipeline.storage.holds import hold
from tracker_pipeline.storage.hot_partitions import ensure_partitions
from tracker_pipeline.storage.lake_store import Step, no_step
from tracker_pipeline.storage.manifest import Batch
from tracker_pipeline.storage.part_insertion import OnConflict, insert_part

HOLD: Final = timedelta(days=7)
DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class Restored:
    """What became of one day.

    Attributes:
        rows: that were in the lake.
        inserted: that are in Postgres now and were not before.
        identical: that Postgres had already, with the same content.
        conflicting: whose key Postgres had with other content.
        outcome: `restored`, `would restore`, `nothing` or `skipped`.
        note: what should be known besides.
    """

    table: str
    day: date
    rows: int
    inserted: int = 0
    identical: int = 0
    conflicting: int = 0
    outcome: str = "restored"
    note: str = ""


def restore_days(
    name: str,
    first: date,
    last: date,
    *,
    on_conflict: OnConflict = "fail",
    dry_run: bool = False,
    held_for: timedelta = HOLD,
    run_id: str,
    step: Step = no_step,
) -> list[Restored]:
    """Restore the archived days from `first` to `last`, both included; each is committed by itself.

    Restoring a day that is restored already does nothing.

    Args:
        name: schema and table.
        first: earliest day.
        last: latest day.
        on_conflict: what to do with a row whose key Postgres holds with other content. `fail` restores nothing of
            that day, `keep` leaves the row of Postgres and drops the archived one, `overwrite` the other way round.
            Rows that are identical are not conflicts.
        dry_run: only say what would be restored. Nothing is written anywhere.
        held_for: for how long the days are not archived again.
        run_id: recorded with the hold.
        step: told the name of each step as it is reached.

    Raises:
        PermanentError: the table does not exist or lives in the lake, a file is missing or altered, rows conflict, or
            the table would not hold them as they were archived.
        TransientError: the database or the lake does not answer, or what was read back is not what was archived.
    """
    if name in TABLES and TABLES[name].store == "lake":
        raise PermanentError(f"{name} lives in the lake, so there is nothing to restore it to")
    with connect() as connection:
        table = live_table(connection, name)
        days = sorted({part.data_day for part in manifest.live_batches_of(connection, name, first, last)})
        if dry_run:
            return [
                _planned(table, day, manifest.live_batches_of(connection, name, day, day)) for day in days
            ]
    with only_runner(name) as alone:
        if not alone:
            return [
                Restored(name, d, 0, outcome="skipped", note="another run is at this table") for d in days
            ]
        done: list[Restored] = []
        for day in days:
            try:
                done.append(_restore_day(name, day, on_conflict, held_for, run_id, step))
            except PipelineError as error:
                before = f"; {len(done)} earlier days were restored" if done else ""
                raise type(error)(f"{error}{before}") from error
        return done


def _planned(table: LiveTable, day: date, parts: Sequence[Batch]) -> Restored:
    return Restored(table.name, day, sum(part.rows for part in parts), outcome="would restore")


def _restore_day(
    name: str, day: date, on_conflict: OnConflict, held_for: timedelta, run_id: str, step: Step
) -> Restored:
    with connect() as connection, among_writers(connection, name):
        table = live_table(connection, name)
        parts = manifest.live_batches_of(connection, name, day, day)
        if not parts:
            return Restored(name, day, 0, outcome="nothing", note="no archived rows")
        connection.commit()  # else the block below would be a savepoint of the transaction that read the manifest
        try:
            with connection.transaction():  # by itself: reads wait from the attaching to its commit
                _make_room(connection, table, day)
            with connection.transaction():
                done = [insert_part(connection, table, part, on_conflict) for part in parts]
                step("after insert")
                manifest.retire(connection, [part.batch_id for part in parts])
                until = datetime.now(UTC) + held_for
                hold(connection, name, [day], until=until, reason="restored", run_id=run_id)
                step("before commit")
        except psycopg.errors.IntegrityError as error:
            raise PermanentError(f"{name} of {day} cannot be restored: {_words(error)}") from error
        except psycopg.errors.DataError as error:
            raise PermanentError(
                f"{name} of {day} cannot be restored into the columns as they are now: {_words(error)}"
            ) from error
        except psycopg.OperationalError as error:
            raise TransientError(
                f"{name} of {day}: the database broke off ({_words(error)}); what was committed is known to the"
                " manifest: run it again"
            ) from error
        except psycopg.Error as error:
            raise PermanentError(f"{name} of {day} cannot be restored: {_words(error)}") from error
    inserted, identical, conflicting = (sum(column) for column in zip(*done, strict=True))
    rows = sum(part.rows for part in parts)
    return Restored(name, day, rows, inserted, identical, conflicting, note=f"held until {until:%Y-%m-%d}")


def _make_room(connection: Connection, table: LiveTable, day: date) -> None:
    """Make the native partition that the rows of a day go to, where there is none."""
    start = datetime.combine(day, time(), UTC)
    if table.name in TABLES:
        ensure_partitions(connection, TABLES[table.name], start, start + DAY)
        return
    if not table.is_partitioned or _has_partition(connection, table, start):
        return
    partition = sql.Identifier(table.schema, f"{table.table}_restored_{day:%Y_%m_%d}")
    connection.execute(  # a partition has the identity of its table, not one of its own
        sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING IDENTITY)").format(
            partition, table.identifier
        )
    )
    connection.execute(
        sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            table.identifier, partition, _edge(start), _edge(start + DAY)
        )
    )


def _edge(moment: datetime) -> sql.Composable:
    return sql.Literal(moment.isoformat())


def _has_partition(connection: Connection, table: LiveTable, start: datetime) -> bool:
    """Whether some partition takes rows of that day, which a default one does as well."""
    bounds: list[tuple[Any, ...]] = connection.execute(
        "SELECT pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = %s AND NOT i.inhdetachpending",
        [table.oid],
    ).fetchall()
    for (text,) in bounds:
        if text == "DEFAULT":
            return True
        edges = connection.execute(
            "SELECT (m[1])::timestamptz <= %s AND %s < (m[2])::timestamptz"
            " FROM regexp_match(%s, 'FROM \\(''(.*)''\\) TO \\(''(.*)''\\)') m",
            [start, start, text],
        ).fetchone()
        if edges and edges[0]:
            return True
    return False


def _words(error: Exception) -> str:
    return " ".join(str(error).split())
