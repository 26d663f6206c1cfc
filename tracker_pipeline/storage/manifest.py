"""The manifest of the lake: which files hold which rows. A file that is not in it does not exist for readers.

What belongs here: reading and committing rows of `archive.batches`. What does not: the files (`lake`), and the
decision to move rows (`archive`).
"""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from tracker_pipeline.domain.schemas import Table
from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.lake import PartFile


@dataclass(frozen=True)
class Batch:
    """A live part: one file that holds one UTC day of one table."""

    batch_id: str
    data_day: date
    path: str
    rows: int
    content_hash: str


def new_batch_id() -> str:
    """Identity of a part: the moment in milliseconds, so that file names sort by it, and 48 random bits."""
    moment = int(datetime.now(UTC).timestamp() * 1000)
    return f"{moment:012x}{uuid.uuid4().hex[:12]}"


def live_batches(
    connection: Connection, table: Table, start: datetime | None = None, end: datetime | None = None
) -> list[Batch]:
    """The live parts of `table` that may hold rows of [start, end), by day."""
    last_day = (end - timedelta(microseconds=1)).date() if end else None
    rows = connection.execute(
        "SELECT batch_id, data_day, path, rows, content_hash FROM archive.batches"
        " WHERE table_name = %s AND state = 'live'"
        " AND data_day >= coalesce(%s, '-infinity'::date) AND data_day <= coalesce(%s, 'infinity'::date)"
        " ORDER BY data_day",
        [table.name, start.date() if start else None, last_day],
    ).fetchall()
    return [Batch(*row) for row in rows]


def live_batch(connection: Connection, table: Table, day: date) -> Batch | None:
    """The live part of one day, if any."""
    start = datetime.combine(day, datetime.min.time(), UTC)
    found = live_batches(connection, table, start, start + timedelta(days=1))
    return found[0] if found else None


def commit_batch(
    connection: Connection, table: Table, day: date, part: PartFile, *, cut: datetime | None, run_id: str
) -> None:
    """Make `part` the live part of its day within the caller's transaction; the former one is superseded."""
    connection.execute(
        "UPDATE archive.batches SET state = 'superseded', superseded_by = %s, ended_at = now()"
        " WHERE table_name = %s AND data_day = %s AND state = 'live'",
        [part.batch_id, table.name, day],
    )
    schema = {column.name: column.type.name.lower() for column in table.columns}
    connection.execute(
        "INSERT INTO archive.batches (batch_id, table_name, data_day, path, rows, bytes, sha256, content_hash,"
        " min_ts, max_ts, cut, schema, state, created_at, verified_at, run_id)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'live', %s, %s, %s)",
        [
            part.batch_id, table.name, day, part.path, part.rows, part.bytes, part.sha256, part.content_hash,
            part.min_ts, part.max_ts, cut, json.dumps(schema), part.created_at, part.verified_at, run_id,
        ],
    )  # fmt: skip
