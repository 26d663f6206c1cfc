"""Real accounts end to end: two snapshots of whales a day apart, and the exact balances of the first block."""

import csv
import gzip
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml

from tracker_pipeline import keys
from tracker_pipeline.definitions import build_definitions
from tracker_pipeline.domain.accumulation import accumulation_score
from tracker_pipeline.resources.clients import ChainResource
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.archive import move_day
from tracker_pipeline_tests.conftest import forget_settings
from tracker_pipeline_tests.resources.anvil import Anvil, running_anvil

WEI = 10**18
HOUR = timedelta(hours=1)
# Four years after the file says, because history begins in 2024 and partitions with it.
FIRST = datetime(2026, 4, 20, 5, tzinfo=UTC)
SECOND = FIRST + 24 * HOUR
ONCHAIN = [keys.WHALE_UNIVERSE, keys.WHALE_BALANCE_SNAPSHOTS, keys.STETH_RATES, keys.ACCUMULATION_SCORES]
Run = Callable[..., dg.ExecuteInProcessResult]
SNAPSHOTS = "onchain.whale_balance_snapshots"


@pytest.fixture(scope="module")
def two_snapshots(shared_data: Path) -> list[dict[str, int]]:
    """Address to wei of ether at each of the two times."""
    path = shared_data / "accounts" / "eth_whales_2_snapshots_2022-04.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["asset"] == "ETH"]
    times = sorted({row["snapshot_ts"] for row in rows})
    return [
        {row["address"]: int(Decimal(row["balance"]) * WEI) for row in rows if row["snapshot_ts"] == time}
        for time in times
    ]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_database: str
) -> Callable[..., dg.ExecuteInProcessResult]:
    """Point the pipeline at a node and a list of addresses; materialize an hour."""

    def materialize(
        node: Anvil, addresses: list[str], hour: datetime, assets: list[dg.AssetKey], **chain: Any
    ) -> dg.ExecuteInProcessResult:
        whales, config = tmp_path / "whales.csv", tmp_path / "own.yaml"
        whales.write_text("address,label\n" + "".join(f"{address},\n" for address in addresses))
        endpoints = {
            "rpc_urls": [node.url],
            "address_lists": [str(whales)],
            "tokens": {"WETH": None, "STETH": None},
            "steth_feed": None,
        }
        content = {
            "endpoints": {"sandbox": endpoints},
            "chain": {"confirmations": 1, **chain},
        }
        config.write_text(yaml.safe_dump(content))
        monkeypatch.setenv("TRACKER_CONFIG", str(config))
        forget_settings()
        definitions = build_definitions({"chain": ChainResource.configured()})
        with dg.DagsterInstance.ephemeral() as instance:
            return definitions.resolve_job_def("onchain_hour").execute_in_process(
                partition_key=f"{hour:%Y-%m-%d-%H:%M}",
                asset_selection=assets,
                instance=instance,
                raise_on_error=False,
            )

    return materialize


def settle(node: Anvil, hour: datetime) -> None:
    """A block before the hour, and one behind it: what is given to an address changes the newest block's state."""
    node.mine(int(hour.timestamp()) - 60)
    node.mine(int(hour.timestamp()) + 60)


def frame(balances: dict[str, int]) -> pl.DataFrame:
    rows = [(address, "ETH", str(wei)) for address, wei in balances.items()]
    return pl.DataFrame(rows, schema=["whale_address", "asset", "balance"], orient="row")


def test_the_score_of_the_file_counts_who_came_who_went_and_who_changed(two_snapshots):
    then, now = two_snapshots
    both = then.keys() & now.keys()
    assert sum(then[a] != now[a] for a in both) == 42  # as the manifest of the data says
    score = accumulation_score(frame(now), frame(then), steth_rate=None)
    assert (score["entrants"], score["leavers"], score["matched"]) == (14, 9, len(both))
    assert score["change_wei"] == sum(now[a] - then[a] for a in both)
    exact = Fraction(100 * score["change_wei"], sum(then[a] for a in both))
    assert score["score_pct"] == Decimal(f"{round(exact * 10**10)}E-10")


def test_the_two_snapshots_go_through_a_node_and_come_out_as_one_score(two_snapshots, run):
    then, now = two_snapshots
    everyone = sorted(then.keys() | now.keys())
    floor = min(*then.values(), *now.values())
    with running_anvil(chain_id=1337, start=int((FIRST - HOUR).timestamp())) as node:
        for balances, hour in ((then, FIRST), (now, SECOND)):
            node.fund({address: balances.get(address, 0) for address in everyone})
            settle(node, hour)
        options = {"top": None, "min_balance_eth": floor // WEI}
        for hour in (FIRST, SECOND):
            assert run(node, everyone, hour, ONCHAIN, **options).success
    rows = scan(SNAPSHOTS, SECOND, SECOND + HOUR).collect()
    stored = dict(rows.select("whale_address", "balance").iter_rows())
    assert {address: int(wei) for address, wei in stored.items()} == {a: now.get(a, 0) for a in everyone}
    (score,) = (
        scan("onchain.accumulation_scores", SECOND, SECOND + HOUR)
        .filter(lookback_hours=24)
        .collect()
        .rows(named=True)
    )
    change = sum(now.values()) - sum(then.values())
    exact = Fraction(100 * change, sum(then.values()))
    assert score["change_wei"] == str(change)
    assert Decimal(score["score_pct"]) == Decimal(f"{round(exact * 10**10)}E-10")
    # All were read at both times, so those that entered or left are compared, not lost.
    assert (score["universe"], score["matched"]) == (len(everyone), len(everyone))
    assert (score["entrants"], score["leavers"]) == (14, 9)
    assert score["baseline_timestamp"] == FIRST


def test_exact_balances_survive_chain_postgres_parquet_and_reading(shared_data, run):
    path = shared_data / "accounts" / "eth_genesis_balances_wei.csv.gz"
    with gzip.open(path, "rt") as file:
        genesis = {row["address"]: int(row["balance_wei"]) for row in csv.DictReader(file)}
    assert sum(genesis.values()) == 72_009_990_499_480_000_000_000_000
    with running_anvil(chain_id=1337, start=int((FIRST - HOUR).timestamp())) as node:
        node.fund(genesis)
        settle(node, FIRST)
        assert run(node, list(genesis), FIRST, ONCHAIN[:2]).success
    hot = scan(SNAPSHOTS).collect()
    assert balances_in(hot) == genesis
    moved = move_day(SNAPSHOTS, FIRST.date(), cut=FIRST + 48 * HOUR, run_id="r")
    assert moved.rows_moved == len(genesis)
    cold = scan(SNAPSHOTS, FIRST, FIRST + HOUR).collect()
    assert cold.equals(hot)
    assert balances_in(cold) == genesis
    assert scan(SNAPSHOTS, FIRST + HOUR, SECOND).collect().is_empty()


def balances_in(rows: pl.DataFrame) -> dict[str, int]:
    return {address: int(wei) for address, wei in rows.select("whale_address", "balance").iter_rows()}


def test_a_score_compares_with_a_baseline_that_was_archived(two_snapshots, run):
    then, now = two_snapshots
    both = sorted(then.keys() & now.keys())[:50]
    with running_anvil(chain_id=1337, start=int((FIRST - HOUR).timestamp())) as node:
        for balances, hour in ((then, FIRST), (now, SECOND)):
            node.fund({address: balances[address] for address in both})
            settle(node, hour)
        assert run(node, both, FIRST, ONCHAIN).success
        move_day(SNAPSHOTS, FIRST.date(), cut=FIRST + 48 * HOUR, run_id="r")
        assert run(node, both, SECOND, ONCHAIN).success
    score = scan("onchain.accumulation_scores", SECOND, SECOND + HOUR).filter(lookback_hours=24).collect()
    assert score.item(0, "change_wei") == str(sum(now[a] - then[a] for a in both))
