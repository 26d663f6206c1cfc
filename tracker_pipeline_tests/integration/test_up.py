"""`tracker up` as a person uses it: it comes up, outlives a daemon that is killed, and leaves nothing behind."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from tracker_pipeline.resources.postgres import EmbeddedPostgres

TRACKER = Path(sys.executable).with_name("tracker")

_LAUNCH = """mutation($job: JobOrPipelineSelector!, $tags: [ExecutionTag!]) {
  launchPipelineExecution(executionParams: {selector: $job, mode: "default", executionMetadata: {tags: $tags}}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
_DAEMONS = "{ instance { daemonHealth { allDaemonStatuses { required healthy lastHeartbeatTime } } } }"
_SCHEDULES = """{ schedulesOrError(repositorySelector: {repositoryName: "__repository__",
  repositoryLocationName: "tracker_pipeline"}) { ... on Schedules { results { name scheduleState { status } } } } }"""


# What docs/running_live.md says that is open at most.
CONNECTIONS_OF_A_PROCESS = 12
CONNECTIONS = 54


class Installation:
    """A running `tracker up` and its web interface over GraphQL."""

    def __init__(self, process: subprocess.Popen[str], home: Path, port: int) -> None:
        self.process, self.home = process, home
        self._url = f"http://127.0.0.1:{port}/graphql"
        self.connections: Counter[str] = Counter()

    def ask(self, query: str, **variables: Any) -> Any:
        return httpx.post(self._url, json={"query": query, "variables": variables}, timeout=30).json()["data"]

    def launch(self, hours_ago: int) -> str:
        """Ask for an hour of the on-chain chain; the id of the run."""
        hour = time.strftime("%Y-%m-%d-%H:00", time.gmtime(time.time() - hours_ago * 3600))
        job = {
            "repositoryName": "__repository__",
            "repositoryLocationName": "tracker_pipeline",
            "pipelineName": "onchain_hour",
        }
        launched = self.ask(_LAUNCH, job=job, tags=[{"key": "dagster/partition", "value": hour}])
        return launched["launchPipelineExecution"]["run"]["runId"]

    def status(self, run_id: str) -> str:
        return self.ask(f'{{ runOrError(runId: "{run_id}") {{ ... on Run {{ status }} }} }}')["runOrError"][
            "status"
        ]

    def programs(self) -> dict[str, psutil.Process]:
        """The programs that it has started itself, by a word of their command."""
        children = psutil.Process(self.process.pid).children()
        words = ("code-server", "dagster_webserver", "dagster._daemon", "health")
        return {word: child for child in children for word in words if word in child.cmdline()}

    def note_connections(self) -> None:
        """Remember the most that each process, named after its id, and all together have had open at once."""
        held = Counter(name for (name,) in self.rows("SELECT application_name FROM pg_stat_activity"
                                                     " WHERE backend_type = 'client backend'"))  # fmt: skip
        self.connections |= held | Counter(all=held.total())

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(EmbeddedPostgres(self.home).url) as connection:
            return connection.execute(statement, values).fetchall()


def eventually(found: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if value := found():
                return value
        except (httpx.HTTPError, psycopg.Error, KeyError, TypeError):
            pass
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds} s")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    home = tmp_path_factory.mktemp("up")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TRACKER_", "DAGSTER_"))}
    with (home / "up.log").open("w") as log:
        process = subprocess.Popen(
            [TRACKER, "up", "--port", str(port)],
            env={**environment, "TRACKER_HOME": str(home)},
            cwd=home,
            stdout=log,
            stderr=log,
            text=True,
        )
    yield Installation(process, home, port)
    process.send_signal(signal.SIGINT)
    process.wait(90)


@pytest.mark.slow
def test_every_schedule_is_on_from_the_start(installation):
    found = eventually(lambda: installation.ask(_SCHEDULES)["schedulesOrError"]["results"])
    states = {schedule["name"]: schedule["scheduleState"]["status"] for schedule in found}
    assert {"market_hourly", "onchain_hourly", "market_daily_close"} <= set(states)
    assert set(states.values()) == {"RUNNING"}


@pytest.mark.slow
def test_a_daemon_killed_during_a_run_comes_back_and_every_run_ends_once(installation):
    first = eventually(lambda: installation.launch(hours_ago=2))
    eventually(lambda: installation.status(first) == "STARTED")
    before = installation.programs()
    before["dagster._daemon"].kill()
    killed_at = time.time()
    second = installation.launch(hours_ago=3)  # while there is no daemon that could start it
    for run_id in (first, second):
        assert eventually(lambda run_id=run_id: _ended(installation, run_id)) == "SUCCESS"
    eventually(lambda: _all_alive_since(installation, killed_at))
    ticks = (
        "SELECT 1 FROM dagster.job_ticks WHERE type = 'SENSOR' AND timestamp > to_timestamp(%s)::timestamp"
    )
    eventually(lambda: installation.rows(ticks, killed_at))
    after = installation.programs()
    assert {name for name in before if before[name] != after[name]} == {"dagster._daemon"}
    starts = "SELECT run_id, count(*) FROM dagster.event_logs WHERE dagster_event_type = 'PIPELINE_START' GROUP BY 1"
    assert {run: count for run, count in installation.rows(starts) if run in (first, second)} == {
        first: 1,
        second: 1,
    }
    made = (
        "SELECT partition, count(*) FROM dagster.event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"
        ' AND asset_key = \'["onchain", "accumulation_scores"]\' AND run_id IN (%s, %s) GROUP BY 1'
    )
    assert [count for _, count in installation.rows(made, first, second)] == [1, 1]
    assert installation.connections.pop("all") <= CONNECTIONS
    assert max(installation.connections.values()) <= CONNECTIONS_OF_A_PROCESS


@pytest.mark.slow
def test_a_run_whose_process_was_killed_is_started_again_once(installation):
    killed = installation.launch(hours_ago=4)
    eventually(lambda: installation.status(killed) == "STARTED")
    for child in installation.programs()["code-server"].children(recursive=True):
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()
    again = "SELECT r.run_id, r.status FROM dagster.runs r JOIN dagster.run_tags t USING (run_id)"
    again += " WHERE t.key = 'dagster/parent_run_id' AND t.value = %s"
    eventually(lambda: [status for _, status in installation.rows(again, killed)] == ["SUCCESS"])
    assert installation.status(killed) == "FAILURE"


def _ended(installation: Installation, run_id: str) -> str:
    installation.note_connections()
    status = installation.status(run_id)
    return status if status in ("SUCCESS", "FAILURE", "CANCELED") else ""


def _all_alive_since(installation: Installation, moment: float) -> bool:
    daemons = installation.ask(_DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
    needed = [daemon for daemon in daemons if daemon["required"]]
    return bool(needed) and all(d["healthy"] and d["lastHeartbeatTime"] > moment for d in needed)


@pytest.mark.slow
def test_ctrl_c_ends_all_and_leaves_no_process(installation):
    mine = psutil.Process(installation.process.pid).children(recursive=True)
    assert len(mine) >= 5
    installation.process.send_signal(signal.SIGINT)
    assert installation.process.wait(90) == 0, (installation.home / "up.log").read_text()
    _, alive = psutil.wait_procs(mine, timeout=20)
    assert alive == []
    assert not (installation.home / "postgres" / "postmaster.pid").exists()
    assert not (installation.home / "sandbox" / "addresses.json").exists()


def test_a_port_in_use_is_one_sentence_and_1(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [TRACKER, "up", "--port", str(taken.getsockname()[1])],
            env={**os.environ, "TRACKER_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "cannot be used (Address already in use): choose another with --port" in " ".join(
        done.stderr.split()
    )


def test_a_second_one_on_the_same_state_folder_is_one_sentence_and_1(tmp_path):
    with (tmp_path / "up.lock").open("a") as held, socket.socket() as probe:
        fcntl.flock(held, fcntl.LOCK_EX)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        done = subprocess.run(
            [TRACKER, "up", "--port", str(port)],
            env={**os.environ, "TRACKER_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert " ".join(done.stderr.split()).startswith(
        f"error: tracker up runs already on {tmp_path}: stop that one"
    )
    assert not (tmp_path / "postgres").exists()
