"""Where the project folder is, and the Dagster instance that every command and the UI share."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

PROJECT = Path(__file__).resolve().parents[2]
# Dagster prints every event at the default level; a person at the terminal sees progress and errors instead.
QUIET: Mapping[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@contextmanager
def shared_instance() -> Iterator[dg.DagsterInstance]:
    """The instance of `dagster.yaml`, so that the UI shows what a command did."""
    with dg.DagsterInstance.from_config(str(PROJECT)) as instance:
        yield instance
