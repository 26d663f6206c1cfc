"""A TCP proxy in a process of its own that holds back what clients send: a slow line to a fast server.

Threads and blocking sockets, because with 2 MB requests an event loop that copies each part several times would be
what is measured.
"""

import multiprocessing
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

_READ = 2**20


@contextmanager
def slow_line(port: int, seconds: float) -> Iterator[str]:
    """Yield a URL that leads to the server on `port` of this machine, each request `seconds` later."""
    spawning = multiprocessing.get_context("spawn")
    here, there = spawning.Pipe()
    process = spawning.Process(target=_serve, args=(there, port, seconds), daemon=True)
    process.start()
    there.close()  # a child that dies is then noticed
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join(10)


def _serve(announce: Connection, port: int, seconds: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        announce.send(server.getsockname()[1])
        while True:
            client, _ = server.accept()
            node = socket.create_connection(("127.0.0.1", port))
            for end in (client, node):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if seconds:
                _start(_delayed, client, node, seconds)
            else:
                _start(_passed_on, client, node)
            _start(_passed_on, node, client)


def _start(work: object, *given: object) -> None:
    threading.Thread(target=work, args=given, daemon=True).start()  # type: ignore[arg-type]


def _passed_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_READ):
            target.sendall(data)
    _end(target)


def _delayed(source: socket.socket, target: socket.socket, seconds: float) -> None:
    """Pass bytes on, each `seconds` after it came, so that a long request is late once and not once a part."""
    waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def send() -> None:
        with suppress(OSError):
            while True:
                due, data = waiting.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    break
                target.sendall(data)
        _end(target)

    _start(send)
    data = b"more"
    while data:
        try:
            data = source.recv(_READ)
        except OSError:
            data = b""
        waiting.put((time.monotonic() + seconds, data))


def _end(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_WR)
