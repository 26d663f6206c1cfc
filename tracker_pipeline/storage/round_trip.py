"""Few rows as of one moment, by one message to the server and one back.

ADBC takes a message for the beginning, two or three for each read and one for the end; each takes as long as a
hundred rows. Libpq's pipeline sends all of them at once, and the server remembers how it answers each: planning would
take a tenth of the time that reading a symbol's day takes.

What belongs here: the exchange. What does not: large results, which come as Arrow (`snapshots`), what is asked
(`narrow`).
"""

from collections.abc import Callable, Generator, Sequence
from typing import Final

import psycopg
from psycopg import pq
from psycopg.waiting import Ready, Wait

from tracker_pipeline.storage.database import open_connection, ready_url
from tracker_pipeline.storage.resting_connections import RestingConnections
from tracker_pipeline.storage.snapshots import beginning

Rows = list[tuple[bytes | None, ...]]
Statement = tuple[str, Sequence[str]]
"""SQL, and the text of each of its parameters."""

_BINARY: Final = 1
_MOST_PREPARED: Final = 100
_SETTINGS: Final = (
    "SET client_encoding = 'UTF8'",
    # A plan for any symbol and time leaves out the partitions that do not have it when it runs.
    "SET plan_cache_mode = force_generic_plan",
)


def ask(
    table: tuple[str, str], *statements: Statement, told: Callable[[Rows], None] | None = None
) -> list[Rows]:
    """The rows of each statement, values in the binary form of their types, in a `snapshots.snapshot` of the table.

    Args:
        table: schema and name.
        statements: what to ask. They are remembered by the server, so what varies belongs in their parameters.
        told: given the rows of the first statement while the server is still at the others. It must not wait for
            other programs, since what it keeps waiting are the locks of the transaction. What it raises is raised
            once all is answered.

    Raises:
        PermanentError: a statement names what does not exist or may not be read.
        TransientError: the database broke off.
    """
    opening = beginning(table)
    sent: list[Statement] = [*((one, ()) for one in opening), *statements, ("COMMIT", ())]
    failed: list[Exception] = []

    def tell(number: int, result: pq.abc.PGresult) -> None:
        if told is not None and number == len(opening):
            failed.clear()  # of a connection that the server had ended
            try:
                told(_rows(result))
            except Exception as error:
                failed.append(error)

    line, results = _lines.begin(lambda one: one.exchange(sent, len(opening), tell))
    _lines.give_back(line)
    if failed:
        raise failed[0]
    return [_rows(one) for one in results[len(opening) : -1]]


def _rows(result: pq.abc.PGresult) -> Rows:
    columns = range(result.nfields)
    return [tuple(result.get_value(row, column) for column in columns) for row in range(result.ntuples)]


class _Line:
    """A connection in pipeline mode, and what its server remembers."""

    def __init__(self) -> None:
        self._connection = open_connection(ready_url())
        self._connection.autocommit = True
        for setting in _SETTINGS:
            self._connection.execute(setting)
        self._server = self._connection.pgconn
        self._server.enter_pipeline_mode()
        self._prepared: dict[str, bytes] = {}

    def close(self) -> None:
        """End it."""
        self._connection.close()

    def exchange(
        self, statements: Sequence[Statement], soon: int, got: Callable[[int, pq.abc.PGresult], None]
    ) -> list[pq.abc.PGresult]:
        """Send all, and wait for all answers; that of number `soon` comes before the server is at the next."""
        self._prepare({text for text, _ in statements})
        for number, (text, parameters) in enumerate(statements):
            values = [one.encode() for one in parameters]
            self._server.send_query_prepared(self._prepared[text], values, result_format=_BINARY)
            if number == soon:
                self._server.send_flush_request()
        return self._answers(got)

    def _prepare(self, statements: set[str]) -> None:
        """Before the transaction, whose isolation cannot be told any more once a statement in it is looked at."""
        if not (new := statements - self._prepared.keys()):
            return
        if len(self._prepared) + len(new) > _MOST_PREPARED:
            self._server.send_query_params(b"DEALLOCATE ALL", None)
            self._prepared, new = {}, statements
        for text in sorted(new):
            name = f"s{len(self._prepared)}".encode()
            self._server.send_prepare(name, text.encode())
            self._prepared[text] = name
        self._answers(lambda number, result: None)

    def _answers(self, got: Callable[[int, pq.abc.PGresult], None]) -> list[pq.abc.PGresult]:
        self._server.pipeline_sync()
        return self._connection.wait(_answers(self._server, got))


def _answers(
    server: pq.abc.PGconn, got: Callable[[int, pq.abc.PGresult], None]
) -> Generator[Wait, Ready | int, list[pq.abc.PGresult]]:
    """What to wait for, until all that was sent is answered.

    Raises:
        psycopg.Error: a statement failed; the connection is of no more use.
    """
    while server.flush():
        yield Wait.RW
        server.consume_input()
    results: list[pq.abc.PGresult] = []
    while True:
        while server.is_busy():
            yield Wait.R
            server.consume_input()
        result = server.get_result()
        if result is None:  # stands between the answers of two statements
            continue
        if result.status == pq.ExecStatus.PIPELINE_SYNC:
            return results
        if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
            raise psycopg.errors.error_from_result(result)
        got(len(results), result)
        results.append(result)


_lines = RestingConnections(_Line)
