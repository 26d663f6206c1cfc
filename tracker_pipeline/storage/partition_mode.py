"""Partition mode: one transaction copies a closed native partition, day by day, and drops it.

The partition is locked against writers before the snapshot, so what is proven is all there is, whenever it was
copied; readers go on until the moment of the drop. Nothing is deleted row by row: the space comes back at once and
the log stays small.

What belongs here: that transaction. What does not: which partitions are due (`due_partitions` says), the file and its
proof (`part_copy`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time
from time import sleep as pause
from typing import Final

import psycopg

from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.storage import manifest
from tracker_pipeline.storage.catalogue import LivePartition, live_partitions
from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.eligibility import DAY, condition_of_day, day_sql, settled, whole_days_before
from tracker_pipeline.storage.part_copy import Draft, Step, Work
from tracker_pipeline.storage.snapshot_reader import begin_exact
from tracker_pipeline.storage.transfer import Transfer, discard, transfer

# A detach waits for the readers at work and holds up those that come meanwhile: shorter than Postgres waits before it
# looks for deadlocks (1 s), so that it is never a writer who is made to give way.
_LOCK_MILLISECONDS: Final = 400
_LOCK_TRIES: Final = 25
_WRITER_SECONDS: Final = 10
_EVERY_ROW: Final = "true"  # comparing the time of each row with the day takes 1.5 ms of 100,000, twice


def due_partitions(connection: Connection, work: Work) -> list[LivePartition]:
    """Partitions that end before the cut of `work`, oldest first."""
    end = whole_days_before(work.cut)
    return [p for p in live_partitions(connection, work.table) if p.end <= end]


def _closed_partitions(connection: Connection, work: Work) -> list[LivePartition]:
    """Due partitions of which no row may still change."""
    return [p for p in due_partitions(connection, work) if not open_rows(connection, p, work)]


def due_days(connection: Connection, work: Work) -> list[date]:
    """UTC days that have rows in a due partition of which none may still change, in order."""
    found = (_days_of(connection, partition, work) for partition in _closed_partitions(connection, work))
    return sorted({day for days in found for day in days})


def rows_of_due_days(connection: Connection, work: Work) -> dict[date, int]:
    """The same with the number of rows of each day. Each row is read."""
    day = day_sql(work.table, work.policy)
    counts: Counter[date] = Counter()
    for partition in _closed_partitions(connection, work):
        counts.update(
            dict(connection.execute(f"SELECT {day}, count(*) FROM {partition.quoted} GROUP BY 1").fetchall())  # noqa: S608
        )
    return dict(sorted(counts.items()))


def partition_of(connection: Connection, work: Work) -> LivePartition | None:
    """The due partition that holds rows of the day of `work`."""
    start = datetime.combine(work.day, time(), UTC)
    for partition in due_partitions(connection, work):
        touches = partition.start < start + DAY and partition.end > start
        if touches and work.day in _days_of(connection, partition, work):
            return partition
    return None


def move_partition(
    connection: Connection, partition: LivePartition, work: Work, step: Step, draft: Draft | None = None
) -> list[Transfer]:
    """Copy the days of a partition, enter the files in the manifest and drop it, all in the open transaction.

    Args:
        connection: in a REPEATABLE READ transaction that has read nothing yet.
        partition: closed, and due.
        work: of any of its days.
        step: told the name of each step.
        draft: a file of its rows, written before it was locked.

    Raises:
        PermanentError: rows of it are in the lake already with the same values.
        TransientError: nothing was moved, for the reason it says.
    """
    _lock_out_writers(connection, partition)
    snapshot = begin_exact(connection)
    if still := open_rows(connection, partition, work):
        raise TransientError(f"{partition.name}: {still} of its rows may still change, so it stays whole")
    transfers: list[Transfer] = []
    try:
        for day in _days_of(connection, partition, work):
            done = transfer(connection, snapshot, work_of_day(work, partition, day), step, draft)
            if done is not None:
                transfers.append(done)
        _refuse_remainder(connection, partition, transfers)
        for done in transfers:
            manifest.add_part(connection, done.copied.part, supersedes=done.collisions.superseded)
        drop_partition(connection, partition)
    except BaseException:
        discard(transfers)
        raise
    return transfers


def work_of_day(work: Work, partition: LivePartition, day: date) -> Work:
    """The rows of one day of a partition."""
    condition = _EVERY_ROW
    if not is_of_one_day(partition):
        condition = condition_of_day(work.table, work.policy, day, work.cut)
    return replace(work, source=partition.quoted, day=day, condition=condition)


def _days_of(connection: Connection, partition: LivePartition, work: Work) -> list[date]:
    """UTC days of the rows of a partition, in order; where its bounds are those of one day they say it."""
    if is_of_one_day(partition):
        first = partition.start.astimezone(UTC).date()
        found = connection.execute(f"SELECT FROM {partition.quoted} LIMIT 1").fetchone()
        return [] if found is None else [first]
    day = day_sql(work.table, work.policy)
    rows = connection.execute(f"SELECT DISTINCT {day} FROM {partition.quoted} ORDER BY 1").fetchall()  # noqa: S608
    return [row[0] for row in rows]


def is_of_one_day(partition: LivePartition) -> bool:
    """Whether its bounds, which Postgres holds every row to, are within one UTC day."""
    return partition.end <= datetime.combine(partition.start.astimezone(UTC).date(), time(), UTC) + DAY


def open_rows(connection: Connection, partition: LivePartition, work: Work) -> int:
    """How many rows of a partition may still change."""
    if work.policy.may_change_while is None:
        return 0
    return _count(connection, f"{partition.quoted} WHERE NOT {settled(work.policy, work.cut)}")


def _count(connection: Connection, source: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {source}").fetchone()  # noqa: S608
    return int(row[0]) if row else 0


def _refuse_remainder(
    connection: Connection, partition: LivePartition, transfers: Sequence[Transfer]
) -> None:
    if [done.work.condition for done in transfers] == [_EVERY_ROW]:
        return  # the proof has counted all that there is
    copied = sum(done.copied.rows_moved for done in transfers)
    there = _count(connection, partition.quoted)
    if there != copied:
        raise PermanentError(
            f"{partition.name} has {there} rows of which {copied} were copied; the others are archived already with"
            " the same values: delete them, or set the mode row in the policy"
        )


def _lock_out_writers(connection: Connection, partition: LivePartition) -> None:
    connection.execute(f"SET LOCAL lock_timeout = '{_WRITER_SECONDS}s'")
    try:
        connection.execute(f"LOCK TABLE {partition.quoted} IN SHARE ROW EXCLUSIVE MODE")
    except psycopg.errors.LockNotAvailable as error:
        raise TransientError(f"{partition.name}: a transaction that writes to it does not end") from error
    except psycopg.errors.UndefinedTable as error:
        raise TransientError(f"{partition.name} was dropped meanwhile") from error


def drop_partition(connection: Connection, partition: LivePartition) -> None:
    """Detach and drop, once no reader holds the table for a moment."""
    connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_MILLISECONDS}ms'")
    for attempt in range(_LOCK_TRIES):
        _refuse_waiting_writers(connection, partition)
        try:
            with connection.transaction():
                connection.execute(
                    f"ALTER TABLE {partition.parent} DETACH PARTITION {partition.quoted};"
                    f"DROP TABLE {partition.quoted}"
                )
        except psycopg.errors.LockNotAvailable as error:
            if attempt == _LOCK_TRIES - 1:
                raise TransientError(
                    f"{partition.name}: readers of {partition.parent} do not end, so it could not be detached"
                ) from error
            pause(0.02 * (attempt + 1))
        else:
            return


def _refuse_waiting_writers(connection: Connection, partition: LivePartition) -> None:
    """Give way to a writer that waits for the partition: it holds the table, which the detach would wait for."""
    waiting = _count(
        connection, f"pg_locks WHERE relation = {partition.oid} AND NOT granted AND locktype = 'relation'"
    )
    if waiting:
        raise WriterWaitsError(f"{partition.name}: a writer of late rows waits for it")


class WriterWaitsError(TransientError):
    """A writer came between; the next try takes its rows along."""
