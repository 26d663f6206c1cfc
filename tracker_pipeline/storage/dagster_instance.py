"""Where Dagster keeps its own state: schema `dagster` of our database, and a folder of our state folder.

`dagster.yaml` names these classes. They find the database the way everything else does, so that every Dagster
program works in the project folder with no environment set.

What belongs here: the three storages of an instance. What does not: our own tables.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from dagster import Field
from dagster._config.config_schema import UserConfigSchema
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres.storage import DagsterPostgresStorage

from tracker_pipeline.settings import get_settings
from tracker_pipeline.storage.database import ready_url

_NO_OPTIONS: Mapping[str, Field] = {}


class TrackerStorage(DagsterPostgresStorage):
    """Runs, events and schedules in the schema `dagster`."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """It has no options: settings decide."""
        return _NO_OPTIONS

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "TrackerStorage":
        """Called by Dagster with the block of `dagster.yaml`."""
        return cls(postgres_url=instance_url(), inst_data=inst_data)


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
    url = ready_url().replace("postgresql://", "postgresql+psycopg2://", 1)
    options = quote("-csearch_path=dagster -ctimezone=UTC")
    return f"{url}{'&' if '?' in url else '?'}options={options}"


def _folder(name: str) -> str:
    folder = get_settings().state_folder / "dagster" / name
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)
