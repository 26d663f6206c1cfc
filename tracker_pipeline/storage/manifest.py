"""The manifest of the lake: which files hold which rows. A file that is not in it does not exist for readers.

What belongs here: reading and committing rows of `archive.batches`. What does not: the files (`lake`), and the
decision to move rows (`archive`).
"""

import json
import re
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from tracker_pipeline.domain.schemas import Table
from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.storage.catalogue import LiveTable
from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.lake import PartFile
from tracker_pipeline.storage.lake_store import UNFINISHED

_PART_PATH: Final = re.compile(r"[^/]+/[^/]+/day=\d{1,4}-\d\d-\d\d/part-[^/]+\.parquet")


@dataclass(frozen=True, eq=False)
class Batch:
    """A live part: one file with rows of one UTC day of one table.

    Attributes:
        column_hashes: for each field of the file, `count:hash` of `storage.part_proof`.
        schema: columns, types and forms of the file.
    """

    batch_id: str
    data_day: date
    path: str
    rows: int
    content_hash: str
    bytes: int = 0
    sha256: str = ""
    column_hashes: Mapping[str, str] | None = None
    schema: Mapping[str, Any] | None = None
    table_bytes: int | None = None
    cut: datetime | None = None


@dataclass(frozen=True)
class NewPart:
    """A published file that is to become live.

    Attributes:
        table_bytes: what its rows took in Postgres, about; None where that is not known.
    """

    batch_id: str
    table_name: str
    data_day: date
    path: str
    rows: int
    bytes: int
    sha256: str
    content_hash: str
    column_hashes: Mapping[str, str]
    min_ts: datetime | None
    max_ts: datetime | None
    cut: datetime | None
    schema: Mapping[str, Any]
    created_at: datetime
    verified_at: datetime
    run_id: str
    table_bytes: int | None = None


def new_batch_id() -> str:
    """Identity of a part: the moment in milliseconds, so that file names sort by it, and 48 random bits."""
    moment = int(datetime.now(UTC).timestamp() * 1000)
    return f"{moment:012x}{uuid.uuid4().hex[:12]}"


def part_path(table_name: str, day: date, batch_id: str) -> str:
    """Where a part lies in the lake."""
    schema, _, table = table_name.partition(".")
    return f"{schema}/{table}/day={day.isoformat()}/part-{batch_id}.parquet"


def is_part_path(path: str) -> bool:
    """Whether a file may be a part, finished or not: a lake may hold other files, which are none of ours."""
    return _PART_PATH.fullmatch(path.removesuffix(UNFINISHED)) is not None


def live_batches(
    connection: Connection,
    table: Table | LiveTable,
    start: datetime | None = None,
    end: datetime | None = None,
) -> list[Batch]:
    """The live parts of `table` that may hold rows of [start, end), by day and age."""
    last_day = (end - timedelta(microseconds=1)).date() if end else None
    return live_batches_of(connection, table.name, start.date() if start else date.min, last_day or date.max)


def live_batches_of(
    connection: Connection, name: str, first: date = date.min, last: date = date.max
) -> list[Batch]:
    """The live parts of some days, by day and age."""
    rows = connection.execute(
        "SELECT batch_id, data_day, path, rows, content_hash, bytes, sha256, column_hashes, schema, table_bytes, cut"
        " FROM archive.batches WHERE table_name = %s AND state = 'live' AND data_day BETWEEN %s AND %s"
        " ORDER BY data_day, batch_id",
        [name, first, last],
    ).fetchall()
    return [Batch(*row) for row in rows]


def live_parts_of_day(connection: Connection, table: Table | LiveTable, day: date) -> list[Batch]:
    """The live parts of one day, oldest first."""
    start = datetime.combine(day, datetime.min.time(), UTC)
    return live_batches(connection, table, start, start + timedelta(days=1))


def live_batch(connection: Connection, table: Table, day: date) -> Batch | None:
    """The live part of one day of a table that is written to the lake only, and has one part a day."""
    found = live_parts_of_day(connection, table, day)
    return found[-1] if found else None


def commit_batch(
    connection: Connection, table: Table, day: date, part: PartFile, *, cut: datetime | None, run_id: str
) -> None:
    """Make `part` the one live part of its day within the caller's transaction; the former ones are superseded."""
    former = [batch.batch_id for batch in live_parts_of_day(connection, table, day)]
    schema = {column.name: column.type.name.lower() for column in table.columns}
    new = NewPart(
        table_name=table.name,
        data_day=day,
        column_hashes={},
        schema=schema,
        cut=cut,
        run_id=run_id,
        **vars(part),
    )
    add_part(connection, new, supersedes=former)


def cold_rows(
    connection: Connection, table_name: str, first: date = date.min, last: date = date.max
) -> dict[date, int]:
    """Rows in the lake by day."""
    rows = connection.execute(
        "SELECT data_day, sum(rows)::bigint FROM archive.batches"
        " WHERE table_name = %s AND state = 'live' AND data_day BETWEEN %s AND %s GROUP BY 1",
        [table_name, first, last],
    ).fetchall()
    return dict(rows)


def is_committed(connection: Connection, batch_id: str) -> bool:
    """Whether the manifest has this part."""
    return bool(
        connection.execute("SELECT 1 FROM archive.batches WHERE batch_id = %s", [batch_id]).fetchone()
    )


def add_part(connection: Connection, part: NewPart, *, supersedes: Collection[str] = ()) -> None:
    """Make `part` live within the caller's transaction; the parts it takes the place of are superseded."""
    connection.execute(
        "INSERT INTO archive.batches (batch_id, table_name, data_day, path, rows, bytes, sha256, content_hash,"
        " min_ts, max_ts, cut, schema, state, created_at, verified_at, run_id, column_hashes, table_bytes)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'live', %s, %s, %s, %s, %s)",
        [
            part.batch_id, part.table_name, part.data_day, part.path, part.rows, part.bytes, part.sha256,
            part.content_hash, part.min_ts, part.max_ts, part.cut, json.dumps(part.schema), part.created_at,
            part.verified_at, part.run_id, json.dumps(part.column_hashes), part.table_bytes,
        ],
    )  # fmt: skip
    if supersedes:
        connection.execute(
            "UPDATE archive.batches SET state = 'superseded', superseded_by = %s, ended_at = now()"
            " WHERE batch_id = ANY(%s) AND state = 'live'",
            [part.batch_id, list(supersedes)],
        )


def retire(connection: Connection, batch_ids: Collection[str]) -> None:
    """Let live parts end without a successor within the caller's transaction.

    Raises:
        TransientError: one of them is not live any more, so somebody else was faster.
    """
    ended = connection.execute(
        "UPDATE archive.batches SET state = 'retired', ended_at = now() WHERE batch_id = ANY(%s) AND state = 'live'",
        [list(batch_ids)],
    ).rowcount
    if ended != len(batch_ids):
        raise TransientError(f"{len(batch_ids) - ended} parts are not live any more, so nothing was changed")
