"""Reads of the database as of one moment, as Arrow: its connections, and the transaction that makes the moment.

What belongs here: how a consistent read begins, ends and fails. What does not: what is read (`spanning`, `query`).
"""

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Final

import polars as pl
from psycopg import sql

from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.storage.database import attaching_lock, open_arrow_connection, ready_url

# A connection takes 5 ms to open, a read of one symbol's day 2 ms. More than these are opened and closed again.
_MOST_IDLE: Final = 4
_BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WAIT_FOR_LOCK: Final = (
    "SELECT pg_advisory_lock_shared(lock), pg_advisory_unlock_shared(lock)"
    " FROM hashtextextended({}, 0) AS lock"
)
_USE_COPY: Final = "adbc.postgresql.use_copy"
# Text of times, floats and bytes must not depend on how a role or database is set up.
_EXACT_TEXT: Final = (
    "SET timezone = 'UTC'",
    "SET datestyle = 'ISO, YMD'",
    "SET intervalstyle = 'postgres'",
    "SET extra_float_digits = 1",
    "SET bytea_output = 'hex'",
)
_PERMANENT: Final = {
    "42P01": "a table that is read does not exist",
    "42703": "a column that is read does not exist",
    "42501": "the database role may not read a table",
}


class Snapshot:
    """The database as of one moment."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def read(self, statement: str) -> pl.DataFrame:
        """The rows of a SELECT. Constants are written out, so that the driver reads by COPY.

        Raises:
            PermanentError: the statement names what does not exist or may not be read.
            TransientError: the database broke off.
        """
        with said_plainly():
            self._cursor.adbc_statement.set_options(**{_USE_COPY: "true"})
            # The cursor itself leaves this out where the statement is the last one that it prepared.
            self._cursor.adbc_statement.set_sql_query(statement)
            self._cursor.execute(statement)
            return pl.DataFrame(self._cursor.fetch_arrow_table())

    def read_few(self, statement: str, *, by_copy: bool = False) -> pl.DataFrame:
        """What `read` returns, where the messages cost more than the rows; Ctrl-C waits for its end.

        Preparing is left out, and COPY unless asked for: it takes 0.1 ms more for no row, 0.3 ms less for 1,440.
        """
        with said_plainly():
            asked = self._cursor.adbc_statement
            asked.set_options(**{_USE_COPY: "true" if by_copy else "false"})
            asked.set_sql_query(statement)
            rows, _ = asked.execute_query()
            return pl.DataFrame(rows)


@contextmanager
def snapshot(*tables: tuple[str, str]) -> Iterator[Snapshot]:
    """One moment of the database, in which no partition of `tables` is dropped or half attached.

    A dropped partition is gone at once, for older snapshots too, whose manifest does not have its rows yet. So the
    tables are locked before there is a snapshot: a lock takes none, and who drops a partition waits for it. An
    attached one may be unknown to this session although the snapshot sees its transaction, until that has given back
    its locks. So the snapshot waits for who is attaching (`database.hold_back_readers`); a session then takes notice
    of what it was told when it first reads another table than these, such as the manifest.
    """
    with arrow_transaction(*sorted(set(tables))) as cursor:
        yield Snapshot(cursor)


@contextmanager
def arrow_transaction(*tables: tuple[str, str]) -> Iterator[Any]:
    """A cursor in a read-only transaction that has locked `tables`; without any it has no snapshot yet."""
    connection, cursor = _connections.take(_beginning(tables))
    try:
        with cursor:
            yield cursor
            with said_plainly():
                _send(cursor, "COMMIT")
    except BaseException:
        with suppress(Exception):  # it is broken, or in the middle of a read
            connection.close()
        raise
    _connections.give_back(connection)


@cache
def _beginning(tables: tuple[tuple[str, str], ...]) -> str:
    """The transaction, its locks and the wait for partitions in one message. The wait is what takes the snapshot."""
    if not tables:
        return _BEGIN
    names = sql.SQL(", ").join(sql.SQL("ONLY {}").format(sql.Identifier(*table)) for table in tables)
    locks = (sql.Literal(attaching_lock(".".join(table))).as_string(None) for table in tables)
    waits = "; ".join(_WAIT_FOR_LOCK.format(lock) for lock in locks)
    return f"{_BEGIN}; LOCK TABLE {names.as_string(None)} IN ACCESS SHARE MODE; {waits}"


def _send(cursor: Any, statements: str) -> None:
    """Run statements without an answer, all in one message; `execute` takes three for each."""
    cursor.adbc_statement.set_sql_query(statements)
    cursor.adbc_statement.execute_update()


@contextmanager
def said_plainly() -> Iterator[None]:
    """Turn the driver's failures into ours."""
    import adbc_driver_manager as driver

    try:
        yield
    except (driver.Error, pl.exceptions.ComputeError) as error:
        text = " ".join(str(error).split())[:300]
        if reason := _PERMANENT.get(getattr(error, "sqlstate", None) or ""):
            raise PermanentError(f"{reason}: {text}") from error
        raise TransientError(f"reading the database broke off: {text}") from error


class _Connections:
    """Connections that rest between reads, outside of any transaction."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: tuple[str, int] | None = None
        self._idle: list[Any] = []
        atexit.register(self.close)

    def take(self, beginning: str) -> tuple[Any, Any]:
        """A connection in a transaction that began so, and a cursor of it."""
        while (connection := self._pop()) is not None:
            try:
                return connection, _begun(connection, beginning)
            except Exception as error:
                with suppress(Exception):
                    connection.close()
                if _refuses(error):
                    with said_plainly():
                        raise
                self.close()  # the server was restarted, or ended it: so it did the others
        with said_plainly():
            connection = self._open()
            try:
                return connection, _begun(connection, beginning)
            except Exception:
                with suppress(Exception):
                    connection.close()
                raise

    def give_back(self, connection: Any) -> None:
        """Let a connection rest that has ended its transaction."""
        with self._lock:
            if len(self._idle) < _MOST_IDLE and self._of == _identity():
                self._idle.append(connection)
                return
        with suppress(Exception):
            connection.close()

    def close(self) -> None:
        """Close all that rest."""
        with self._lock:
            self._close()

    def _pop(self) -> Any:
        with self._lock:
            return self._idle.pop() if self._idle and self._of == _identity() else None

    def _open(self) -> Any:
        with self._lock:
            if self._of != _identity():
                self._close()
                self._of = _identity()
        connection = open_arrow_connection()
        connection.adbc_connection.set_autocommit(True)
        with connection.cursor() as cursor:
            for setting in _EXACT_TEXT:
                cursor.execute(setting)
        return connection

    def _close(self) -> None:
        resting, of = self._idle, self._of
        self._idle, self._of = [], None
        if of is not None and of[1] == os.getpid():  # a forked child must not end what its parent uses
            for connection in resting:
                with suppress(Exception):
                    connection.close()


def _identity() -> tuple[str, int]:
    return ready_url(), os.getpid()


def _begun(connection: Any, beginning: str) -> Any:
    """A cursor in a transaction that began so."""
    cursor = connection.cursor()
    try:
        _send(cursor, beginning)
    except BaseException:
        cursor.close()
        raise
    return cursor


def _refuses(error: Exception) -> bool:
    """Whether the server answered and lives on, so that another connection would fare no better."""
    state = getattr(error, "sqlstate", None) or "08"
    return not state.startswith(("08", "57P"))  # connection lost; server shut down or connection ended


_connections = _Connections()
close_idle = _connections.close
