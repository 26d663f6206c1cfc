"""Who may archive, restore or compact a table: one at a time, and never beside a writer of it.

What belongs here: session locks that outlive transactions. What does not: the lock of one write (`database`).
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from tracker_pipeline.storage.database import Connection, connect


@contextmanager
def only_runner(name: str) -> Iterator[bool]:
    """Whether this is the only run that archives, restores or compacts the table; so it stays in the block."""
    with connect() as connection:
        row = connection.execute(
            "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [f"archive:{name}"]
        ).fetchone()
        connection.commit()
        try:
            yield bool(row and row[0])
        finally:
            with suppress(psycopg.Error):  # a session that has ended holds no lock
                connection.execute("SELECT pg_advisory_unlock_all()")
                connection.commit()


@contextmanager
def among_writers(connection: Connection, name: str) -> Iterator[None]:
    """Hold the lock that every writer of the table takes (`database.lock_table`), beyond one transaction.

    It is taken before the snapshot of the move: a repeatable read whose first statement waits for a lock would see
    the table as it was before the wait.
    """
    connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [writers_lock(name)])
    connection.commit()
    try:
        yield
    finally:
        # Closing the connection frees the lock as well, which is what happens when this one is broken.
        with suppress(psycopg.Error):
            connection.rollback()
            connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [writers_lock(name)])
            connection.commit()


def writers_lock(name: str) -> str:
    """Name of the lock that `database.lock_table` takes."""
    return f"tracker:{name}"
