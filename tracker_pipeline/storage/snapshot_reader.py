"""Streams rows out of Postgres as Arrow batches, from the snapshot of another connection's transaction.

What belongs here: the transaction that streams, and the session settings that make text forms exact. What does not:
what is read.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pyarrow as pa

from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.snapshots import arrow_transaction

# Text of times, intervals, floats and bytes must not depend on how a role or database is set up.
EXACT_TEXT: Final = (
    "SET LOCAL timezone = 'UTC'",
    "SET LOCAL datestyle = 'ISO, YMD'",
    "SET LOCAL intervalstyle = 'postgres'",
    "SET LOCAL extra_float_digits = 1",
    "SET LOCAL bytea_output = 'hex'",
    "SET LOCAL xmloption = 'content'",
)
_BATCH_BYTES: Final = 4 << 20
_PREFIX: Final = re.compile(r"^.*?\b(?:ERROR|FATAL):\s*")


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
def stream(snapshot: str, statement: str) -> Iterator[Iterator[pa.RecordBatch]]:
    """The rows of `statement` as the snapshot has them, in batches; the transaction ends with the block.

    Raises:
        TransientError: the server refused or broke off; the text says how. A value that does not fit the form asked
            for is one reason, which this driver does not tell from others.
    """
    with arrow_transaction() as cursor:
        with _said_plainly():
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
            cursor.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
            cursor.execute("SET LOCAL xmloption = 'content'")
            cursor.execute(statement)
            reader = cursor.fetch_record_batch()
        yield _read(reader)
        reader.close()


def _read(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while True:
        with _said_plainly():
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
        yield batch


@contextmanager
def _said_plainly() -> Iterator[None]:
    import adbc_driver_manager as driver

    try:
        yield
    except (driver.Error, pa.ArrowInvalid, OSError) as error:
        text = _PREFIX.sub("", " ".join(str(error).split()))
        raise TransientError(f"reading the rows broke off: {text[:300]}") from error
