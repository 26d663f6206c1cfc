"""Connections to the database: opened in UTC, migrated before first use, locked by table name.

What belongs here: how to connect and lock. What does not: the server itself (`resources.postgres`), and SQL on
any one table.
"""

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any

import psycopg
from psycopg import sql

from tracker_pipeline.domain.schemas import Table
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.resources.postgres import connection_parameters, database_url
from tracker_pipeline.storage import migrations

_CONNECT_SECONDS = 10
_PERMANENT_STATES = ("28", "3D")  # SQLSTATE classes: authorization refused, database does not exist

Connection = psycopg.Connection[tuple[Any, ...]]


def open_connection(url: str) -> Connection:
    """Connect to `url` with the session in UTC.

    Raises:
        PermanentError: the server refuses the user or has no such database, or the URL is wrong.
        TransientError: the server cannot be reached.
    """
    try:
        connection = psycopg.connect(url, connect_timeout=_CONNECT_SECONDS)
        # Databases and roles may have settings of their own, in which times could not even be read.
        connection.execute(
            "SET timezone TO 'UTC'; SET datestyle TO 'ISO, YMD'; SET intervalstyle TO 'postgres'"
        )
        connection.commit()
    except psycopg.OperationalError as error:
        refused = any(text in str(error) for text in ("authentication failed", "does not exist"))
        kind = (
            PermanentError if refused or (error.sqlstate or "")[:2] in _PERMANENT_STATES else TransientError
        )
        raise kind(
            f"cannot connect to the database {without_secrets(url)}: {_reason(error)};"
            " check TRACKER_DATABASE_URL, or unset it to use the embedded server"
        ) from None
    except psycopg.ProgrammingError:
        raise PermanentError("TRACKER_DATABASE_URL has a parameter that Postgres does not know") from None
    return connection


def without_secrets(url: str) -> str:
    """Host and database of a libpq URL, without user, password and parameters."""
    parts = connection_parameters(url)
    host = parts.get("host", "")
    host = "(local socket)" if not host or host.startswith("/") else host
    port = f":{parts['port']}" if "port" in parts else ""
    return f"{host}{port}/{parts.get('dbname', '')}"


def _reason(error: psycopg.Error) -> str:
    words = " ".join(str(error).split())
    return words.rsplit("failed: ", 1)[-1].removeprefix("FATAL: ").strip() or type(error).__name__


@cache
def ready_url() -> str:
    """The libpq URL of the database, once every migration is applied to it."""
    url = database_url()
    with open_connection(url) as connection:
        try:
            migrations.apply(connection)
        except psycopg.Error as error:
            raise PermanentError(
                f"the database {without_secrets(url)} could not be migrated: {_reason(error)};"
                " its role needs the right to create schemas"
            ) from error
    return url


@contextmanager
def connect() -> Iterator[Connection]:
    """A connection to the migrated database; commits when the block ends well, rolls back when it does not."""
    with open_connection(ready_url()) as connection:
        yield connection


class _ArrowDriver:
    """What ADBC learned about one database, kept for this process.

    On connecting, the driver reads the whole of pg_type and pg_attribute: 0.1 s, and 1.7 s with 3,000 partitions.
    Clones of a connection share what it knows and open in 5 ms. All our types are built in, so it stays true.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._url: str | None = None
        self._connection: Any = None
        atexit.register(self.forget)

    def connect(self, url: str) -> Any:
        """A new connection, in a transaction."""
        # Where pandas is installed this imports it by way of pyarrow, a second: not when definitions load.
        import adbc_driver_postgresql.dbapi as adbc

        with self._lock:
            if url != self._url:
                self._close()
                self._connection, self._url = adbc.connect(url, autocommit=True), url
            return self._connection.adbc_clone()

    def forget(self) -> None:
        """Close the connection that is kept."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        kept, self._connection, self._url = self._connection, None, None
        if kept is not None:
            kept.close()


_arrow_driver = _ArrowDriver()


def open_arrow_connection() -> Any:
    """An ADBC connection to the migrated database, for results as Arrow, in a transaction."""
    return _arrow_driver.connect(ready_url())


@contextmanager
def arrow_connect() -> Iterator[Any]:
    """The same, rolled back and closed when the block ends."""
    with open_arrow_connection() as connection:
        yield connection


def has_rows(connection: Connection, table: Table, start: datetime, end: datetime) -> bool:
    """Whether a table has hot rows in [start, end) or archived ones on a day of it."""
    found = connection.execute(
        sql.SQL(
            "SELECT EXISTS (SELECT FROM {0} WHERE {1} >= %(start)s AND {1} < %(end)s) OR EXISTS (SELECT FROM"
            " archive.batches WHERE table_name = %(table)s AND state = 'live'"
            " AND max_ts >= %(start)s AND min_ts < %(end)s)"
        ).format(identifier(table), sql.Identifier(table.time_column or "")),
        {"start": start, "end": end, "table": table.name},
    ).fetchone()
    return bool(found and found[0])


def lock_table(connection: Connection, table: Table) -> None:
    """Wait to be the one writer of `table` until the transaction ends.

    Every entry point that writes takes this lock, the archive included, so that what one has read of the table
    still holds when it writes.
    """
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"tracker:{table.name}"])


def hold_back_readers(connection: Connection, name: str) -> None:
    """Let snapshots that begin from now on wait for the end of this transaction, which attaches a partition.

    Postgres makes a commit visible a moment before it tells other sessions of the new partition. A snapshot taken in
    that moment would see all of the transaction but the rows of the partition: 1 in 2,000 beside a busy writer.
    Locks are given back after the telling, so `storage.snapshots` waits for this one once it has its snapshot.
    """
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [attaching_lock(name)])


def attaching_lock(name: str) -> str:
    """Name of the lock that is held from before a partition of a table is attached until that is committed."""
    return f"attaching:{name}"


def identifier(table: Table) -> sql.Identifier:
    """The table's qualified name, quoted."""
    return sql.Identifier(table.schema, table.table)


def names(columns: tuple[str, ...] | list[str], prefix: str | None = None) -> sql.Composed:
    """Column names, quoted and separated by commas."""
    parts = [sql.Identifier(prefix, c) if prefix else sql.Identifier(c) for c in columns]
    return sql.SQL(", ").join(parts)
