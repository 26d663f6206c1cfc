"""Streams rows out of Postgres as Arrow batches, from the snapshot of another connection's transaction.

What belongs here: the transaction that streams, and the session settings that make text forms exact. What does not:
what is read.
"""

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Final

import psycopg
import pyarrow as pa

from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.storage.column_forms import DoesNotFitError, Field
from tracker_pipeline.storage.copy_out import CopyOut
from tracker_pipeline.storage.database import Connection, open_connection, ready_url
from tracker_pipeline.storage.row_batches import row_batches

# Text of times, intervals, floats and bytes must not depend on how a role or database is set up.
EXACT_TEXT: Final = (
    "SET LOCAL timezone = 'UTC'",
    "SET LOCAL datestyle = 'ISO, YMD'",
    "SET LOCAL intervalstyle = 'postgres'",
    "SET LOCAL extra_float_digits = 1",
    "SET LOCAL bytea_output = 'hex'",
    "SET LOCAL xmloption = 'content'",
)


def begin_exact(connection: Connection) -> str:
    """Begin the transaction of a move and return the name of its snapshot.

    Its connection rests while the rows stream through another, so no idle time-out may end it.
    """
    for statement in EXACT_TEXT:
        connection.execute(statement)
    connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    row = connection.execute("SELECT pg_export_snapshot()").fetchone()
    assert row is not None  # noqa: S101  # the function has a value
    return str(row[0])


@contextmanager
def stream(snapshot: str, statement: str, fields: Sequence[Field]) -> Iterator[Iterator[pa.RecordBatch]]:
    """The rows of `statement` as the snapshot has them, in batches; the transaction ends with the block.

    Args:
        snapshot: of the transaction that knows which rows there are.
        statement: selects `fields`.
        fields: whose form the batches have.

    Raises:
        DoesNotFitError: a value needs the wider form of its column.
        TransientError: the server refused or broke off; the text says how.
    """
    with _said_plainly(), _connections.borrowed() as connection:
        connection.execute(
            "; ".join(
                (
                    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
                    f"SET TRANSACTION SNAPSHOT '{snapshot}'",
                    "SET LOCAL client_encoding = 'UTF8'",
                    *EXACT_TEXT,
                )
            )
        )
        rows = CopyOut(connection, f"COPY ({statement}) TO STDOUT (FORMAT binary)")
        yield row_batches(rows, fields)
        if not rows.is_read:
            connection.close()


class _Connections:
    """One connection that rests between two streams: opening another takes 6 ms, a day of 1m bars 60."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._resting: Connection | None = None
        self._of: tuple[str, int] | None = None
        atexit.register(self.close)

    @contextmanager
    def borrowed(self) -> Iterator[Connection]:
        """A connection outside of any transaction; closed where the block fails, in the middle of an answer."""
        of = ready_url(), os.getpid()
        connection = self._take(of)
        try:
            yield connection
            if not connection.closed:
                connection.rollback()
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if self._resting is None and not connection.closed:
                self._resting, self._of = connection, of
                return
        connection.close()

    def close(self) -> None:
        """Close the one that rests; a forked child must not end what its parent uses."""
        with self._lock:
            resting, of, self._resting = self._resting, self._of, None
        if resting is not None and of is not None and of[1] == os.getpid():
            resting.close()

    def _take(self, of: tuple[str, int]) -> Connection:
        with self._lock:
            if self._of == of and self._resting is not None:
                resting, self._resting = self._resting, None
                if _answers(resting):
                    return resting
        self.close()
        return open_connection(of[0])


def _answers(connection: Connection) -> bool:
    try:
        connection.execute("")
        connection.rollback()
    except psycopg.OperationalError:  # the server was restarted, or ended it
        return False
    return True


_connections = _Connections()


@contextmanager
def _said_plainly() -> Iterator[None]:
    try:
        yield
    except psycopg.DataError as error:
        raise DoesNotFitError(_words(error)) from error
    except psycopg.Error as error:
        raise TransientError(f"reading the rows broke off: {_words(error)[:300]}") from error


def _words(error: Exception) -> str:
    return " ".join(str(error).split())
