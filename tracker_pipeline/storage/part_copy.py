"""Copies rows of one day from a snapshot to a file of the lake, and proves the file against the database.

What belongs here: from a condition on rows to a published, proven file that nobody reads yet. What does not: the
removal of the rows and the manifest entry (`row_mode`, `partition_mode`).
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import psycopg
import pyarrow as pa
from psycopg import sql

from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.storage import manifest
from tracker_pipeline.storage.archive_policy import Policy
from tracker_pipeline.storage.catalogue import LiveTable
from tracker_pipeline.storage.column_forms import (
    DoesNotFitError,
    Field,
    can_be_special,
    fields_of,
    special_values,
)
from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.lake_store import Staged, lake_store
from tracker_pipeline.storage.part_proof import PROOF_VERSION, Proof, database_proof, file_proof
from tracker_pipeline.storage.part_writer import PartWriter, read_ahead
from tracker_pipeline.storage.snapshot_reader import stream

WRITER_VERSION: Final = 1
Step = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """Rows of one day of one table that are to move.

    Attributes:
        table: as the catalogue has it.
        policy: of the table.
        day: UTC day of the rows.
        cut: rows before this moment may move.
        source: the table or partition that is read, quoted.
        condition: SQL on its rows.
        run_id: of the run that moves them.
        bytes_per_row: what a row takes in Postgres, about; 0 where that is not known.
    """

    table: LiveTable
    policy: Policy
    day: date
    cut: datetime
    source: str
    condition: str
    run_id: str
    bytes_per_row: float = 0.0

    def __str__(self) -> str:
        """Table and day, for messages."""
        return f"{self.table.name} of {self.day}"


@dataclass(frozen=True)
class Copied:
    """A published and proven file, and what the manifest will say of it.

    Attributes:
        rows_moved: rows in it that are in Postgres still; a merged part has others besides.
    """

    part: manifest.NewPart
    rows_moved: int


@dataclass(frozen=True)
class Draft:
    """A closed file of rows that nothing has proven yet, and nobody sees.

    Attributes:
        fields: its columns.
        staged: the file, which is gone with the block that made it unless it is published.
    """

    work: Work
    fields: tuple[Field, ...]
    batch_id: str
    path: str
    staged: Staged
    created_at: datetime


@contextmanager
def drafted(snapshot: str | None, work: Work, fields: Sequence[Field], step: Step) -> Iterator[Draft]:
    """Copy the rows of `work` to a file for the time of the block.

    Args:
        snapshot: which rows there are; those of this moment where there is none.
        work: which of them.
        fields: the columns of the file.
        step: told the name of each step, so that tests can end the process there.

    Raises:
        DoesNotFitError: a value needs the wider form of its column.
        TransientError: the lake cannot be written to, or reading broke off.
    """
    batch_id = manifest.new_batch_id()
    path = manifest.part_path(work.table.name, work.day, batch_id)
    created_at = datetime.now(UTC)
    step("before write")
    with lake_store().stage(path) as staged:
        _write(snapshot, work, fields, staged.file, batch_id)
        pa.default_memory_pool().release_unused()  # what the writer's threads freed, before others take as much
        yield Draft(work, tuple(fields), batch_id, path, staged, created_at)


def copy_rows(
    connection: Connection, snapshot: str, work: Work, step: Step, draft: Draft | None = None
) -> Copied:
    """Copy the rows of `work` to a new file, prove it, publish it.

    Values that do not fit the usual form of their column make the file be written anew in the wider form.

    Args:
        connection: in the transaction that exported `snapshot`.
        snapshot: which rows there are.
        work: which of them.
        step: told the name of each step, so that tests can end the process there.
        draft: a file of these rows as they were a while ago. It is taken if it is what they are now.

    Raises:
        TransientError: the lake cannot be written to, reading broke off, or the file is not what the database has.
    """
    if draft is not None:
        with suppress(DoesNotFitError, _UnlikeError):  # rows came or changed since
            return _copy(connection, work, draft.fields, step, lambda: nullcontext(draft))

    def copied(fields: Sequence[Field]) -> Copied:
        return _copy(connection, work, fields, step, lambda: drafted(snapshot, work, fields, step))

    try:
        return copied(fields_of(work.table))
    except (DoesNotFitError, _UnlikeError) as error:
        special = _special_columns(connection, work)
        if not special:
            raise TransientError(f"{work}: the file differs from the database: {error}") from error
    try:
        return copied(fields_of(work.table, special))
    except (DoesNotFitError, _UnlikeError) as error:
        raise TransientError(f"{work}: the file differs from the database: {error}") from error


class _UnlikeError(Exception):
    """What was read back is not what the database has."""


def _copy(
    connection: Connection,
    work: Work,
    fields: Sequence[Field],
    step: Step,
    draft_of: Callable[[], AbstractContextManager[Draft]],
) -> Copied:
    """The draft, published, if the database has its rows, which it counts and hashes meanwhile."""
    with ThreadPoolExecutor(1) as beside:
        counted = beside.submit(_database_side, connection, work, fields)
        with draft_of() as draft:
            found = file_proof(draft.staged.file, fields, work.table.key, work.policy.time_column)
            expected = _result(counted)
            if difference := expected.difference(found):
                raise _UnlikeError(difference)
            step("before publishing")
            stored = draft.staged.publish(step)
            step("after publishing")
    part = manifest.NewPart(
        batch_id=draft.batch_id,
        table_name=work.table.name,
        data_day=work.day,
        path=draft.path,
        rows=expected.rows,
        bytes=stored.bytes,
        sha256=stored.sha256,
        content_hash=expected.content_hash,
        column_hashes=expected.column_hashes,
        min_ts=found.first,
        max_ts=found.last,
        cut=work.cut,
        schema=schema_of(work.table, fields),
        created_at=draft.created_at,
        verified_at=datetime.now(UTC),
        run_id=work.run_id,
        table_bytes=int(expected.rows * work.bytes_per_row) or None,
    )
    return Copied(part, expected.rows)


def _database_side(connection: Connection, work: Work, fields: Sequence[Field]) -> Proof:
    with connection.transaction():  # a savepoint: a value that does not fit must not end the whole
        return database_proof(connection, work.source, work.condition, fields, work.table.key)


def _result(counted: "Future[Proof]") -> Proof:
    try:
        return counted.result()
    except psycopg.DataError as error:
        raise DoesNotFitError(" ".join(str(error).split())) from error


def _write(
    snapshot: str | None,
    work: Work,
    fields: Sequence[Field],
    file: Path,
    batch_id: str,
) -> None:
    writer = PartWriter(file, fields, work.policy.sort, file_metadata(work, fields, batch_id))
    try:
        with (
            stream(snapshot, selection(work, fields), fields) as batches,
            read_ahead(batches) as ahead,
        ):
            for batch in ahead:
                writer.write(batch)
        writer.close()
    finally:
        writer.abandon()


def selection(work: Work, fields: Sequence[Field]) -> str:
    """SQL that reads the rows of `work` as fields."""
    columns = ", ".join(f"{field.select} AS {sql.Identifier(field.name).as_string(None)}" for field in fields)
    return f"SELECT {columns} FROM {work.source} WHERE {work.condition}"  # noqa: S608  # quoted names of ours


def _special_columns(connection: Connection, work: Work) -> Collection[str]:
    """Columns that have a value which their usual form cannot hold."""
    candidates = [column for column in work.table.columns if can_be_special(column)]
    if not candidates:
        return ()
    asked = ", ".join(f"coalesce(bool_or({special_values(column)}), false)" for column in candidates)
    row = connection.execute(
        f"SELECT {asked} FROM {work.source} WHERE {work.condition}"  # noqa: S608
    ).fetchone()
    return {column.name for column, found in zip(candidates, row or (), strict=True) if found}


def schema_of(table: LiveTable, fields: Sequence[Field]) -> dict[str, object]:
    """Columns and types of a file, as manifest and file metadata hold them."""
    columns = [
        {
            "name": column.name,
            "type": column.type,
            "nullable": column.nullable,
            "generated": column.generated,
            "identity": column.identity,
            "forms": {field.name: field.kind.value for field in fields if field.column == column.name},
        }
        for column in table.columns
    ]
    return {
        "fingerprint": table.fingerprint,
        "oid": table.oid,
        "key": list(table.key),
        "columns": columns,
        "proof_version": PROOF_VERSION,
    }


def file_metadata(work: Work, fields: Sequence[Field], batch_id: str) -> dict[str, str]:
    """What a file says of itself: enough to restore it without the manifest."""
    return {
        "tracker": json.dumps(
            {
                "table": work.table.name,
                "batch_id": batch_id,
                "day": f"{work.day}",
                "time_column": work.policy.time_column,
                "cut": work.cut.isoformat(),
                "writer_version": WRITER_VERSION,
                **schema_of(work.table, fields),
            }
        )
    }
