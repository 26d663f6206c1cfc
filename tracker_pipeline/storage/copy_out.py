"""The bytes of `COPY … TO STDOUT (FORMAT binary)`, as they come off the connection.

libpq makes a copy of each row and its drivers an object of it, which takes longer than the server needs for the row.
So the messages are read straight from the socket while the connection rests otherwise, many at a time. An encrypted
connection has its rows from libpq, put into the same messages.

What belongs here: the messages. What does not: what is in a row (`row_batches`).
"""

import os
import select
import struct
import time
from collections.abc import Iterator
from typing import Final

import numpy as np
import psycopg

from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.storage.database import Connection

# About what a socket holds, and what stays in the cache of a core until it is taken apart.
_BUFFER_BYTES: Final = 1 << 18
# The server sends 8 kB at a time. Less than this is not worth waking for: it goes on meanwhile.
_FEW_BYTES: Final = 1 << 16
_PAUSE_SECONDS: Final = 0.0002
_HEAD: Final = 5
_ROW, _ERROR, _READY = b"d"[0], b"E"[0], b"Z"[0]


class CopyOut:
    """The answer to one COPY. A connection that was not read to its end is of no use any more: close it.

    Args:
        connection: in a transaction.
        statement: `COPY … TO STDOUT (FORMAT binary)`.

    Attributes:
        data: bytes of messages, of which those in [begin, end) are to be read.
        is_read: whether it was read to its end.
    """

    def __init__(self, connection: Connection, statement: str) -> None:
        self.data = np.empty(_BUFFER_BYTES, np.uint8)
        self.begin = self.end = 0
        self.is_read = False
        self._descriptor = connection.fileno()
        self._messages: Iterator[bytes] | None = None
        if _is_plain(connection):
            question = statement.encode() + b"\0"
            self._send(b"Q" + struct.pack("!i", len(question) + 4) + question)
        else:
            self._messages = _messages_of_libpq(connection, statement)

    def more(self) -> bool:
        """Read on until there is a whole row at `begin`; False at the end.

        Raises:
            psycopg.Error: the server refused; of the class that says why.
            TransientError: the connection broke off.
        """
        while True:
            size = self._whole()
            if not size:
                self._receive()
                continue
            kind = self.data[self.begin]
            if kind == _ROW:
                return True
            message = self.data[self.begin + _HEAD : self.begin + size].tobytes()
            self.begin += size
            if kind == _READY:
                self.is_read = True
                return False
            if kind == _ERROR:
                raise _error_of(message)

    def _whole(self) -> int:
        """Bytes of the message at `begin`, 0 where some are still to come."""
        there = self.end - self.begin
        if there < _HEAD:
            return 0
        size = 1 + int.from_bytes(self.data[self.begin + 1 : self.begin + _HEAD].tobytes(), "big")
        if size > len(self.data):
            larger = np.empty(size + _BUFFER_BYTES, np.uint8)
            larger[:there] = self.data[self.begin : self.end]
            self.data, self.begin, self.end = larger, 0, there
        return size if size <= there else 0

    def _receive(self) -> None:
        there = self.end - self.begin
        if self.begin:
            self.data[:there] = self.data[self.begin : self.end].copy()
            self.begin, self.end = 0, there
        if self._messages is None:
            self._read()
        else:
            self._take(self._messages)

    def _read(self) -> None:
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLIN)
        waiting.poll()
        room, before = self.data.data, self.end
        while self.end < len(room):
            try:
                read = os.readv(self._descriptor, [room[self.end :]])
            except BlockingIOError:
                return
            except OSError as error:
                raise TransientError(f"reading the rows broke off: {error.strerror}") from error
            if not read:
                raise TransientError("reading the rows broke off: the server closed the connection")
            self.end += read
            if self.end - before < _FEW_BYTES:
                time.sleep(_PAUSE_SECONDS)

    def _take(self, messages: Iterator[bytes]) -> None:
        for message in messages:
            size = len(message)
            if self.end + size > len(self.data):
                larger = np.empty(self.end + size + _BUFFER_BYTES, np.uint8)
                larger[: self.end] = self.data[: self.end]
                self.data = larger
            self.data[self.end : self.end + size] = np.frombuffer(message, np.uint8)
            self.end += size
            if self.end >= _FEW_BYTES:
                return

    def _send(self, message: bytes) -> None:
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLOUT)
        while message:
            waiting.poll()
            try:
                message = message[os.write(self._descriptor, message) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise TransientError(f"reading the rows broke off: {error.strerror}") from error


def _is_plain(connection: Connection) -> bool:
    return not (connection.pgconn.ssl_in_use or connection.pgconn.used_gssapi)


def _messages_of_libpq(connection: Connection, statement: str) -> Iterator[bytes]:
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        for row in copy:
            yield b"d" + struct.pack("!i", len(row) + 4) + bytes(row)
    yield b"Z\0\0\0\5T"


def _error_of(message: bytes) -> psycopg.Error:
    """The error of a message of pairs: a letter that says what, and its text."""
    said = {part[:1]: part[1:].decode(errors="replace") for part in message.split(b"\0") if part}
    try:
        kind = psycopg.errors.lookup(said.get(b"C", ""))
    except KeyError:
        kind = psycopg.OperationalError
    return kind(said.get(b"M", "unknown"))
