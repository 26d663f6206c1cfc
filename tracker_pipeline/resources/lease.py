"""Shared use of a background process among any number of processes of ours.

Each user holds a shared lock on one file for as long as it lives. The kernel drops the lock when a process
ends, however it ends, so a `kill -9` leaves no stale user behind, as a list of process ids would.

What belongs here: who uses it. What does not: how it is started and stopped.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class Lease:
    """A count of users that survives crashes.

    Args:
        folder: where the two lock files live; must be on a local file system.
        name: what is shared.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._start_lock = folder / f"{name}.lock"
        self.users_file = folder / f"{name}.users"
        self._held: IO[str] | None = None

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Hold the right to start or stop the shared process."""
        self._start_lock.parent.mkdir(parents=True, exist_ok=True)
        with self._start_lock.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def join(self) -> None:
        """Become a user. Call while `deciding`."""
        if self._held is None:
            self._held = self.users_file.open("a")
            fcntl.flock(self._held, fcntl.LOCK_SH)

    def leave(self) -> bool:
        """Stop being a user and say whether nobody else is one. Call while `deciding`."""
        if self._held is None:
            return False
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            self._held.close()
            self._held = None
