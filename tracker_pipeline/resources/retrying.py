"""How often and after what waits a request is tried again: exponential backoff with full jitter.

What belongs here: the policy of every client of a venue. What does not: which failures pass (each client says so by
raising `TransientError`) and pauses that a host asks for (`host_state.py`).
"""

import random
from collections.abc import Iterator
from typing import Final

import stamina

from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.resources.host_state import LeftAloneError

_TRIES: Final = 3
_FIRST_WAIT_SECONDS: Final = 1.0
_LONGEST_WAIT_SECONDS: Final = 10.0


def attempts() -> Iterator[stamina.Attempt]:
    """Attempts at one request, to be looped over; each is a context that swallows a failure worth another try.

    The wait before the n-th further try is uniform between 0 and 1 s doubled n - 1 times, so that many who failed
    together do not come back together.
    """
    failures = 0

    def wait(error: Exception) -> bool | float:
        nonlocal failures
        if not isinstance(error, TransientError) or isinstance(error, LeftAloneError):
            return False
        failures += 1
        longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2 ** (failures - 1))
        return random.uniform(0.0, longest)  # noqa: S311  # no secret

    yield from stamina.retry_context(on=wait, attempts=_TRIES, timeout=None)
