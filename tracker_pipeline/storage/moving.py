"""Moves one day of one table: whether it may, the transaction, and what became of a commit that broke off.

What belongs here: the frame around a move. What does not: how rows are removed (`row_mode`), locks between runs
(`archive_locks`), which days there are (`archive`).
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Final

import psycopg

from tracker_pipeline.resources.errors import PipelineError, TransientError
from tracker_pipeline.storage import manifest
from tracker_pipeline.storage.archive_locks import among_writers, writers_lock
from tracker_pipeline.storage.archive_policy import Policy
from tracker_pipeline.storage.catalogue import LiveTable, live_table
from tracker_pipeline.storage.database import Connection, connect
from tracker_pipeline.storage.eligibility import (
    DAY,
    condition_of_day,
    quoted,
    refuse_bad_policy,
    whole_days_before,
)
from tracker_pipeline.storage.holds import held_days
from tracker_pipeline.storage.lake_store import lake_store
from tracker_pipeline.storage.part_copy import Copied, Step, Work
from tracker_pipeline.storage.row_mode import move_rows
from tracker_pipeline.storage.same_keys import Collisions

# Rows that somebody changes while they are read end the transaction; the next try takes them as they are then.
_TRIES: Final = 3
_SETTLE_SECONDS: Final = 30
# A file takes less than its rows did; what must be left besides is for everything else on the disk.
_SPARE_BYTES: Final = 64 << 20


@dataclass(frozen=True)
class Moved:
    """What happened to one day.

    Attributes:
        rows_moved: rows that left Postgres now.
        rows_cold: rows of the day in the lake afterwards.
        reason: why nothing moved, or what should be known of what did; else empty.
        bytes: size of the new file.
        table_bytes: what the rows took in Postgres, about.
        content_hash: of the new file.
    """

    day: date
    rows_moved: int
    rows_cold: int
    reason: str = ""
    bytes: int = 0
    table_bytes: int = 0
    content_hash: str = ""

    @property
    def compression(self) -> float | None:
        """How many times smaller the file is than the rows were."""
        return round(self.table_bytes / self.bytes, 1) if self.bytes and self.table_bytes else None


def move_one(name: str, policy: Policy, day: date, cut: datetime, run_id: str, step: Step) -> Moved:
    """Move the due rows of one day; the caller is the only runner of the table.

    Raises:
        PermanentError: the table or its policy does not allow it.
        TransientError: nothing was moved, or it is not known; the text says which.
    """
    with connect() as connection, among_writers(connection, name):
        table = live_table(connection, name)
        refuse_bad_policy(table, policy)
        cut = min(cut, datetime.now(UTC))
        cold = sum(part.rows for part in manifest.live_parts_of_day(connection, table, day))
        if reason := _why_not(connection, table, policy, day, cut):
            return Moved(day, 0, cold, reason=reason)
        bytes_per_row = _bytes_per_row(connection, table)
        connection.commit()
        work = Work(table, policy, day, cut, quoted(table), condition_of_day(table, policy, day, cut), run_id)
        for attempt in range(1, _TRIES + 1):
            try:
                return _in_one_transaction(connection, work, cold, bytes_per_row, step)
            except psycopg.errors.SerializationFailure as error:
                if attempt == _TRIES:
                    raise TransientError(
                        f"{work}: rows changed while they were moved, so nothing was moved"
                    ) from error
    raise AssertionError("unreachable")


def _why_not(connection: Connection, table: LiveTable, policy: Policy, day: date, cut: datetime) -> str:
    if day in held_days(connection, table.name):
        return "held back since it was restored"
    if policy.whole_days and datetime.combine(day, time(), UTC) + DAY > whole_days_before(cut):
        closed = min(cut, datetime.now(UTC))
        return f"the day is not over at the cut {closed:%Y-%m-%d %H:%M}"
    condition = condition_of_day(table, policy, day, cut)
    due = connection.execute(
        f"SELECT count(*) FROM {quoted(table)} WHERE {condition}"  # noqa: S608
    ).fetchone()
    if not due or not due[0]:
        return "no hot rows"
    _refuse_little_space(table, due[0] * _bytes_per_row(connection, table))
    return ""


def _refuse_little_space(table: LiveTable, needed: float) -> None:
    free = lake_store().free_bytes()
    if free is not None and free < needed + _SPARE_BYTES:
        raise TransientError(
            f"the lake {lake_store().name} has {free >> 20} MiB left, and the rows of {table.name} may need"
            f" {int(needed) >> 20}: make room"
        )


def _bytes_per_row(connection: Connection, table: LiveTable) -> float:
    """What a row takes with its share of the indexes, by the statistics that Postgres keeps."""
    row = connection.execute(
        "SELECT sum(pg_total_relation_size(relid)), sum(greatest(reltuples, 0))"
        " FROM pg_partition_tree(%s::oid::regclass) JOIN pg_class c ON c.oid = relid WHERE isleaf",
        [table.oid],
    ).fetchone()
    size, rows = row or (None, None)
    if not size or not rows:
        row = connection.execute(
            f"SELECT pg_total_relation_size({table.oid}), greatest(count(*), 1) FROM {quoted(table)}"  # noqa: S608
        ).fetchone()
        size, rows = row or (0, 1)
    return float(size) / float(rows)


def _in_one_transaction(
    connection: Connection, work: Work, cold: int, bytes_per_row: float, step: Step
) -> Moved:
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    copied: Copied | None = None
    try:
        copied, collisions = move_rows(connection, work, step)
        step("before commit")
    except BaseException:
        with suppress(psycopg.Error):
            connection.rollback()
        if copied is not None:
            lake_store().delete(copied.part.path)
        raise
    _commit(connection, copied, work)
    step("after commit")
    return _described(copied, collisions, work, cold, copied.rows_moved * bytes_per_row)


def _described(copied: Copied, collisions: Collisions, work: Work, cold: int, table_bytes: float) -> Moved:
    replaced = sum(part.rows for part in collisions.cold) if collisions.corrected else 0
    return Moved(
        work.day,
        rows_moved=copied.rows_moved,
        rows_cold=cold - replaced + copied.part.rows,
        reason=str(collisions),
        bytes=copied.part.bytes,
        table_bytes=int(table_bytes),
        content_hash=copied.part.content_hash,
    )


def _commit(connection: Connection, copied: Copied, work: Work) -> None:
    """Commit; where the connection breaks meanwhile, ask the manifest what became of it.

    The file stays wherever the outcome is not known for certain: it may be the only place of its rows.
    """
    try:
        connection.commit()
    except psycopg.OperationalError as error:
        if not connection.broken and not connection.closed:
            raise
        if not _was_committed(work, copied.part.batch_id):
            raise TransientError(
                f"{work}: the connection was lost at COMMIT and nothing was moved"
            ) from error


def _was_committed(work: Work, batch_id: str) -> bool:
    """Whether the manifest has the part, once the former session has ended for certain: then its lock is free."""
    try:
        with connect() as connection:
            connection.execute(f"SET lock_timeout = '{_SETTLE_SECONDS}s'")
            connection.execute(
                "SELECT pg_advisory_lock(hashtextextended(%s, 0))", [writers_lock(work.table.name)]
            )
            return manifest.is_committed(connection, batch_id)
    except (PipelineError, psycopg.Error) as error:
        raise TransientError(
            f"{work}: the connection was lost at COMMIT and the database does not answer, so it is not known whether"
            " the rows moved; the manifest has it, and the next run goes by that"
        ) from error
