"""Fixtures: a real Postgres server for the session, an own database and lake for each test, the real data."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tracker_pipeline import settings
from tracker_pipeline.resources.postgres import EmbeddedPostgres
from tracker_pipeline.storage import database, lake_store
from tracker_pipeline.storage.archive_policy import policies_of
from tracker_pipeline_tests.stores import create_bucket, serve_s3

_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Give the session a folder of its own.

    Pytest's usual one is closed to other users whenever another session starts, and with it the way to the data of a
    server that root runs as another user.
    """
    if config.option.basetemp is None:
        config.option.basetemp = tempfile.mkdtemp(prefix="tracker-tests-")
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that hold slow tests, so that no worker ends with a minute that the others wait for."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def forget_settings() -> None:
    """Make the next look at settings, configuration and database a fresh one."""
    for cached in (
        settings.get_settings,
        settings.get_config,
        policies_of,
        database.ready_url,
        lake_store.store_at,
    ):
        cached.cache_clear()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No test sees the environment of the person who runs it, nor writes outside its own folder."""
    for name in [name for name in os.environ if name.startswith(("TRACKER_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRACKER_HOME", str(tmp_path / "home"))
    forget_settings()
    yield
    forget_settings()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real exchange and chain data beside the checkout."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("the folder of real data is not beside this checkout")
    return _SHARED_DATA


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server of this test session."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server
    server.stop_if_unused()


@pytest.fixture(scope="session")
def template_database(postgres_server: EmbeddedPostgres) -> str:
    """A migrated database that others are copied from: 0.1 s instead of 0.5 s a test."""
    from tracker_pipeline.storage import migrations

    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE template_of_tests")
    url = postgres_server.url.replace("/tracker?", "/template_of_tests?")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKER_SETTING", "sandbox")
        with database.open_connection(url) as connection:
            migrations.apply(connection)
    return "template_of_tests"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server that speaks HTTP."""
    yield from serve_s3()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An own bucket as the lake."""
    name = f"lake-{os.urandom(6).hex()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    create_bucket(s3_server, name)
    monkeypatch.setenv("TRACKER_LAKE_URI", f"s3://{name}/prod")
    forget_settings()
    return name


@pytest.fixture(params=["folder", "s3"])
def each_store(request: pytest.FixtureRequest) -> str:
    """The test runs once with the lake in a folder and once with it in a bucket."""
    if request.param == "s3":
        request.getfixturevalue("bucket")
    return request.param


@pytest.fixture
def empty_database(postgres_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An own database without any table, as TRACKER_DATABASE_URL."""
    yield from _own_database(postgres_server, monkeypatch, "template1")


@pytest.fixture
def own_database(
    postgres_server: EmbeddedPostgres, template_database: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """An own migrated database, as TRACKER_DATABASE_URL, and an own lake."""
    yield from _own_database(postgres_server, monkeypatch, template_database)


def _own_database(server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, template: str) -> Iterator[str]:
    name = f"test_{os.urandom(6).hex()}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")  # type: ignore[arg-type]
    url = server.url.replace("/tracker?", f"/{name}?")
    monkeypatch.setenv("TRACKER_DATABASE_URL", url)
    forget_settings()
    yield url
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]
