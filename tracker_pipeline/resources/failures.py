"""How a classified failure reaches Dagster: permanent ones are not retried, transient ones are.

What belongs here: the translation. What does not: the classification (each client does its own).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.settings import ConfigurationError

# Three tries, as every client makes at its own edge as well: this one is for what outlives those, such as a
# restart of the database.
RETRIES = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL)


@contextmanager
def classified() -> Iterator[None]:
    """Turn a permanent failure into one that Dagster does not retry; everything else passes as it is."""
    try:
        yield
    except (PermanentError, ConfigurationError) as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
