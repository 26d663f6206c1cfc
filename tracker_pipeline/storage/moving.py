"""Moves one day of one table: whether it may, the transaction, and what became of a commit that broke off.

What belongs here: the frame around a move. What does not: how rows are removed (`row_mode`), locks between runs
(`archive_locks`), which days there are (`archive`).
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from time import sleep as pause
from typing import Final

import psycopg

from tracker_pipeline.resources.errors import PipelineError, TransientError
from tracker_pipeline.storage import manifest, row_sizes
from tracker_pipeline.storage.archive_locks import among_writers, writers_lock
from tracker_pipeline.storage.archive_policy import Policy
from tracker_pipeline.storage.catalogue import LivePartition, LiveTable, live_table
from tracker_pipeline.storage.database import Connection, connect
from tracker_pipeline.storage.eligibility import (
    DAY,
    condition_of_day,
    quoted,
    refuse_bad_policy,
    whole_days_before,
)
from tracker_pipeline.storage.holds import held_days
from tracker_pipeline.storage.kept_connection import KeptConnection
from tracker_pipeline.storage.lake_store import free_disk_bytes, lake_store
from tracker_pipeline.storage.part_copy import Draft, Step, Work
from tracker_pipeline.storage.partition_mode import WriterWaitsError, move_partition, open_rows, partition_of
from tracker_pipeline.storage.row_mode import move_rows
from tracker_pipeline.storage.transfer import Transfer, discard

# Rows that somebody changes while they are read end the transaction; the next try takes them as they are then.
_TRIES: Final = 5
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


@dataclass(frozen=True)
class Run:
    """What is the same for all days of a table that are moved together.

    Attributes:
        table: schema and table.
        policy: of the table.
        cut: rows before this moment move.
        run_id: recorded with each part.
        step: told the name of each step as it is reached.
    """

    table: str
    policy: Policy
    cut: datetime
    run_id: str
    step: Step


@dataclass(frozen=True)
class Plan:
    """What is to move for one day, as it is found without a lock.

    Attributes:
        partition: in partition mode, the one that goes.
        cold: rows in the lake, by day.
        reason: why nothing moves; else empty.
    """

    work: Work
    partition: LivePartition | None
    cold: Mapping[date, int]
    reason: str


def plan(connection: Connection, run: Run, day: date) -> Plan:
    """Look what is due of one day of a table.

    Raises:
        PermanentError: the table or its policy does not allow it.
        TransientError: the lake has not enough space.
    """
    table, policy = live_table(connection, run.table), run.policy
    refuse_bad_policy(table, policy)
    cut = min(run.cut, datetime.now(UTC))
    condition = condition_of_day(table, policy, day, cut)
    work = Work(table, policy, day, cut, quoted(table), condition, run.run_id)
    partition = partition_of(connection, work) if policy.mode == "partition" else None
    cold = manifest.cold_rows(connection, table.name)
    if reason := _why_not(connection, work, partition):
        return Plan(work, partition, cold, reason)
    bytes_per_row = _bytes_per_row(connection, partition.oid) if partition else _row_bytes(connection, work)
    return Plan(replace(work, bytes_per_row=bytes_per_row), partition, cold, "")


def move_one(kept: KeptConnection, run: Run, day: date, draft: Draft | None) -> list[Moved]:
    """Move the due rows of one day, in partition mode with all days of its partition; nobody else runs this table.

    Args:
        kept: the connection to do it by.
        run: the table and what is to move of it.
        day: the day.
        draft: a file of its rows that was written before, if there is one.

    Returns:
        What became of each day, the one asked for first.

    Raises:
        PermanentError: the table or its policy does not allow it.
        TransientError: nothing was moved, or it is not known; the text says which.
    """
    with kept.lent() as connection, among_writers(connection, run.table):
        due = plan(connection, run, day)
        if due.reason:
            return [Moved(day, 0, due.cold.get(day, 0), reason=due.reason)]
        connection.commit()
        transfers = _with_tries(connection, due, run.step, draft)
    moved = [_described(done, due) for done in transfers]
    return sorted(moved, key=lambda one: (one.day != day, one.day)) or [
        Moved(day, 0, due.cold.get(day, 0), reason="its rows are archived already with the same values")
    ]


def _with_tries(connection: Connection, due: Plan, step: Step, draft: Draft | None) -> list[Transfer]:
    for attempt in range(1, _TRIES + 1):
        try:
            return _in_one_transaction(connection, due, step, draft if attempt == 1 else None)
        except psycopg.errors.SerializationFailure as error:
            if attempt == _TRIES:
                raise TransientError(
                    f"{due.work}: rows changed while they were moved, so nothing was moved"
                ) from error
        except WriterWaitsError:
            if attempt == _TRIES:
                raise
        pause(0.05 * attempt)
    raise AssertionError("unreachable")


def _why_not(connection: Connection, work: Work, partition: LivePartition | None) -> str:
    """Why the rows of a day or partition stay, in words; empty where they may move."""
    held = held_days(connection, work.table.name)
    if work.day in held:
        return "held back since it was restored"
    if partition is None:
        return _why_not_the_day(connection, work)
    if any(partition.start.date() <= one < partition.end.date() for one in held):
        return f"{partition.name} has a day that is held back since it was restored"
    if still := open_rows(connection, partition, work):
        return f"{still} rows of {partition.name} may still change, so it stays whole"
    _refuse_little_space(work.table, _size_of(connection, partition.oid))
    return ""


def _why_not_the_day(connection: Connection, work: Work) -> str:
    by_partition = work.policy.mode == "partition"
    over = datetime.combine(work.day, time(), UTC) + DAY <= whole_days_before(work.cut)
    if not over and (work.policy.whole_days or by_partition):
        return f"the day is not over at the cut {work.cut:%Y-%m-%d %H:%M}"
    due = connection.execute(
        f"SELECT count(*) FROM {work.source} WHERE {work.condition}"  # noqa: S608
    ).fetchone()
    if not due or not due[0]:
        return "no hot rows"
    if by_partition:
        return "its partition is not over at the cut"
    _refuse_little_space(work.table, due[0] * _row_bytes(connection, work))
    return ""


def _row_bytes(connection: Connection, work: Work) -> float:
    return row_sizes.bytes_per_row(connection, work.table, work.source, work.condition)


def _refuse_little_space(table: LiveTable, needed: float) -> None:
    folder = lake_store().workplace
    free = free_disk_bytes(folder)
    if free < needed + _SPARE_BYTES:
        raise TransientError(
            f"the disk of {folder} has {free >> 20} MiB left, and the rows of {table.name} may need"
            f" {int(needed) >> 20}: make room"
        )


def _bytes_per_row(connection: Connection, oid: int) -> float:
    """What a row of a partition takes with its share of the indexes; rows by the statistics of Postgres, if any."""
    row = connection.execute(
        "SELECT sum(pg_total_relation_size(relid)), sum(greatest(reltuples, 0)), %s::oid::regclass::text"
        " FROM pg_partition_tree(%s::oid::regclass) JOIN pg_class c ON c.oid = relid WHERE isleaf",
        [oid, oid],
    ).fetchone()
    size, rows, name = row or (0, 0, "")
    if not rows:
        counted = connection.execute(f"SELECT count(*) FROM {name}").fetchone()  # noqa: S608
        rows = counted[0] if counted else 0
    return float(size or 0) / max(float(rows), 1.0)


def _size_of(connection: Connection, oid: int) -> int:
    row = connection.execute("SELECT pg_table_size(%s::oid)", [oid]).fetchone()
    return int(row[0]) if row else 0


def _in_one_transaction(connection: Connection, due: Plan, step: Step, draft: Draft | None) -> list[Transfer]:
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    transfers: list[Transfer] = []
    try:
        if due.partition is None:
            transfers = move_rows(connection, due.work, step)
        else:
            transfers = move_partition(connection, due.partition, due.work, step, draft)
        step("before commit")
    except BaseException:
        with suppress(psycopg.Error):
            connection.rollback()
        discard(transfers)
        raise
    _commit(connection, transfers, due.work)
    step("after commit")
    return transfers


def _described(done: Transfer, due: Plan) -> Moved:
    part, collisions = done.copied.part, done.collisions
    replaced = sum(batch.rows for batch in collisions.cold) if collisions.corrected else 0
    return Moved(
        part.data_day,
        rows_moved=done.copied.rows_moved,
        rows_cold=due.cold.get(part.data_day, 0) - replaced + part.rows,
        reason=str(collisions),
        bytes=part.bytes,
        table_bytes=int(done.copied.rows_moved * due.work.bytes_per_row),
        content_hash=part.content_hash,
    )


def _commit(connection: Connection, transfers: list[Transfer], work: Work) -> None:
    """Commit; where the connection breaks meanwhile, ask the manifest what became of it.

    The files stay wherever the outcome is not known for certain: they may be the only place of their rows.
    """
    try:
        connection.commit()
    except psycopg.Error as error:
        if (
            not connection.broken and not connection.closed
        ):  # the server lives and refused, for a deferred constraint
            discard(transfers)
            raise
        if transfers and not _was_committed(work, transfers[0].copied.part.batch_id):
            discard(transfers)
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
