"""A connection that one run keeps for all its days.

What belongs here: keeping and replacing it. What does not: connections that rest between runs
(`resting_connections`).
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

import psycopg

from tracker_pipeline.storage.database import Connection, open_connection, ready_url


class KeptConnection:
    """Opened when it is first wanted, closed with the block, and opened anew where a failure ended the last use.

    To open one and to let its session read the catalogue takes 8 ms of both sides; a day of 200,000 rows takes 120.
    """

    def __init__(self) -> None:
        self._connection: Connection | None = None

    def __enter__(self) -> "KeptConnection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def lent(self) -> Iterator[Connection]:
        """The connection, which commits when the block ends well and is closed when it does not."""
        if self._connection is None:
            self._connection = open_connection(ready_url())
        try:
            yield self._connection
            if self._connection.closed:  # lost, and the block could do without it
                self._connection = None
            else:
                self._connection.commit()
                self._connection.isolation_level = None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close it, if it is open."""
        kept, self._connection = self._connection, None
        if kept is not None:
            with suppress(psycopg.Error):
                kept.close()
