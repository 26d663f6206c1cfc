"""Reads of the database as of one moment, as Arrow: its connections, and the transaction that makes the moment.

What belongs here: how a consistent read begins, ends and fails. What does not: what is read (`spanning`, `query`),
few rows by one message (`round_trip`).
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Final

import polars as pl
from psycopg import sql

from tracker_pipeline.storage.database import attaching_lock, open_arrow_connection
from tracker_pipeline.storage.resting_connections import RestingConnections, said_plainly

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

    def read_few(self, statement: str) -> pl.DataFrame:
        """What `read` returns, where the messages cost more than the rows; Ctrl-C waits for its end.

        Preparing is left out, and COPY, which takes 0.1 ms more for no row.
        """
        with said_plainly():
            asked = self._cursor.adbc_statement
            asked.set_options(**{_USE_COPY: "false"})
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
    connection, cursor = _connections.begin(lambda one: _begun(one, "; ".join(beginning(*tables))))
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
def beginning(*tables: tuple[str, str]) -> tuple[str, ...]:
    """The transaction, its locks and the wait for partitions, in this order. The wait is what takes the snapshot."""
    if not tables:
        return (_BEGIN,)
    names = sql.SQL(", ").join(sql.SQL("ONLY {}").format(sql.Identifier(*table)) for table in tables)
    locks = (sql.Literal(attaching_lock(".".join(table))).as_string(None) for table in tables)
    return (
        _BEGIN,
        f"LOCK TABLE {names.as_string(None)} IN ACCESS SHARE MODE",
        *(_WAIT_FOR_LOCK.format(lock) for lock in locks),
    )


def _send(cursor: Any, statements: str) -> None:
    """Run statements without an answer, all in one message; `execute` takes three for each."""
    cursor.adbc_statement.set_sql_query(statements)
    cursor.adbc_statement.execute_update()


def _open() -> Any:
    connection = open_arrow_connection()
    connection.adbc_connection.set_autocommit(True)
    with connection.cursor() as cursor:
        for setting in _EXACT_TEXT:
            cursor.execute(setting)
    return connection


def _begun(connection: Any, beginning: str) -> Any:
    """A cursor in a transaction that began so."""
    cursor = connection.cursor()
    try:
        _send(cursor, beginning)
    except BaseException:
        cursor.close()
        raise
    return cursor


_connections = RestingConnections(_open)
