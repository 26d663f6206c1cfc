"""The sandbox chain is a real EVM node: seen through web3 on a real socket."""

import csv
import io
import itertools
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from eth_hash.auto import keccak
from web3 import HTTPProvider, Web3
from web3.exceptions import ContractLogicError, Web3RPCError

from tracker_pipeline.sandbox import contracts
from tracker_pipeline.sandbox.chain import make_chain_app
from tracker_pipeline.sandbox.evm import EvmChain
from tracker_pipeline_tests.serving import served

START = datetime(2026, 3, 1, tzinfo=UTC)
HOURS = 8
WHALES = 40
MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11"
TRANSFER = "0x" + keccak(b"Transfer(address,address,uint256)").hex()
MULTICALL3_ABI = [
    {
        "name": "aggregate3",
        "type": "function",
        "stateMutability": "payable",
        "inputs": [
            {
                "name": "calls",
                "type": "tuple[]",
                "components": [
                    {"name": "target", "type": "address"},
                    {"name": "allowFailure", "type": "bool"},
                    {"name": "callData", "type": "bytes"},
                ],
            }
        ],
        "outputs": [
            {
                "name": "returnData",
                "type": "tuple[]",
                "components": [{"name": "success", "type": "bool"}, {"name": "returnData", "type": "bytes"}],
            }
        ],
    },
    {
        "name": "getEthBalance",
        "type": "function",
        "stateMutability": "view",
        "inputs": [{"name": "addr", "type": "address"}],
        "outputs": [{"name": "balance", "type": "uint256"}],
    },
]


class Clock:
    """A clock that tests set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock(START + timedelta(hours=HOURS))


@pytest.fixture(scope="module")
def url(clock: Clock) -> Iterator[str]:
    with served(make_chain_app(start=START, seed=7, whales=WHALES, clock=clock)) as url:
        yield url


@pytest.fixture(scope="module")
def node(url: str) -> Web3:
    return Web3(HTTPProvider(url))


@pytest.fixture(scope="module")
def whales(url: str) -> list[str]:
    return [row["address"] for row in csv.DictReader(io.StringIO(httpx.get(f"{url}/whales.csv").text))]


def rpc(url: str, method: str, *params: object) -> dict:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return httpx.post(url, json=request).json()


def test_it_says_which_chain_it_is(node):
    assert node.is_connected()
    assert node.eth.chain_id == 1337
    assert node.net.version == "1337"
    assert "py-evm" in node.client_version


def test_the_chain_id_can_be_chosen():
    app = make_chain_app(start=START, seed=7, whales=1, clock=lambda: START, chain_id=1)
    with served(app) as url:
        assert Web3(HTTPProvider(url)).eth.chain_id == 1


def test_every_listed_whale_is_funded_and_has_a_checksummed_address_and_a_name(node, url):
    rows = list(csv.DictReader(io.StringIO(httpx.get(f"{url}/whales.csv").text)))
    assert len(rows) == WHALES
    assert rows[0]["label"] == "Sandbox whale 0001"
    assert all(Web3.is_checksum_address(row["address"]) for row in rows)
    balances = [node.eth.get_balance(row["address"], 0) for row in rows]
    assert all(100 * 10**18 <= balance <= 300_001 * 10**18 for balance in balances)


def test_blocks_follow_each_other_several_times_an_hour_and_never_on_the_hour(node):
    blocks = [node.eth.get_block(number) for number in range(node.eth.block_number + 1)]
    times = [block["timestamp"] for block in blocks]
    assert times[0] == START.timestamp()
    assert all(12 * 60 <= later - earlier <= 25 * 60 + 7 for earlier, later in itertools.pairwise(times))
    assert all(time % 3600 for time in times[1:])
    assert all(child["parentHash"] == parent["hash"] for parent, child in itertools.pairwise(blocks))


def test_a_block_is_found_by_number_hash_and_every_tag(node):
    head = node.eth.get_block("latest")
    assert node.eth.get_block(head["hash"]) == head
    assert node.eth.get_block("safe") == node.eth.get_block("finalized") == head
    assert node.eth.get_block("earliest")["number"] == 0
    transactions = node.eth.get_block(1, full_transactions=True)["transactions"]
    assert [transaction["hash"] for transaction in transactions] == node.eth.get_block(1)["transactions"]
    assert all((transaction["value"] > 0) != bool(transaction["input"]) for transaction in transactions)


def test_what_a_block_moved_is_what_balances_changed_by(node, whales):
    paid = dict.fromkeys(whales, 0)
    block = node.eth.get_block(5, full_transactions=True)
    for transaction in block["transactions"]:
        if transaction["input"]:  # a token changed hands: gas is not all used
            paid.pop(transaction["from"], None)
            continue
        fee = transaction["gas"] * transaction["gasPrice"]
        if transaction["from"] in paid:
            paid[transaction["from"]] -= transaction["value"] + fee
        if transaction["to"] in paid:
            paid[transaction["to"]] += transaction["value"]
    changes = {whale: node.eth.get_balance(whale, 5) - node.eth.get_balance(whale, 4) for whale in paid}
    assert changes == paid
    assert any(changes.values())


def test_multicall3_reads_the_balances_of_an_old_block(node, whales):
    contract = node.eth.contract(address=MULTICALL3, abi=MULTICALL3_ABI)
    calls = [(MULTICALL3, True, contract.encode_abi("getEthBalance", [whale])) for whale in whales]
    for number in (0, 3, node.eth.block_number):
        answer = contract.functions.aggregate3(calls).call(block_identifier=number)
        assert [int.from_bytes(data, "big") for _, data in answer] == [
            node.eth.get_balance(whale, number) for whale in whales
        ]


def test_a_block_can_be_named_by_its_hash_as_in_eip_1898(url, node, whales):
    block_hash = node.eth.get_block(3)["hash"].to_0x_hex()
    call = {"to": MULTICALL3, "data": "0x42cbb15c"}
    assert int(rpc(url, "eth_call", call, {"blockHash": block_hash})["result"], 16) == 3
    by_number = rpc(url, "eth_getBalance", whales[0], {"blockNumber": "0x3"})
    assert rpc(url, "eth_getBalance", whales[0], {"blockHash": block_hash}) == by_number


def test_a_revert_is_reported_with_what_it_returned(node, url):
    with pytest.raises(ContractLogicError):
        node.eth.call({"to": MULTICALL3, "data": "0xdeadbeef"})
    assert rpc(url, "eth_call", {"to": MULTICALL3, "data": "0xdeadbeef"}, "latest")["error"]["code"] == 3


def test_a_call_to_an_address_without_code_returns_nothing(node, whales):
    assert node.eth.call({"to": whales[0], "data": "0x70a08231"}) == b""


def test_the_gas_that_a_call_brings_is_its_limit(url):
    call = {"to": MULTICALL3, "data": "0x42cbb15c"}
    assert rpc(url, "eth_call", {**call, "gas": "0x5300"}, "latest")["error"]["message"] == "out of gas"
    assert (
        rpc(url, "eth_call", {**call, "gas": "0x10"}, "latest")["error"]["message"] == "intrinsic gas too low"
    )
    assert "result" in rpc(url, "eth_call", {**call, "gas": "0xffffffffff"}, "latest")


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("eth_sendRawTransaction", ["0x00"], -32601),
        ("eth_call", [{"to": MULTICALL3}, "latest", {MULTICALL3: {"code": "0x00"}}], -32602),
        ("eth_call", [{"data": "0x"}, "latest"], -32602),
        ("eth_getBalance", [MULTICALL3, "0xffff"], -32000),
        ("eth_getBalance", [MULTICALL3, {"blockHash": "0x" + "00" * 32}], -32000),
        ("eth_getBalance", ["0x12", "latest"], -32602),
        ("eth_getBlockByNumber", ["nonsense", False], -32602),
        ("eth_getBlockByNumber", [], -32602),
    ],
)
def test_what_it_cannot_do_it_refuses_as_ordinary_nodes_do(url, method, params, code):
    assert rpc(url, method, *params)["error"]["code"] == code


def test_a_node_set_up_for_it_runs_other_code_for_the_length_of_a_call():
    with served(
        make_chain_app(start=START, seed=7, whales=1, clock=lambda: START, state_override=True)
    ) as url:
        nobody, answers_42 = "0x" + "99" * 20, "0x602a60005260206000f3"
        asked = [{"to": nobody}, "latest", {nobody: {"code": answers_42}}]
        assert int(rpc(url, "eth_call", *asked)["result"], 16) == 42
        assert rpc(url, "eth_call", *asked[:2])["result"] == "0x"
        for wrong in ({nobody: {"balance": "0x1"}}, {nobody: {"code": "0x1"}}, {"0x12": {"code": "0x"}}, []):
            assert rpc(url, "eth_call", {"to": nobody}, "latest", wrong)["error"]["code"] == -32602


def test_a_block_that_does_not_exist_is_null(url):
    assert rpc(url, "eth_getBlockByNumber", "0xffff", False)["result"] is None
    assert rpc(url, "eth_getBlockByHash", "0x" + "00" * 32, False)["result"] is None


def test_a_batch_is_answered_one_by_one(url):
    batch = [{"jsonrpc": "2.0", "id": n, "method": "eth_chainId", "params": []} for n in range(3)]
    assert [answer["id"] for answer in httpx.post(url, json=[*batch]).json()] == [0, 1, 2]
    assert httpx.post(url, json=[]).json()["error"]["code"] == -32600
    assert httpx.post(url, content=b"{").json()["error"]["code"] == -32700


@pytest.mark.parametrize("token", ["WETH", "STETH"])
def test_tokens_move_with_the_logs_of_an_erc_20(node, url, whales, token):
    address = Web3.to_checksum_address(contracts.TOKENS[token])
    head = node.eth.block_number
    logs = node.eth.get_logs({"fromBlock": 0, "toBlock": head, "address": address, "topics": [TRANSFER]})
    moved = Counter()
    for log in logs:
        giver, receiver = (Web3.to_checksum_address(topic[-20:]) for topic in log["topics"][1:])
        amount = int.from_bytes(log["data"], "big")
        moved[giver] -= amount
        moved[receiver] += amount
    held = {whale: [token_balance(node, address, whale, number) for number in (0, head)] for whale in whales}
    assert {whale: now - then for whale, (then, now) in held.items()} == {w: moved[w] for w in whales}
    assert len([now for now, _ in held.values() if now]) >= WHALES / 4
    assert any(moved[whale] < 0 for whale in whales)
    assert any(moved[whale] > 0 for whale in whales)


def token_balance(node: Web3, token: str, holder: str, number: int) -> int:
    data = "0x70a08231" + holder[2:].lower().rjust(64, "0")
    return int.from_bytes(node.eth.call({"to": token, "data": data}, number), "big")


def test_a_token_refuses_more_than_there_is_and_what_it_does_not_know(url, whales):
    token = "0x" + contracts.WETH.hex()
    more = "0xa9059cbb" + whales[1][2:].lower().rjust(64, "0") + f"{10**30:064x}"
    for data in (more, "0x18160ddd"):
        answer = rpc(url, "eth_call", {"from": whales[0], "to": token, "data": data}, "latest")
        assert answer["error"]["code"] == 3


def test_logs_are_found_by_block_emitter_and_topic(node, url):
    head = node.eth.block_number
    everything = rpc(url, "eth_getLogs", {"fromBlock": "0x0", "toBlock": hex(head)})["result"]
    assert {log["address"] for log in everything} == {"0x" + a.hex() for a in contracts.TOKENS.values()}
    one = everything[0]
    same_block = rpc(url, "eth_getLogs", {"blockHash": one["blockHash"]})["result"]
    assert same_block == [log for log in everything if log["blockHash"] == one["blockHash"]]
    to_receiver = {"fromBlock": "0x0", "toBlock": hex(head), "topics": [None, None, [one["topics"][2]]]}
    assert one in rpc(url, "eth_getLogs", to_receiver)["result"]
    assert rpc(url, "eth_getLogs", {**to_receiver, "topics": ["0x" + "00" * 32]})["result"] == []
    assert "error" in rpc(url, "eth_getLogs", {"fromBlock": "0x0", "toBlock": "0xffff"})


def test_the_price_feed_answers_for_the_hour_of_the_block(node):
    feed = Web3.to_checksum_address(contracts.STETH_FEED)
    for number in (1, 5, node.eth.block_number):
        answer = node.eth.call({"to": feed, "data": "0xfeaf968c"}, number)
        round_id, price, started, updated, answered_in = (
            int.from_bytes(answer[at : at + 32], "big") for at in range(0, 160, 32)
        )
        time = node.eth.get_block(number)["timestamp"]
        assert started == updated == time - time % 3600
        assert round_id == answered_in == time // 3600
        assert 0.997 <= price / 10**18 <= 1.001


def test_time_alone_makes_blocks_and_the_old_ones_stay(node, clock, whales):
    before = node.eth.get_block("latest")
    with pytest.raises(Web3RPCError, match="header not found"):
        node.eth.get_balance(whales[0], before["number"] + 1)
    clock.now += timedelta(hours=2)
    assert node.eth.block_number >= before["number"] + 4
    assert node.eth.get_block(before["number"]) == before


def test_the_same_start_and_seed_give_the_same_blocks_and_another_seed_does_not():
    def head(seed: int) -> bytes:
        chain = EvmChain(start=START, seed=seed, whales=20, chain_id=1337)
        chain.catch_up(START + timedelta(hours=5))
        return chain.head.hash

    assert head(7) == head(7) != head(8)


def test_a_chain_built_in_steps_is_the_one_built_at_once():
    at_once, in_steps = (EvmChain(start=START, seed=7, whales=20, chain_id=1337) for _ in range(2))
    at_once.catch_up(START + timedelta(hours=5))
    for minutes in range(0, 301, 6):
        in_steps.catch_up(START + timedelta(minutes=minutes))
    assert in_steps.head.hash == at_once.head.hash


@pytest.mark.parametrize("wrong", [{"whales": 0}, {"start": datetime(2026, 1, 1)}])  # noqa: DTZ001
def test_a_chain_without_whales_or_with_a_naive_start_is_refused(wrong):
    with pytest.raises(ValueError, match="at least one whale and an aware start"):
        EvmChain(**{"start": START, "seed": 7, "whales": 5, "chain_id": 1, **wrong})
