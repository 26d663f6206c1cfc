"""Streams rows out of Postgres as Arrow batches, from the snapshot of another connection's transaction.

What belongs here: the transaction that streams, and the session settings that make text forms exact. What does not:
what is read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import psycopg
import pyarrow as pa

from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.storage.column_forms import DoesNotFitError, Field
from tracker_pipeline.storage.copy_out import CopyOut
from tracker_pipeline.storage.database import Connection, open_connection, ready_url
from tracker_pipeline.storage.resting_connections import RestingConnections
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
def stream(
    snapshot: str | None, statement: str, fields: Sequence[Field]
) -> Iterator[Iterator[pa.RecordBatch]]:
    """The rows of `statement` as the snapshot has them, in batches; the transaction ends with the block.

    Args:
        snapshot: of the transaction that knows which rows there are; none for those of this moment.
        statement: selects `fields`.
        fields: whose form the batches have.

    Raises:
        DoesNotFitError: a value needs the wider form of its column.
        TransientError: the server refused or broke off; the text says how.
    """
    begin = "; ".join(
        (
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
            *([f"SET TRANSACTION SNAPSHOT '{snapshot}'"] if snapshot else []),
            "SET LOCAL client_encoding = 'UTF8'",
            *EXACT_TEXT,
        )
    )
    connection, _ = _streams.begin(lambda one: one.execute(begin))
    try:
        with _said_plainly():
            rows = CopyOut(connection, f"COPY ({statement}) TO STDOUT (FORMAT binary)")
            yield row_batches(rows, fields)
            if rows.is_read:
                connection.rollback()
    except BaseException:
        connection.close()
        raise
    if rows.is_read:
        _streams.give_back(connection)
    else:
        connection.close()  # in the middle of an answer


# Opening another for each day takes 6 ms; to stream a day of 1m bars takes 60.
_streams: Final = RestingConnections(lambda: open_connection(ready_url()))


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
