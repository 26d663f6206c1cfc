"""Fixtures: a sandbox chain, the pipeline pointed at it, and the hourly job as Dagster runs it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import stamina
import yaml

from tracker_pipeline.definitions import build_definitions
from tracker_pipeline.resources.clients import ChainResource
from tracker_pipeline.sandbox.chain import make_chain_app
from tracker_pipeline_tests.assets.onchain import HOURS, NOW, ONCHAIN, START, WHALES, Configure, Run
from tracker_pipeline_tests.conftest import forget_settings
from tracker_pipeline_tests.serving import served


@pytest.fixture(scope="session")
def node() -> Iterator[str]:
    with served(make_chain_app(start=START, seed=7, whales=WHALES, clock=lambda: NOW)) as url:
        yield url


@pytest.fixture
def no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture
def configure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: str, own_database: str, no_waiting: None
) -> Configure:
    """Point the pipeline at the node; `chain` changes that section, further arguments its endpoints."""

    def write(*, chain: dict[str, Any] | None = None, **changes: object) -> None:
        endpoints = {"rpc_urls": [node], "address_lists": [f"{node}/whales.csv"], **changes}
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump({"endpoints": {"sandbox": endpoints}, "chain": chain or {}}))
        monkeypatch.setenv("TRACKER_CONFIG", str(path))
        forget_settings()

    write()
    return write


@pytest.fixture
def run(configure: Configure) -> Iterator[Run]:
    """Materialize some assets of an hour, as a run of Dagster."""
    with dg.DagsterInstance.ephemeral() as instance:

        def materialize(
            hour: str = HOURS[0], assets: list[dg.AssetKey] = ONCHAIN
        ) -> dg.ExecuteInProcessResult:
            definitions = build_definitions({"chain": ChainResource.configured()})
            job = definitions.resolve_job_def("onchain_hour")
            return job.execute_in_process(
                partition_key=hour, asset_selection=assets, instance=instance, raise_on_error=False
            )

        yield materialize
