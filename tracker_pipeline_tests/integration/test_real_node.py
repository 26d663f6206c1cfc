"""The on-chain pipeline on a node that others wrote: reorganisations, a lagging endpoint, failing chunks, kill -9."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import stamina
import yaml
from aiohttp import web

from tracker_pipeline import keys
from tracker_pipeline.definitions import build_definitions
from tracker_pipeline.resources.chain import MULTICALL3, NATIVE, Chain
from tracker_pipeline.resources.clients import ChainResource
from tracker_pipeline.resources.errors import PermanentError, PipelineError
from tracker_pipeline.storage import scan
from tracker_pipeline_tests.conftest import forget_settings
from tracker_pipeline_tests.resources.anvil import Anvil, addresses, running_anvil
from tracker_pipeline_tests.resources.test_chain_client import Json, Proxy
from tracker_pipeline_tests.serving import served

ETH = 10**18
START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
WHALES = addresses(300)
FIRST, LAST = START + HOUR, START + 25 * HOUR
SNAPSHOTS, SCORES = "onchain.whale_balance_snapshots", "onchain.accumulation_scores"
ONCHAIN = [keys.WHALE_UNIVERSE, keys.WHALE_BALANCE_SNAPSHOTS, keys.STETH_RATES, keys.ACCUMULATION_SCORES]

RunJob = Callable[..., dg.ExecuteInProcessResult]


def mine_before(node: Anvil, hour: datetime, *, seconds: int = 60) -> None:
    node.mine(int(hour.timestamp()) - seconds)


def first_day(node: Anvil) -> None:
    """300 whales with Multicall3 beside them, and a block a minute before each hour of a day."""
    from multicall.constants import MULTICALL3_BYTECODE

    node.call("anvil_setCode", MULTICALL3, MULTICALL3_BYTECODE)
    node.fund({address: (number + 1) * ETH for number, address in enumerate(WHALES)})
    for hours in range(1, 25):
        mine_before(node, START + hours * HOUR)


@pytest.fixture
def node() -> Iterator[Anvil]:
    with running_anvil() as running:
        first_day(running)
        yield running


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_database: str) -> Callable[..., None]:
    whales = tmp_path / "whales.csv"
    whales.write_text("address,label\n" + "".join(f"{address},\n" for address in WHALES))

    def write(*urls: str, **chain: Any) -> None:
        endpoints = {
            "rpc_urls": list(urls),
            "address_lists": [str(whales)],
            "tokens": {"WETH": None, "STETH": None},
            "steth_feed": None,
        }
        path = tmp_path / "own.yaml"
        content = {"endpoints": {"sandbox": endpoints}, "chain": {"confirmations": 1, **chain}}
        path.write_text(yaml.safe_dump(content))
        monkeypatch.setenv("TRACKER_CONFIG", str(path))
        forget_settings()

    return write


@pytest.fixture
def run() -> Iterator[RunJob]:
    with dg.DagsterInstance.ephemeral() as instance:

        def run(
            job: str = "onchain_hour", hour: datetime | None = None, assets: list[dg.AssetKey] | None = None
        ) -> dg.ExecuteInProcessResult:
            definitions = build_definitions({"chain": ChainResource.configured()})
            return definitions.resolve_job_def(job).execute_in_process(
                partition_key=f"{hour:%Y-%m-%d-%H:%M}" if hour else None,
                asset_selection=assets or (ONCHAIN if hour else None),
                instance=instance,
                raise_on_error=False,
            )

        yield run


def rows_of(table: str, hour: datetime) -> pl.DataFrame:
    return scan(table, hour, hour + HOUR).collect()


def total(hour: datetime) -> int:
    return sum(int(wei) for wei in rows_of(SNAPSHOTS, hour).filter(asset="ETH").get_column("balance"))


def score(hour: datetime) -> dict[str, Any]:
    (row,) = rows_of(SCORES, hour).filter(lookback_hours=24).rows(named=True)
    return row


def recheck(hour: datetime) -> dict[str, Any]:
    (row,) = rows_of("onchain.snapshot_rechecks", hour).rows(named=True)
    return row


def test_what_a_reorganisation_replaced_is_read_and_scored_again(node, configure, run):
    configure(node.url)
    before = node.call("evm_snapshot")
    node.call("anvil_setBalance", WHALES[0], hex(501 * ETH))
    mine_before(node, LAST)
    mine_before(node, LAST + HOUR)
    for hour in (FIRST, LAST):
        assert run(hour=hour).success
    lost = rows_of(SNAPSHOTS, LAST).item(0, "block_hash")
    assert score(LAST)["change_wei"] == str(500 * ETH)

    assert node.call("evm_revert", before)
    node.call("anvil_setBalance", WHALES[0], hex(101 * ETH))
    mine_before(node, LAST, seconds=48)
    mine_before(node, LAST + HOUR)
    result = run("onchain_recheck")
    assert result.success
    rows = rows_of(SNAPSHOTS, LAST)
    assert rows.get_column("block_hash").unique().to_list() == [
        node.call("eth_getBlockByNumber", "0x19", False)["hash"]
    ]
    assert rows.item(0, "block_hash") != lost
    assert rows.get_column("block_timestamp").unique().to_list() == [LAST - timedelta(seconds=48)]
    assert score(LAST)["change_wei"] == str(100 * ETH)
    found = recheck(LAST)
    assert (found["state"], found["replaced_hash"], found["repairs"]) == ("pending", lost, 1)
    assert recheck(FIRST)["repairs"] == 0
    materialized = {
        (event.asset_key.to_user_string(), event.partition)
        for event in result.all_events
        if event.is_step_materialization
    }
    assert ("onchain/whale_balance_snapshots", f"{LAST:%Y-%m-%d-%H:%M}") in materialized
    assert ("onchain/accumulation_scores", f"{LAST:%Y-%m-%d-%H:%M}") in materialized

    node.call("anvil_mine", hex(100))
    assert run("onchain_recheck").success
    assert {recheck(hour)["state"] for hour in (FIRST, LAST)} == {"final"}
    again = scan("onchain.snapshot_rechecks").collect()
    assert run("onchain_recheck").success
    assert scan("onchain.snapshot_rechecks").collect().equals(again)


def test_a_baseline_that_was_replaced_scores_the_later_hour_again_and_a_broken_repair_is_taken_up(
    node, configure, run, monkeypatch
):
    from tracker_pipeline.assets import snapshot_rechecks

    configure(node.url)
    before = node.call("evm_snapshot")
    mine_before(node, LAST)
    mine_before(node, LAST + HOUR)
    later = LAST + 24 * HOUR
    mine_before(node, later)
    mine_before(node, later + HOUR)
    assert run(hour=LAST).success
    assert run(hour=later).success
    assert score(later)["change_wei"] == "0"

    assert node.call("evm_revert", before)
    node.call("anvil_setBalance", WHALES[0], hex(2 * ETH))
    mine_before(node, LAST)
    mine_before(node, LAST + HOUR)
    node.call("anvil_setBalance", WHALES[0], hex(9 * ETH))
    mine_before(node, later)
    mine_before(node, later + HOUR)
    with monkeypatch.context() as patch:
        patch.setattr(snapshot_rechecks, "score_hour", broken)
        assert not run("onchain_recheck").success
    assert recheck(LAST)["state"] == "reorganised"
    assert run("onchain_recheck").success
    assert (recheck(LAST)["state"], recheck(LAST)["repairs"]) == ("pending", 1)
    assert score(later)["change_wei"] == str(7 * ETH)


def broken(*given: object) -> Any:
    raise PermanentError("broken in the middle of a repair")


def test_an_endpoint_that_lags_does_not_take_over_before_it_has_the_same_block(node):
    with running_anvil() as second, ExitStack() as stack:
        first_day(second)
        mine_before(node, LAST)
        proxy = Proxy(node.url)
        proxy.url = stack.enter_context(served(proxy.app()))
        client = stack.enter_context(Chain("ethereum", 1337, [proxy.url, second.url]))
        block = client.block_at(LAST)
        proxy.behave = lambda request: web.Response(status=503)
        with pytest.raises(PipelineError):
            client.balances(WHALES, [NATIVE], block)
        mine_before(second, LAST)  # the same chain, a block later than the first
        frame = client.balances(WHALES, [NATIVE], block)
        assert frame.get_column("balance").null_count() == 0
        assert frame.height == len(WHALES)


def test_an_endpoint_on_another_branch_never_takes_over(node):
    with running_anvil() as second, ExitStack() as stack:
        first_day(second)
        mine_before(node, LAST)
        mine_before(second, LAST, seconds=30)
        proxy = Proxy(node.url)
        proxy.url = stack.enter_context(served(proxy.app()))
        client = stack.enter_context(Chain("ethereum", 1337, [proxy.url, second.url]))
        block = client.block_at(LAST)
        proxy.behave = lambda request: web.Response(status=503)
        with pytest.raises(PipelineError, match="another block 25"):
            client.balances(WHALES, [NATIVE], block)


@pytest.mark.parametrize("state_override", [True, False])
def test_a_chunk_that_fails_at_first_is_read_again_and_one_that_keeps_failing_fails_the_hour(
    node, configure, run, state_override
):
    mine_before(node, LAST)
    mine_before(node, LAST + HOUR)
    failures = iter(range(3))  # as often as the endpoint is asked for one chunk

    def fail(request: Json) -> web.Response | None:
        spoil = request["method"] == "eth_call" and WHALES_LAST in request["params"][0]["data"]
        return web.Response(status=500) if spoil and next(failures, None) is not None else None

    proxy = Proxy(node.url)
    proxy.behave = fail
    with served(proxy.app()) as proxy.url:
        configure(proxy.url, state_override=state_override, addresses_per_call=100)
        assert run(hour=LAST, assets=ONCHAIN[:2]).success
        assert next(failures, None) is None
        assert total(LAST) == sum(range(1, len(WHALES) + 1)) * ETH
        proxy.behave = lambda request: (
            web.Response(status=500)
            if request["method"] == "eth_call" and WHALES_LAST in request["params"][0]["data"]
            else None
        )
        assert not run(hour=FIRST, assets=ONCHAIN[:2]).success
    assert rows_of(SNAPSHOTS, FIRST).is_empty()


WHALES_LAST = sorted(WHALES)[-1][2:]

_RANGE = """
import os, sys
import dagster as dg
from tracker_pipeline.definitions import defs
with dg.DagsterInstance.ephemeral() as instance:
    result = defs.resolve_job_def("onchain_hour").execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey(["onchain", name]) for name in sys.argv[3:]],
        tags=dict(zip(("dagster/asset_partition_range_start", "dagster/asset_partition_range_end"), sys.argv[1:3])),
        raise_on_error=False)
    sys.exit(0 if result.success else 1)
"""


def range_process(*assets: str) -> "subprocess.Popen[bytes]":
    hours = [f"{START + hours * HOUR:%Y-%m-%d-%H:%M}" for hours in (1, 6)]
    command = [sys.executable, "-c", _RANGE, *hours, *assets]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_run_that_is_killed_in_mid_snapshot_leaves_whole_hours_and_the_next_run_makes_the_rest(
    node, configure, run
):
    mine_before(node, LAST)
    proxy = Proxy(node.url)
    calls, killed = [], threading.Event()

    def kill_in_the_fourth_hour(request: Json) -> None:
        if request["method"] != "eth_call":
            return
        calls.append(request)
        if (
            len(calls) == 1 + 3 * 3 + 2
        ):  # the first call finds that there are no overrides; an hour takes three
            os.kill(process.pid, signal.SIGKILL)
            killed.set()

    proxy.behave = kill_in_the_fourth_hour
    with served(proxy.app()) as proxy.url:
        configure(proxy.url, addresses_per_call=100, state_override=False)
        assert run(hour=FIRST, assets=[keys.WHALE_UNIVERSE]).success
        calls.append(None)  # type: ignore[arg-type]
        process = range_process("whale_balance_snapshots")
        assert process.wait(timeout=120) == -signal.SIGKILL
        assert killed.is_set()
        stored = scan(SNAPSHOTS).collect().group_by("snapshot_timestamp").len().sort("snapshot_timestamp")
        assert stored.rows() == [(START + hours * HOUR, len(WHALES)) for hours in (1, 2, 3)]
        before = scan(SNAPSHOTS).collect()
        assert range_process("whale_balance_snapshots").wait(timeout=120) == 0
    after = scan(SNAPSHOTS).collect()
    assert after.height == 6 * len(WHALES)
    assert after.join(before, on=before.columns, how="semi").height == before.height
    assert after.select("network", "asset", "whale_address", "snapshot_timestamp").is_unique().all()
