"""The embedded server is shared, stops with its last user, and survives being killed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psycopg
import pytest

from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.resources.postgres import EmbeddedPostgres, database_url
from tracker_pipeline.storage.database import open_connection, ready_url
from tracker_pipeline_tests.conftest import forget_settings

USE = textwrap.dedent(
    """
    import sys
    from tracker_pipeline.storage.database import connect
    with connect() as c:
        c.execute("CREATE TABLE IF NOT EXISTS market.kept (a int)")
        c.execute("INSERT INTO market.kept VALUES (1)")
    print("ready", flush=True)
    sys.stdin.readline()
    """
)


def start_user(home: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", USE],
        env={**os.environ, "TRACKER_HOME": str(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process: subprocess.Popen) -> None:
    process.communicate("\n", timeout=60)


def postmaster(home: Path) -> int | None:
    path = home / "postgres" / "postmaster.pid"
    return int(path.read_text().splitlines()[0]) if path.exists() else None


@pytest.mark.slow
def test_several_processes_share_one_server_that_ends_with_the_last(tmp_path):
    first, second = start_user(tmp_path), start_user(tmp_path)
    server = postmaster(tmp_path)
    finish(first)
    assert postmaster(tmp_path) == server
    finish(second)
    assert postmaster(tmp_path) is None


@pytest.mark.slow
def test_a_server_that_was_killed_recovers_at_the_next_start(tmp_path):
    user = start_user(tmp_path)
    os.kill(postmaster(tmp_path), signal.SIGKILL)
    user.kill()
    user.wait()
    again = start_user(tmp_path)
    with psycopg.connect(EmbeddedPostgres(tmp_path).url) as connection:
        assert connection.execute("SELECT count(*) FROM market.kept").fetchone() == (2,)
    finish(again)
    assert postmaster(tmp_path) is None


@pytest.mark.slow
def test_a_killed_user_does_not_keep_the_server_up(tmp_path):
    killed, other = start_user(tmp_path), start_user(tmp_path)
    killed.kill()
    killed.wait()
    finish(other)
    assert postmaster(tmp_path) is None


@pytest.mark.slow
def test_a_program_of_someone_else_keeps_the_server_up(tmp_path):
    user = start_user(tmp_path)
    with psycopg.connect(EmbeddedPostgres(tmp_path).url) as connection:
        finish(user)
        assert connection.execute("SELECT 1").fetchone() == (1,)
    finish(start_user(tmp_path))
    assert postmaster(tmp_path) is None


@pytest.mark.slow
def test_a_state_folder_with_a_long_path_works(tmp_path):
    home = tmp_path / ("long" * 30)
    server = EmbeddedPostgres(home)
    server.start()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SHOW timezone").fetchone() == ("UTC",)
    server.stop_if_unused()
    deadline = time.monotonic() + 10
    while postmaster(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert postmaster(home) is None


@pytest.mark.parametrize("url", ["mysql://localhost/x", "tracker", "sqlite:///x.db"])
def test_a_url_that_is_not_of_postgres_is_refused(monkeypatch, url):
    monkeypatch.setenv("TRACKER_DATABASE_URL", url)
    forget_settings()
    with pytest.raises(PermanentError, match="TRACKER_DATABASE_URL is not a Postgres URL"):
        database_url()


def test_any_driver_in_the_url_is_accepted(monkeypatch):
    monkeypatch.setenv("TRACKER_DATABASE_URL", "postgresql+psycopg://me@host/db")
    forget_settings()
    assert database_url() == "postgresql://me@host/db"


def test_a_server_that_is_away_is_a_transient_failure_that_shows_no_password():
    with pytest.raises(TransientError) as failure:
        open_connection("postgresql://me:hush-hush@127.0.0.1:1/db")
    assert "cannot connect to the database 127.0.0.1:1/db" in str(failure.value)
    assert "hush-hush" not in str(failure.value)


def test_a_database_that_does_not_exist_is_a_permanent_failure(postgres_server, monkeypatch):
    monkeypatch.setenv("TRACKER_DATABASE_URL", postgres_server.url.replace("/tracker?", "/nowhere?"))
    forget_settings()
    with pytest.raises(PermanentError, match='database "nowhere" does not exist'):
        ready_url()
