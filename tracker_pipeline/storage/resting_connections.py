"""Connections that rest between reads, outside of any transaction, for whoever reads next.

What belongs here: keeping, replacing and ending them, and what a failure of one means. What does not: how one is
opened and what it is asked (`snapshots`, `round_trip`).
"""

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Generic, Protocol, TypeVar

import polars as pl
import psycopg

from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.storage.database import ready_url

# A connection takes 5 ms to open, a read of one symbol's day 2 ms. More than these are opened and closed again.
_MOST_IDLE: Final = 4
_PERMANENT: Final = {
    "42P01": "a table that is read does not exist",
    "42703": "a column that is read does not exist",
    "42501": "the database role may not read a table",
}

_REFUSALS: Final = (
    "22",
    "42",
)  # classes of SQLSTATE: a value or a statement that is wrong is so the next time too


class _Closable(Protocol):
    def close(self) -> object: ...


C = TypeVar("C", bound=_Closable)
R = TypeVar("R")


@contextmanager
def said_plainly() -> Iterator[None]:
    """Turn the drivers' failures into ours.

    Raises:
        PermanentError: a statement names what does not exist or may not be read, or is wrong.
        TransientError: the database broke off.
    """
    import adbc_driver_manager as driver

    try:
        yield
    except (driver.Error, psycopg.Error, pl.exceptions.ComputeError) as error:
        text = " ".join(str(error).split())[:300]
        state = getattr(error, "sqlstate", None) or ""
        if state in _PERMANENT or state[:2] in _REFUSALS:
            raise PermanentError(
                f"{_PERMANENT.get(state, 'the database refused to read')}: {text}"
            ) from error
        raise TransientError(f"reading the database broke off: {text}") from error


class RestingConnections(Generic[C]):
    """The connections of one kind.

    Args:
        open_one: opens one to the migrated database.
    """

    def __init__(self, open_one: Callable[[], C]) -> None:
        self._open_one = open_one
        self._lock = threading.Lock()
        self._of: tuple[str, int] | None = None
        self._idle: list[C] = []
        atexit.register(self.close)

    def begin(self, act: Callable[[C], R]) -> tuple[C, R]:
        """A connection on which `act` was done, and what that gave.

        It is done again on another one where the connection rested and the server had ended it since.
        """
        while (connection := self._pop()) is not None:
            try:
                return connection, act(connection)
            except Exception as error:
                with suppress(Exception):
                    connection.close()
                if _refuses(error):
                    with said_plainly():
                        raise
                self.close()  # the server was restarted, or ended it: so it did the others
            except BaseException:
                with suppress(Exception):
                    connection.close()
                raise
        with said_plainly():
            connection = self._open()
            try:
                return connection, act(connection)
            except BaseException:
                with suppress(Exception):
                    connection.close()
                raise

    def give_back(self, connection: C) -> None:
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

    def _pop(self) -> C | None:
        with self._lock:
            return self._idle.pop() if self._idle and self._of == _identity() else None

    def _open(self) -> C:
        with self._lock:
            if self._of != _identity():
                self._close()
                self._of = _identity()
        return self._open_one()

    def _close(self) -> None:
        resting, of = self._idle, self._of
        self._idle, self._of = [], None
        if of is not None and of[1] == os.getpid():  # a forked child must not end what its parent uses
            for connection in resting:
                with suppress(Exception):
                    connection.close()


def _identity() -> tuple[str, int]:
    return ready_url(), os.getpid()


def _refuses(error: Exception) -> bool:
    """Whether the server answered and lives on, so that another connection would fare no better."""
    state = getattr(error, "sqlstate", None) or "08"
    return not state.startswith(("08", "57P"))  # connection lost; server shut down or connection ended
