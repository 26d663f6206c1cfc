"""A Dagster instance in the test's own database, as dagster.yaml makes it."""

from collections.abc import Iterator

import dagster as dg
import pytest

from tracker_pipeline.commands.project import shared_instance
from tracker_pipeline.storage.database import connect


@pytest.fixture
def own_instance(own_database: str) -> Iterator[dg.DagsterInstance]:
    """Dagster's tables in the same database as ours."""
    with connect() as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS dagster")
    with shared_instance() as instance:
        yield instance
