"""Proves that the archive can be restored: reads an archived day back into a scratch table and compares hashes.

What belongs here: choosing a day, and the rehearsal. What does not: restoring for good (`restore`).
"""

import random
import time
from dataclasses import dataclass
from datetime import date

from tracker_pipeline.domain.schemas import TABLES
from tracker_pipeline.storage.archive_policy import get_policies
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.manifest import live_batches_of
from tracker_pipeline.storage.part_loading import load_part


@dataclass(frozen=True)
class Drilled:
    """A day that was restored to a scratch table, each column with the hash that it was archived with."""

    table: str
    day: date
    parts: int
    rows: int
    rows_archived: int
    seconds: float


def restore_drill(seed: int | str, name: str | None = None) -> Drilled | None:
    """Restore a random archived day to a scratch table, which goes again at once.

    Args:
        seed: the same seed chooses the same day of the same archive.
        name: schema and table; any if not given.

    Returns:
        What was restored; None where nothing is archived.

    Raises:
        PermanentError: a file is missing or altered, one of its types does not exist any more, or nobody knows the
            table.
        TransientError: what was read back is not what was archived.
    """
    with connect() as connection:
        if name:
            get_policies().refuse_unknown(connection, [name])
        days = connection.execute(
            "SELECT DISTINCT table_name, data_day FROM archive.batches WHERE state = 'live'"
            " AND (%s::text IS NULL OR table_name = %s) ORDER BY 1, 2",
            [name, name],
        ).fetchall()
        # Tables that are written to the lake from the start have nowhere to be restored to.
        days = [
            (table, day) for table, day in days if table not in TABLES or TABLES[table].store == "postgres"
        ]
        if not days:
            return None
        table, day = random.Random(seed).choice(days)  # noqa: S311  # no secret
        started = time.perf_counter()
        parts = live_batches_of(connection, table, day, day)
        rows = sum(load_part(connection, table, part).rows for part in parts)
        connection.rollback()
    archived = sum(part.rows for part in parts)
    return Drilled(table, day, len(parts), rows, archived, round(time.perf_counter() - started, 3))
