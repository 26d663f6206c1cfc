"""Who may make a day of a table: one run at a time, from reading what it is made of to storing it.

Two runs over the same day could otherwise end in the wrong order: the first reads its bars, a bar is corrected, the
second reads the correction and stores its rows, and then the first stores what it made of the former bar. With the
lock, whoever stores a day last began last, so it has read everything that was stored before it began.

What belongs here: that lock. What does not: the lock of one write (`database.lock_table`), which runs there are
(`automation`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg

from tracker_pipeline.domain.schemas import Table
from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.storage.database import connect

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# In ascending order, so that two runs whose days overlap never wait for each other in a circle.
_LOCK = "SELECT pg_advisory_lock(hashtext(%s), day) FROM generate_series(%s::int, %s::int) day"


@contextmanager
def only_maker(table: Table, start: datetime, end: datetime) -> Iterator[None]:
    """Wait to be the only one who makes the days [start, end) of a table, and stay so until the block ends.

    Raises:
        TransientError: the session that held the lock has ended meanwhile, so the days must be made again.
    """
    first, last = ((moment - _EPOCH) // timedelta(days=1) for moment in (start, end - timedelta(days=1)))
    with connect() as connection:
        connection.execute(_LOCK, [f"making:{table.name}", first, last])
        connection.commit()
        yield
        try:
            connection.execute("SELECT pg_advisory_unlock_all()")
        except psycopg.OperationalError as error:
            raise TransientError(
                f"{table.name}: the database ended the session that kept other runs from {start:%Y-%m-%d} to"
                f" {end:%Y-%m-%d}; these days are made again"
            ) from error
