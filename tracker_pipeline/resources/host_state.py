"""What all processes of this machine know of one host: whose turn it is, whether it rests, whether it fails.

A few numbers in one file, changed under a kernel lock that takes 20 µs and that no crash leaves behind. A process
that is killed between its turn and its request wastes that turn and nothing else.

What belongs here: pacing, pauses and the breaker. What does not: what is a failure (each client says so).
"""

import fcntl
import os
import random
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tracker_pipeline.resources.errors import TransientError

FAILURES_TO_OPEN: Final = 5
OPEN_SECONDS: Final = 60.0
LONGEST_WAIT_SECONDS: Final = 120.0  # whoever would have to wait longer is sent away

_FIRST_PAUSE_SECONDS: Final = (
    0.25  # after a refusal that does not say for how long, doubled each time in a row
)
_LONGEST_PAUSE_SECONDS: Final = 60.0
_LONGEST_ASKED_SECONDS: Final = 86_400.0


class LeftAloneError(TransientError):
    """The host is not asked now: it failed too often, or wants to be left alone for long."""


@dataclass
class _State:
    """Times are epoch seconds."""

    turn: float = 0.0
    paused_until: float = 0.0
    refusals: float = 0.0
    failures: float = 0.0
    open_until: float = 0.0
    probing_until: float = 0.0


_FORMAT: Final = struct.Struct("6d")


class HostState:
    """One host as this machine's processes see it together.

    Args:
        name: of the host, for messages and for the file.
        folder: where the file is; without one the state is this object's own.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self._name = name
        if folder is None:
            descriptor, path = tempfile.mkstemp(prefix="tracker-host-")
            os.close(descriptor)
            self._path, self._is_own = Path(path), True
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._path, self._is_own = (
                folder / "".join(c if c.isalnum() or c in ".-" else "_" for c in name),
                False,
            )

    def __del__(self) -> None:
        if self._is_own:
            self._path.unlink(missing_ok=True)

    def admit(self) -> None:
        """Return when the host may be asked as far as its pauses and failures go.

        Raises:
            LeftAloneError: it has failed too often of late, or wants to be left alone for long.
        """
        while True:
            with self._changing() as state:
                now = time.time()
                self._refuse_if_open(state, now)
                wait = state.paused_until - now
            if wait <= 0:
                return
            if wait > LONGEST_WAIT_SECONDS:
                raise LeftAloneError(
                    f"{self._name} asked to be left alone until {_clock(now + wait)}; try again later"
                )
            time.sleep(wait)

    def take_turn(self, seconds: float) -> None:
        """Wait for this request's turn, which takes `seconds` of the host's time from all of us."""
        with self._changing() as state:
            now = time.time()
            turn = max(now, state.turn if state.turn < now + LONGEST_WAIT_SECONDS else now)
            state.turn = turn + seconds
        time.sleep(max(0.0, turn - now))

    def refused(self, retry_after: float | None) -> float:
        """The host asked to be asked less; everybody pauses.

        Args:
            retry_after: seconds, where it told them.

        Returns:
            Seconds that the pause lasts.
        """
        with self._changing() as state:
            if retry_after is None:
                longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**state.refusals)
                seconds = longest * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
            else:
                seconds = min(retry_after, _LONGEST_ASKED_SECONDS)
            state.refusals += 1
            state.paused_until = max(state.paused_until, time.time() + seconds)
            return seconds

    def pause(self, seconds: float) -> None:
        """Leave the host alone for a while because our share of requests is used up."""
        if seconds > 0:
            with self._changing() as state:
                state.paused_until = max(state.paused_until, time.time() + min(seconds, LONGEST_WAIT_SECONDS))

    def succeeded(self) -> None:
        """The host answered."""
        with self._changing() as state:
            state.refusals = state.failures = state.open_until = state.probing_until = 0.0

    def failed(self) -> None:
        """The host did not answer, or not with anything of use."""
        with self._changing() as state:
            state.failures += 1
            if state.failures >= FAILURES_TO_OPEN:
                state.open_until = time.time() + OPEN_SECONDS
                state.probing_until = 0.0

    def _refuse_if_open(self, state: _State, now: float) -> None:
        if state.failures < FAILURES_TO_OPEN:
            return
        resting_until = max(state.open_until, state.probing_until)
        if now < resting_until:
            raise LeftAloneError(
                f"{self._name} failed {state.failures:g} times in a row and is left alone until"
                f" {_clock(resting_until)}, then asked once; try again later"
            )
        state.probing_until = (
            now + OPEN_SECONDS
        )  # this caller probes; if it is killed, another may after that

    @contextmanager
    def _changing(self) -> Iterator[_State]:
        with self._path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            held = file.read(_FORMAT.size)
            state = _State(*_FORMAT.unpack(held)) if len(held) == _FORMAT.size else _State()
            before = astuple(state)
            try:
                yield state
            finally:
                if astuple(state) != before:
                    os.ftruncate(file.fileno(), 0)
                    file.write(_FORMAT.pack(*astuple(state)))


def _clock(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%H:%M:%S} UTC"
