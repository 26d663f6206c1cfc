"""Where Dagster keeps its own state: schema `dagster` of our database, and a folder of our state folder.

`dagster.yaml` names these classes. They find the database the way everything else does, so that every Dagster
program works in the project folder with no environment set.

What belongs here: the three storages of an instance. What does not: our own tables.
"""

import os
from collections.abc import Mapping
from typing import Any, Final

from dagster import Field
from dagster._config.config_schema import UserConfigSchema
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres.storage import DagsterPostgresStorage
from sqlalchemy import URL, create_engine

from tracker_pipeline.resources.postgres import connection_parameters
from tracker_pipeline.settings import get_settings
from tracker_pipeline.storage.database import ready_url

_NO_OPTIONS: Mapping[str, Field] = {}
# Materializations of a run over a range are written so many at once: half the time of one by one.
_EVENTS_AT_ONCE: Final = "100"
# Each event is two transactions, 600 in an hourly run: waiting for the disk after each takes longer than they do. A
# server that loses power may forget the last events of a run, never a row of ours; what has no record is made again.
_NO_WAIT: Final = "-csynchronous_commit=off"
# Of one process. A thread needs two only while it writes an event, so those who hold one do not block each other.
_MOST_AT_ONCE: Final = 10
# A connection that has rested longer may have been forgotten by something between us and the server.
_MOST_RESTED_SECONDS: Final = 300


class TrackerStorage(DagsterPostgresStorage):
    """Runs, events and schedules in the schema `dagster`, over one connection that rests between operations.

    Left alone each storage opens a connection for every operation: 800 in an hourly run of the market chain, a third
    of its time. What is needed at once beyond the one is opened and closed again, as before, up to ten in a process;
    who finds none free waits. The web interface makes pools of its own, which an option of its command bounds.
    """

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """It has no options: settings decide."""
        return _NO_OPTIONS

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "TrackerStorage":
        """Called by Dagster with the block of `dagster.yaml`."""
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", _EVENTS_AT_ONCE)
        url = instance_url()
        storage = cls(postgres_url=url, inst_data=inst_data)
        # Asked whether it still stands before each use, so that a restart of the server is no failure of a run.
        engine = create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            pool_size=1,
            max_overflow=_MOST_AT_ONCE - 1,
            pool_pre_ping=True,
            pool_recycle=_MOST_RESTED_SECONDS,
        )
        for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
            part._engine = engine  # type: ignore[union-attr]
        return storage


class TrackerArtifactStorage(LocalArtifactStorage):
    """Files that Dagster keeps beside its database."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """It has no options: settings decide."""
        return _NO_OPTIONS

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "TrackerArtifactStorage":
        """Called by Dagster with the block of `dagster.yaml`."""
        return cls(base_dir=_folder("artifacts"), inst_data=inst_data)


class TrackerComputeLogManager(LocalComputeLogManager):
    """What steps print."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """It has no options: settings decide."""
        return _NO_OPTIONS

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "TrackerComputeLogManager":
        """Called by Dagster with the block of `dagster.yaml`."""
        return cls(base_dir=_folder("compute_logs"), inst_data=inst_data)


def instance_url() -> str:
    """The SQLAlchemy URL of Dagster's tables.

    The driver is psycopg 2 by name: SQLAlchemy 2.1 would choose psycopg 3, which rejects the NOTIFY statement
    that dagster-postgres sends with each event.
    """
    parts = connection_parameters(ready_url())
    own = ("host", "port", "user", "password", "dbname", "options")
    query = {name: value for name, value in parts.items() if name not in own}
    host = parts.get("host")
    if host and host.startswith("/"):
        query["host"], host = host, None
    query["options"] = f"{parts.get('options', '')} -csearch_path=dagster -ctimezone=UTC {_NO_WAIT}".strip()
    url = URL.create(
        "postgresql+psycopg2",
        username=parts.get("user"),
        password=parts.get("password"),
        host=host,
        port=int(parts["port"]) if "port" in parts else None,
        database=parts.get("dbname"),
        query=query,
    )
    return url.render_as_string(hide_password=False)


def _folder(name: str) -> str:
    folder = get_settings().state_folder / "dagster" / name
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)
