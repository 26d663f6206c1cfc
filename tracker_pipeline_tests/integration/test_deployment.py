"""Every command of the compose file works as a plain process, wired as the file wires them; so does the CI script."""

import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from tracker_pipeline.resources.postgres import EmbeddedPostgres

PROJECT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
COMPOSE = yaml.safe_load((PROJECT / "deploy" / "compose.yaml").read_text())
RUN_SECONDS = 150


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def command_of(service: str, ports: dict[str, int]) -> list[str]:
    """The service's command with our ports and this machine's addresses."""
    words = [str(word) for word in COMPOSE["services"][service]["command"]]
    words = [str(ports.get(word, word)) for word in words]
    words = ["127.0.0.1" if word == "0.0.0.0" else word for word in words]
    return [str(BIN / words[0]), *words[1:]]


def wait_for(ask: Any, seconds: float = RUN_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := ask():
                return found
        except (httpx.HTTPError, KeyError, TypeError):
            pass
        time.sleep(0.5)
    raise AssertionError("not in time")


def test_each_service_is_restarted_and_waits_for_what_it_needs():
    services = COMPOSE["services"]
    assert set(services) == {"postgres", "migrate", "code", "webserver", "daemon", "health"}
    for name, service in services.items():
        assert service["restart"] == ("on-failure" if name == "migrate" else "unless-stopped")
    for name in ("webserver", "daemon"):
        assert services[name]["depends_on"] == {"code": {"condition": "service_healthy"}}
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)  # nobody meant the whole world


def test_the_image_holds_what_the_commands_need():
    lines = (PROJECT / "deploy" / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in shlex.split(line)[1:-1]]
    assert {"workspace.yaml", "dagster.yaml", "sql", "tracker_pipeline", "constraints.txt"} <= set(copied)
    assert all((PROJECT / name).exists() for name in copied)
    assert "USER tracker" in lines


@pytest.mark.slow
def test_the_commands_of_the_compose_file_run_as_plain_processes(tmp_path):
    code, web, health = free_ports(3)
    ports = {"4000": code, "3000": web, "3001": health}
    server = EmbeddedPostgres(tmp_path / "postgres")
    server.start()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE deployed")
    home = tmp_path / "home"
    environment = {
        **{
            name: value for name, value in os.environ.items() if not name.startswith(("TRACKER_", "DAGSTER_"))
        },
        "DAGSTER_HOME": str(PROJECT),
        "TRACKER_HOME": str(home),
        "TRACKER_DATABASE_URL": server.url.replace("/tracker?", "/deployed?"),
        "TRACKER_CODE_HOST": "127.0.0.1",
        "TRACKER_CODE_PORT": str(code),
    }
    started: list[subprocess.Popen[bytes]] = []

    def start(service: str) -> None:
        log = (tmp_path / f"{service}.log").open("wb")
        started.append(
            subprocess.Popen(command_of(service, ports), cwd=PROJECT, env=environment, stdout=log, stderr=log)
        )

    try:
        subprocess.run(command_of("migrate", ports), env=environment, cwd=PROJECT, check=True)
        start("code")
        check = [str(BIN / "dagster"), *COMPOSE["services"]["code"]["healthcheck"]["test"][2:]]
        check = [str(ports.get(word, word)) for word in check]
        wait_for(lambda: subprocess.run(check, capture_output=True, check=False).returncode == 0)
        for service in ("webserver", "daemon", "health"):
            start(service)
        url = f"http://127.0.0.1:{health}"
        wait_for(lambda: httpx.get(f"{url}/health/simple").text == "OK\n")
        query = {"query": "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }"}
        loaded = wait_for(
            lambda: httpx.post(f"http://127.0.0.1:{web}/graphql", json=query).json()["data"][
                "workspaceOrError"
            ]["locationEntries"]
        )
        assert loaded == [{"name": "tracker_pipeline", "loadStatus": "LOADED"}]
        wait_for(lambda: httpx.get(f"{url}/health").json()["dagster"] == "up")
        with psycopg.connect(environment["TRACKER_DATABASE_URL"]) as connection:
            used = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = 'deployed'"
            ).fetchone()
        assert used[0] <= 54  # the budget of docs/running_live.md
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(60)
        server.stop_if_unused()


def test_the_workflow_runs_the_script_that_this_projects_own_ci_runs():
    workflow = yaml.safe_load((PROJECT / "deploy" / "materialize.yaml").read_text())
    steps = [step["run"] for step in workflow["jobs"]["materialize"]["steps"] if "run" in step]
    assert steps == ["make install", "deploy/materialize.sh", ".venv/bin/tracker doctor"]
    assert steps[1] in (PROJECT / ".ci" / "run").read_text()
