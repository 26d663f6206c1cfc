"""`tracker up` as a person uses it: it comes up, runs what the interface asks for, and leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

PROJECT = Path(__file__).resolve().parents[2]
TRACKER = Path(sys.executable).with_name("tracker")

_LAUNCH = """mutation($job: JobOrPipelineSelector!, $tags: [ExecutionTag!]) {
  launchPipelineExecution(executionParams: {selector: $job, mode: "default", executionMetadata: {tags: $tags}}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


class Interface:
    """The web interface over GraphQL."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = httpx.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=30)
        return answer.json()["data"]

    def wait_for(self, query: str, done: Any, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                data = self.ask(query)
                if done(data):
                    return data
            except (httpx.HTTPError, KeyError, TypeError):
                pass
            time.sleep(0.5)
        raise AssertionError(f"not within {seconds} s: {query}")


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_it_serves_schedules_and_runs_and_ctrl_c_leaves_no_process(tmp_path, free_port):
    up = subprocess.Popen(
        [TRACKER, "up", "--port", str(free_port)],
        env={**os.environ, "TRACKER_HOME": str(tmp_path)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        interface = Interface(free_port)
        schedules = '{ schedulesOrError(repositorySelector: {repositoryName: "__repository__",'
        schedules += ' repositoryLocationName: "tracker_pipeline"}) { ... on Schedules {'
        schedules += " results { name scheduleState { status } } } } }"
        found = interface.wait_for(schedules, lambda data: data["schedulesOrError"]["results"], 90)
        states = {s["name"]: s["scheduleState"]["status"] for s in found["schedulesOrError"]["results"]}
        assert {"market_hourly", "onchain_hourly", "market_daily_close"} <= set(states)
        assert set(states.values()) == {"RUNNING"}
        _materialize_an_hour(interface)
        mine = psutil.Process(up.pid).children(recursive=True)
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(90)
    assert up.returncode == 0, up.stdout.read()
    _, alive = psutil.wait_procs(mine, timeout=20)
    assert alive == []
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()
    assert not (tmp_path / "sandbox" / "addresses.json").exists()


def _materialize_an_hour(interface: Interface) -> None:
    hour = time.strftime("%Y-%m-%d-%H:00", time.gmtime(time.time() - 2 * 3600))
    job = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "tracker_pipeline",
        "pipelineName": "onchain_hour",
    }
    launched = interface.ask(_LAUNCH, job=job, tags=[{"key": "dagster/partition", "value": hour}])
    run_id = launched["launchPipelineExecution"]["run"]["runId"]
    run = f'{{ runOrError(runId: "{run_id}") {{ ... on Run {{ status }} }} }}'
    ended = interface.wait_for(run, lambda data: data["runOrError"]["status"] in ("SUCCESS", "FAILURE"), 120)
    assert ended["runOrError"]["status"] == "SUCCESS"


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
