"""Own code by state override where a node runs it, Multicall3 where not: the same balances either way."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import stamina
from aiohttp import web

from tracker_pipeline.resources.address_lists import read_address_list
from tracker_pipeline.resources.chain import MULTICALL3, NATIVE, Block, Chain
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.sandbox.chain import make_chain_app
from tracker_pipeline_tests.resources.anvil import Anvil, addresses, running_anvil
from tracker_pipeline_tests.resources.test_chain_client import Json, Proxy, error, exact, on_call
from tracker_pipeline_tests.serving import served

START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = START + timedelta(hours=4)
HOUR = START + timedelta(hours=3)
WHALES = 1000
TOKENS = {
    "HASH": "0x" + "2".rjust(40, "0"),
    "ECHO": "0x" + "4".rjust(40, "0"),
    "NO_TOKEN": MULTICALL3,
}


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    app = make_chain_app(start=START, seed=7, whales=WHALES, clock=lambda: NOW, state_override=True)
    with served(app) as url:
        yield url


@pytest.fixture(scope="module")
def whales(node: str) -> list[str]:
    return [entry.address for entry in read_address_list(f"{node}/whales.csv")]


@pytest.fixture
def proxies(node: str) -> Iterator[Callable[[str], Proxy]]:
    with ExitStack() as stack:

        def start(url: str = node) -> Proxy:
            proxy = Proxy(url)
            proxy.url = stack.enter_context(served(proxy.app()))
            return proxy

        yield start


@pytest.fixture
def proxy(proxies: Callable[[], Proxy]) -> Proxy:
    return proxies()


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


def chain(*urls: str, **options: Any) -> Chain:
    return Chain("ethereum", 1337, urls, **{"clock": lambda: NOW, **options})


def with_override(request: Json) -> bool:
    return request["method"] == "eth_call" and len(request["params"]) == 3


def test_a_thousand_balances_are_one_request_from_the_first_snapshot_on(proxy, node, whales):
    with chain(proxy.url) as client:
        block = client.block_at(HOUR)
        for _ in range(2):
            proxy.asked.clear()
            frame = client.balances(whales, [NATIVE], block)
            assert proxy.asked == ["eth_call"]
    assert frame.get_column("whale_address").to_list() == sorted(whales)
    assert frame.get_column("balance").to_list() == exact(node, sorted(whales), block)
    assert set(frame.get_column("status")) == {"ok"}


def test_both_ways_give_the_same_frame_for_every_kind_of_answer(node, whales):
    wanted = [NATIVE, *TOKENS]
    with chain(node, tokens=TOKENS) as fast, chain(node, tokens=TOKENS, state_override=False) as slow:
        block = fast.block_at(HOUR)
        assert fast.balances(whales[:7], wanted, block).equals(slow.balances(whales[:7], wanted, block))


@pytest.mark.parametrize(
    "refusal",
    [
        error("too many arguments, want at most 2", -32602),
        error("state override is not supported", -32000),
        error("execution reverted", 3),
        {"result": "0x"},
        {"result": "0x" + "00" * 32 * 23},
        {"result": None},
    ],
)
def test_a_node_that_does_not_run_our_code_is_read_through_multicall_from_then_on(
    proxy, node, whales, refusal
):
    overrides = []

    def refuse(request: Json) -> Json | None:
        if not with_override(request):
            return None
        overrides.append(request)
        return refusal

    proxy.behave = refuse
    with chain(proxy.url) as client:
        block = client.block_at(HOUR)
        first = client.balances(whales[:20], [NATIVE], block)
        tries = len(overrides)
        second = client.balances(whales[:20], [NATIVE], block)
    assert first.equals(second)
    assert first.get_column("balance").to_list() == exact(node, sorted(whales[:20]), block)
    assert len(overrides) == tries <= 3


def test_a_node_that_runs_our_code_on_another_block_is_not_believed(proxy, node, whales):
    def newest(request: Json) -> None:
        if with_override(request):
            request["params"][1] = "latest"

    proxy.behave = newest
    with chain(proxy.url) as client:
        block = client.block_at(HOUR)
        frame = client.balances(whales[:20], [NATIVE], block)
    assert frame.get_column("balance").to_list() == exact(node, sorted(whales[:20]), block)


def test_a_node_that_is_away_for_a_moment_is_not_taken_for_one_without_overrides(proxy, whales):
    away = iter(range(3))
    proxy.behave = on_call(lambda request: web.Response(status=503) if next(away, None) is not None else None)
    with chain(proxy.url) as client:
        block = client.block_at(HOUR)
        with pytest.raises(TransientError, match="503"):
            client.balances(whales[:20], [NATIVE], block)
        proxy.asked.clear()
        assert client.balances(whales, [NATIVE], block).height == WHALES
    assert proxy.asked == ["eth_call"]


def test_a_call_that_is_too_much_is_halved_and_not_asked_for_again(proxy, node, whales):
    def few(request: Json) -> Json | None:
        many = with_override(request) and len(request["params"][0]["data"]) > 40 * 600
        return error("EVM error OutOfGas", -32603) if many else None

    proxy.behave = few
    with chain(proxy.url) as client:
        block = client.block_at(HOUR)
        client.balances(whales[:5], [NATIVE], block)
        frame = client.balances(whales, [NATIVE], block)
    assert frame.get_column("balance").to_list() == exact(node, sorted(whales), block)


def test_a_second_endpoint_without_overrides_takes_over(proxies, node, whales):
    first, second = proxies(), proxies()
    second.behave = lambda request: error("too many arguments", -32602) if with_override(request) else None
    with chain(first.url, second.url) as client:
        block = client.block_at(HOUR)
        client.balances(whales[:5], [NATIVE], block)
        first.behave = on_call(lambda request: web.Response(status=503))
        frame = client.balances(whales, [NATIVE], block)
    assert frame.get_column("balance").to_list() == exact(node, sorted(whales), block)


def test_a_block_that_was_replaced_is_named_so(proxy, whales):
    with chain(proxy.url) as client:
        block = client.block_at(HOUR)
        client.balances(whales[:5], [NATIVE], block)
        replaced = Block(block.number, "0x" + "00" * 32, block.timestamp, block.parent_hash)
        with pytest.raises(TransientError, match="another block"):
            client.balances(whales[:5], [NATIVE], replaced)


# On a node that others wrote.


@pytest.fixture(scope="module")
def anvil() -> Iterator[Anvil]:
    from multicall.constants import MULTICALL3_BYTECODE

    with running_anvil("--gas-limit", "60000000") as running:
        running.call("anvil_setCode", MULTICALL3, MULTICALL3_BYTECODE)
        running.fund({address: 10**18 * n + 1 for n, address in enumerate(addresses(32_001))})
        for step in range(1, 5):
            running.mine(int(START.timestamp()) + 900 * step)
        yield running


@pytest.mark.parametrize("count", [1, 16_000, 16_001, 32_001])
@pytest.mark.parametrize("state_override", [True, False])
def test_no_address_is_lost_at_the_edge_of_a_chunk_on_anvil(anvil, count, state_override):
    wanted = addresses(count)
    with chain(anvil.url, state_override=state_override, addresses_per_call=4000) as client:
        block = client.block_at(START + timedelta(hours=1))
        for _ in range(2):  # the first finds out what the node can do
            frame = client.balances(wanted, [NATIVE], block)
    found = dict(zip(frame.get_column("whale_address"), frame.get_column("balance"), strict=True))
    assert found == {address: str(10**18 * n + 1) for n, address in enumerate(wanted)}
    assert set(frame.get_column("status")) == {"ok"}


def test_a_node_that_allows_little_gas_is_read_in_smaller_calls():
    wanted = addresses(6000)
    with running_anvil("--gas-limit", "9000000") as small:
        small.fund(dict.fromkeys(wanted, 7))
        small.mine(int(START.timestamp()) + 900)
        with chain(small.url, state_override=True) as client:
            block = client.block_at(START + timedelta(hours=1))
            client.balances(wanted[:100], [NATIVE], block)
            frame = client.balances(wanted, [NATIVE], block)
    assert frame.get_column("balance").to_list() == ["7"] * 6000


def test_a_token_without_code_is_named(anvil):
    nobody = "0x" + "77" * 20
    with chain(anvil.url, tokens={"WETH": nobody}) as client:
        block = client.block_at(START + timedelta(hours=1))
        with pytest.raises(PermanentError, match=rf"WETH has no contract at {nobody}"):
            client.balances(addresses(3), [NATIVE, "WETH"], block)
