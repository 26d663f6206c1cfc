"""Every large transfer of a row of blocks is found, once, and a gap or a replaced block is noticed."""

import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import stamina
from aiohttp import web

from tracker_pipeline.domain.discovery import TRANSFER_TOPIC, Moved
from tracker_pipeline.resources.chain import Block, Chain
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.sandbox.chain import make_chain_app
from tracker_pipeline_tests.resources.test_chain_client import Json, Proxy, error
from tracker_pipeline_tests.serving import served

ETH = 10**18
START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = START + timedelta(hours=6)
HOURS = [START + timedelta(hours=hour) for hour in range(6)]
TOKENS = {
    "WETH": "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2",
    "STETH": "0xae7ab96520DE3A18E5e111B5EaAb095312D7fE84",
}
LEAST = {"ETH": 300 * ETH, "WETH": 100 * ETH, "STETH": 100 * ETH}
USDT = "0xdAC17F958D2ee523a2206206994597C13D831ec7"


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    with served(make_chain_app(start=START, seed=7, whales=60, clock=lambda: NOW)) as url:
        yield url


@pytest.fixture
def proxy(node: str) -> Iterator[Proxy]:
    proxy = Proxy(node)
    with served(proxy.app()) as proxy.url:
        yield proxy


def chain(url: str) -> Chain:
    return Chain("ethereum", 1337, [url], tokens=TOKENS, clock=lambda: NOW)


def scan(client: Chain, first: int = 0, last: int = 5, blocks_per_request: int = 500) -> list[Moved]:
    before, after = client.block_at(HOURS[first]), client.block_at(HOURS[last])
    return client.transfers(before, after, LEAST, blocks_per_request=blocks_per_request)


def test_the_hours_together_find_what_one_scan_over_all_of_them_finds(node):
    with chain(node) as client:
        whole = scan(client)
        parts = [moved for hour in range(5) for moved in scan(client, hour, hour + 1)]
    assert {moved.asset for moved in whole} == {"ETH", "WETH", "STETH"}
    assert sorted(parts) == sorted(whole)
    assert all(moved.amount >= LEAST[moved.asset] for moved in whole)


def test_balances_change_by_what_was_transferred(node):
    """With no threshold, what a token holder gained is the sum of what the scan saw."""
    with chain(node) as client:
        before, after = client.block_at(HOURS[0]), client.block_at(HOURS[5])
        moved = client.transfers(before, after, {"WETH": 0}, blocks_per_request=3)
        holders = sorted({address for one in moved for address in (one.giver, one.receiver)})
        held, now_held = (
            [int(b) for b in client.balances(holders, ["WETH"], block).get_column("balance")]
            for block in (before, after)
        )
    assert holders
    for place, address in enumerate(holders):
        gained = sum(one.amount * ((one.receiver == address) - (one.giver == address)) for one in moved)
        assert now_held[place] - held[place] == gained


@pytest.mark.parametrize(
    "refusal",
    [
        error("query returned more than 10000 results", -32005),
        error("Log response size exceeded", -32602),
        error("block range is too wide", -32600),
    ],
)
def test_events_that_are_too_many_are_asked_for_by_halves(proxy, node, refusal):
    with chain(node) as client:
        expected = scan(client)

    def few(request: Json) -> Json | None:
        if request["method"] != "eth_getLogs":
            return None
        asked = request["params"][0]
        return refusal if int(asked["toBlock"], 16) - int(asked["fromBlock"], 16) > 3 else None

    proxy.behave = few
    with chain(proxy.url) as client:
        assert sorted(scan(client)) == sorted(expected)
    assert proxy.asked.count("eth_getLogs") > 3


def test_a_block_that_was_replaced_meanwhile_is_noticed(proxy):
    with chain(proxy.url) as client:
        before, after = client.block_at(HOURS[0]), client.block_at(HOURS[5])
        other = Block(after.number, "0x" + "ab" * 32, after.timestamp, after.parent_hash)
        with pytest.raises(TransientError, match="not one chain"):
            client.transfers(before, other, {"ETH": ETH}, blocks_per_request=500)


def test_events_of_another_branch_are_noticed(proxy, node):
    def of_another_branch(request: Json) -> Json | None:
        if request["method"] != "eth_getLogs":
            return None
        log = {"blockNumber": hex(3), "blockHash": "0x" + "cd" * 32, "topics": [], "data": "0x"}
        return {"result": [log]}

    proxy.behave = of_another_branch
    with chain(proxy.url) as client, pytest.raises(TransientError, match="block 3 was replaced"):
        scan(client)


def test_a_transaction_that_failed_moved_nothing(proxy):
    failed: list[str] = []

    def fail(request: Json) -> Any:
        if request["method"] != "eth_getTransactionReceipt" or failed:
            return None
        failed.append(request["params"][0])
        return spoilt(proxy, request)

    with chain(proxy.url) as client:
        whole = scan(client)
        proxy.behave = fail
        assert len(scan(client)) == len(whole) - 1


async def spoilt(proxy: Proxy, request: Json) -> Json:
    """The node's own receipt, with another end."""
    import aiohttp

    async with aiohttp.ClientSession() as session, session.post(proxy._node, json=request) as response:
        receipt = (await response.json())["result"]
    return {"result": {**receipt, "status": "0x0"}}


def test_a_threshold_of_a_token_that_is_not_configured_is_named(node):
    with chain(node) as client:
        block = client.block_at(HOURS[1])
        with pytest.raises(PermanentError, match="configured for DAI"):
            client.transfers(block, block, {"DAI": 1}, blocks_per_request=500)


# Two real blocks of the main network, served as a node serves them.


@pytest.fixture(scope="module")
def real(shared_data: Path) -> dict[str, list[Json]]:
    def lines(name: str) -> list[Json]:
        path = shared_data / "accounts" / f"eth_blocks_17173049_50_{name}.jsonl.gz"
        return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]

    return {name: lines(name) for name in ("blocks", "transactions", "token_transfers")}


def real_node(data: dict[str, list[Json]]) -> web.Application:
    transactions = {one["hash"]: one for one in data["transactions"]}

    def block(number: int) -> Json:
        if number == 17173048:
            first = data["blocks"][0]
            return head(number, first["parent_hash"], "0x" + "00" * 32, first["timestamp"] - 12) | {
                "transactions": []
            }
        (found,) = (one for one in data["blocks"] if one["number"] == number)
        own = [as_transaction(one) for one in data["transactions"] if one["block_number"] == number]
        return head(number, found["hash"], found["parent_hash"], found["timestamp"]) | {"transactions": own}

    def receipt(transaction_hash: str) -> Json:
        one = transactions[transaction_hash]
        return {
            "blockHash": one["block_hash"],
            "status": hex(one["receipt_status"]),
            "contractAddress": one["receipt_contract_address"],
        }

    answers: dict[str, Callable[[list[Json]], Json]] = {
        "eth_chainId": lambda params: "0x1",
        "eth_getBlockByNumber": lambda params: block(int(params[0], 16)),
        "eth_getTransactionReceipt": lambda params: receipt(params[0]),
        "eth_getLogs": lambda params: [
            as_log(one) for one in data["token_transfers"] if wanted(one, params[0])
        ],
    }

    async def serve(request: web.Request) -> web.Response:
        asked = await request.json()
        result = answers[asked["method"]](asked["params"])
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": result})

    app = web.Application()
    app.router.add_post("/", serve)
    return app


def head(number: int, own_hash: str, parent: str, time: int) -> Json:
    return {"number": hex(number), "hash": own_hash, "parentHash": parent, "timestamp": hex(time)}


def as_transaction(one: Json) -> Json:
    return {
        "hash": one["hash"],
        "from": one["from_address"],
        "to": one["to_address"],
        "value": hex(one["value"]),
    }


def as_log(one: Json) -> Json:
    topics = [
        TRANSFER_TOPIC,
        *(f"0x{one[side][2:].rjust(64, '0')}" for side in ("from_address", "to_address")),
    ]
    return {
        "address": one["token_address"],
        "topics": topics,
        "data": f"0x{one['value']:064x}",
        "blockNumber": hex(one["block_number"]),
        "blockHash": one["block_hash"],
        "removed": False,
    }


def wanted(one: Json, asked: Json) -> bool:
    inside = int(asked["fromBlock"], 16) <= one["block_number"] <= int(asked["toBlock"], 16)
    return inside and one["token_address"] in asked["address"]


def test_the_large_transfers_of_two_real_blocks_are_those_of_their_record(real):
    first, last = (
        Block(number, own_hash, datetime.fromtimestamp(1683029987 + 12 * (number - 17173048), UTC), parent)
        for number, own_hash, parent in (
            (17173048, real["blocks"][0]["parent_hash"], "0x" + "00" * 32),
            (17173050, real["blocks"][1]["hash"], real["blocks"][0]["hash"]),
        )
    )
    tokens = {"WETH": TOKENS["WETH"], "USDT": USDT}
    least = {"ETH": ETH // 20, "WETH": 5 * ETH, "USDT": 100_000 * 10**6}
    with served(real_node(real)) as url, Chain("ethereum", 1, [url], tokens=tokens) as client:
        found = client.transfers(first, last, least, blocks_per_request=1)
    native = {
        Moved("ETH", t["from_address"], t["to_address"], t["value"], t["block_number"])
        for t in real["transactions"]
        if t["value"] >= least["ETH"] and t["receipt_status"] == 1
    }
    failed = [t for t in real["transactions"] if t["value"] >= least["ETH"] and t["receipt_status"] == 0]
    by_token = {address.lower(): asset for asset, address in tokens.items()}
    moved = [
        Moved(asset, t["from_address"], t["to_address"], t["value"], t["block_number"])
        for t in real["token_transfers"]
        if (asset := by_token.get(t["token_address"])) and t["value"] >= least[asset]
    ]
    assert failed
    assert len(native) > 20
    assert len(moved) > 8
    assert sorted(found) == sorted([*native, *moved])
    assert (
        "ETH",
        "0x5a0036bcab4501e70f086c634e2958a8beae3a11",
        "0x00000000219ab540356cbb839cbe05303d7705fa",
        32 * ETH,
        17173050,
    ) in found
