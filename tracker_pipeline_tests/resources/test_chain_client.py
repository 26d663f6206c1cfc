"""The chain client against a real node, and against nodes that fail in every known way."""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import aiohttp
import httpx
import polars as pl
import pytest
import stamina
from aiohttp import web

from tracker_pipeline.domain.multicall import AGGREGATE3, BALANCE_OF
from tracker_pipeline.resources.address_lists import read_address_list
from tracker_pipeline.resources.chain import NATIVE, Block, Chain
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.sandbox.chain import make_chain_app
from tracker_pipeline_tests.serving import served

START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = START + timedelta(hours=10, minutes=30)
HOUR = START + timedelta(hours=6)
WHALES = 1001
DEAD = "http://127.0.0.1:9"

Json = Any
Behaviour = Callable[[Json], Json | web.Response | None]


class Proxy:
    """Passes requests on to a node, and does first what a test wants: an answer of its own, or None.

    Attributes:
        url: where it answers.
        asked: the methods it was asked for.
        behave: gets the request, which it may change.
    """

    def __init__(self, node: str) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.behave: Behaviour = lambda request: None
        self._node = node

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/{path:.*}", self._pass_on)
        return app

    async def _pass_on(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.asked.append(asked["method"])
        answer = self.behave(asked)
        if asyncio.iscoroutine(answer):
            answer = await answer
        if isinstance(answer, web.Response):
            return answer
        if answer is not None:
            return web.json_response({"jsonrpc": "2.0", "id": asked["id"], **answer})
        async with aiohttp.ClientSession() as session, session.post(self._node, json=asked) as response:
            return web.Response(body=await response.read(), content_type="application/json")


def error(message: str, code: int = -32000) -> Json:
    return {"error": {"code": code, "message": message}}


def on_call(answer: Behaviour) -> Behaviour:
    """Behave so on eth_call only."""
    return lambda request: answer(request) if request["method"] == "eth_call" else None


def balances_in(request: Json) -> int:
    """How many calls an aggregate3 call makes, but for three about the block; of other code none."""
    data = request["params"][0]["data"]
    return int(data[2 + 8 + 64 :][:64], 16) - 3 if data.startswith(f"0x{AGGREGATE3.hex()}") else 0


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    with served(make_chain_app(start=START, seed=7, whales=WHALES, clock=lambda: NOW)) as url:
        yield url


@pytest.fixture(scope="module")
def whales(node: str) -> list[str]:
    return [entry.address for entry in read_address_list(f"{node}/whales.csv")]


@pytest.fixture
def proxies(node: str) -> Iterator[Callable[[], Proxy]]:
    with ExitStack() as stack:

        def start() -> Proxy:
            proxy = Proxy(node)
            proxy.url = stack.enter_context(served(proxy.app()))
            return proxy

        yield start


@pytest.fixture
def proxy(proxies: Callable[[], Proxy]) -> Proxy:
    return proxies()


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """Three tries as in earnest, without the pauses."""
    with stamina.set_testing(True, attempts=3):
        yield


def chain(*urls: str, **options: Any) -> Chain:
    return Chain("ethereum", 1337, urls, **{"clock": lambda: NOW, **options})


def exact(url: str, addresses: list[str], block: Block) -> list[str]:
    """Balances as eth_getBalance has them, in the order of addresses."""
    batch = [
        {"jsonrpc": "2.0", "id": 1, "method": "eth_getBalance", "params": [address, hex(block.number)]}
        for address in addresses
    ]
    return [str(int(answer["result"], 16)) for answer in httpx.post(url, json=batch, timeout=60).json()]


def all_blocks(url: str) -> list[Block]:
    with chain(url) as client:
        return [client.block_at(START + timedelta(minutes=minute)) for minute in range(630)]


# The block of a moment.


def test_the_block_of_a_moment_is_the_last_one_that_is_not_later(node):
    blocks = sorted({(block.timestamp, block.number) for block in all_blocks(node)})
    assert [number for _, number in blocks] == list(range(len(blocks)))
    with chain(node) as client:
        for timestamp, number in reversed(blocks):
            assert client.block_at(timestamp).number == number
            if number:
                assert client.block_at(timestamp - timedelta(seconds=1)).number == number - 1


def test_each_hour_of_a_backfill_takes_few_requests(proxy):
    with chain(proxy.url) as client:
        client.block_at(START)
        proxy.asked.clear()
        for hour in range(1, 11):
            client.block_at(START + timedelta(hours=hour))
    assert len(proxy.asked) <= 40


def test_a_long_chain_with_a_jump_in_its_times_is_searched_in_few_requests(proxy):
    # 21 million blocks of 12 s after a block 0 that says 1970, as on the main network.
    head, first = 21_000_000, int(NOW.timestamp()) - 12 * 20_999_999

    def block(request: Json) -> Json:
        name = request["params"][0] if request["method"] == "eth_getBlockByNumber" else None
        if name is None:
            return None
        number = head if name == "latest" else int(name, 16)
        time = first + 12 * (number - 1) if number else 0
        fields = {"number": number, "timestamp": time, "hash": number, "parentHash": max(number - 1, 0)}
        return {"result": {field: hex(value) for field, value in fields.items()}}

    proxy.behave = block
    with chain(proxy.url) as client:
        for back in (timedelta(minutes=7), timedelta(days=400), timedelta(days=2000)):
            proxy.asked.clear()
            moment = NOW - back
            assert client.block_at(moment).number == (int(moment.timestamp()) - first) // 12 + 1
            assert len(proxy.asked) <= 12


def test_a_future_moment_and_one_before_the_chain_have_no_block(node):
    with chain(node) as client:
        with pytest.raises(PermanentError, match="lies in the future"):
            client.block_at(NOW + timedelta(seconds=1))
        with pytest.raises(PermanentError, match="no block as early"):
            client.block_at(START - timedelta(seconds=1))


def test_a_node_that_lags_is_waited_for(node):
    later = NOW + timedelta(hours=5)
    with chain(node, clock=lambda: later) as client, pytest.raises(TransientError, match="has not reached"):
        client.block_at(later)


def test_the_newest_block_counts_once_the_network_has_settled_it(proxy):
    with chain(proxy.url, confirmations=2) as client:
        assert client.block_at(NOW).timestamp <= NOW  # the sandbox calls each block finalized
        proxy.behave = lambda request: (
            error("unknown block tag", -32602) if request["params"][:1] == ["finalized"] else None
        )
        with pytest.raises(TransientError, match="0 of 2 confirmations"):
            client.block_at(NOW)


# Balances.


def test_a_thousand_balances_of_an_old_block_are_one_call_and_exact(proxy, node, whales):
    with chain(proxy.url, state_override=False) as client:
        block = client.block_at(HOUR)
        proxy.asked.clear()
        frame = client.balances(whales[:1000], [NATIVE], block)
    assert proxy.asked == ["eth_call"]
    assert frame.get_column("whale_address").to_list() == sorted(whales[:1000])
    assert frame.get_column("balance").to_list() == exact(node, sorted(whales[:1000]), block)
    assert set(frame.get_column("status")) == {"ok"}
    assert set(frame.get_column("asset")) == {"ETH"}


@pytest.mark.parametrize("count", [1, 20, 21, 41])
def test_no_address_is_lost_at_the_edge_of_a_chunk(node, whales, count):
    with chain(node, addresses_per_call=20) as client:
        block = client.block_at(HOUR)
        frame = client.balances(whales[:count], [NATIVE], block)
    assert frame.get_column("balance").to_list() == exact(node, sorted(whales[:count]), block)


def test_no_addresses_are_no_rows_and_no_request(proxy):
    with chain(proxy.url) as client:
        block = client.block_at(HOUR)
        proxy.asked.clear()
        assert client.balances([], [NATIVE], block).is_empty()
    assert proxy.asked == []


def test_balances_are_those_of_the_block_and_not_of_today(node, whales):
    with chain(node) as client:
        then, now = (client.balances(whales[:100], [NATIVE], client.block_at(at)) for at in (HOUR, NOW))
    assert not then.equals(now)


def test_one_address_in_two_spellings_is_one_row(node, whales):
    with chain(node) as client:
        capitals = "0x" + whales[0][2:].upper()
        assert client.balances([whales[0], capitals], [NATIVE], client.block_at(HOUR)).height == 1


def test_each_way_a_token_can_fail_has_its_status(node, whales):
    # The precompiled contracts stand in for tokens: 2 returns the SHA-256 of its input, 4 the input itself.
    tokens = {
        "HASH": "0x" + "2".rjust(40, "0"),
        "ECHO": "0x" + "4".rjust(40, "0"),
        "NO_TOKEN": "0xcA11bde05977b3631167028862bE2a173976CA11",
    }
    with chain(node, tokens=tokens) as client:
        frame = client.balances(whales[:1], [*tokens, NATIVE], client.block_at(HOUR))
    found = {asset: (balance, status) for asset, _, balance, status in frame.iter_rows()}
    called = BALANCE_OF + bytes.fromhex(whales[0][2:]).rjust(32, b"\0")
    assert found["HASH"] == (str(int.from_bytes(sha256(called).digest(), "big")), "ok")
    assert found["ECHO"] == (None, "decode_error")
    assert found["NO_TOKEN"] == (None, "reverted")
    assert found["ETH"][1] == "ok"


def test_a_token_without_code_is_refused_by_name(node, whales):
    with chain(node, tokens={"NOBODY": whales[1]}) as client:
        block = client.block_at(HOUR)
        with pytest.raises(PermanentError, match=f"NOBODY has no contract at {whales[1]}"):
            client.balances(whales[:2], ["NOBODY", NATIVE], block)


def test_a_token_that_is_not_configured_and_a_wrong_address_are_refused(node, whales):
    with chain(node) as client:
        block = client.block_at(HOUR)
        with pytest.raises(PermanentError, match="no token contract is configured for WETH"):
            client.balances(whales, ["WETH"], block)
        with pytest.raises(PermanentError, match="is not an address"):
            client.balances(["0x12"], [NATIVE], block)


@pytest.mark.parametrize(
    "refusal",
    [
        error("out of gas"),
        error("err: intrinsic gas too low: have 50000000, want 68000000", -32000),
        error("request exceeds the gas cap", -32602),
        error("query timed out"),
    ],
)
def test_a_call_that_is_too_much_is_made_in_parts(proxy, node, whales, refusal):
    proxy.behave = on_call(lambda request: refusal if balances_in(request) > 60 else None)
    with chain(proxy.url) as client:
        block = client.block_at(HOUR)
        frame = client.balances(whales[:201], [NATIVE], block)
    assert frame.get_column("balance").to_list() == exact(node, sorted(whales[:201]), block)


def test_a_body_that_is_too_large_is_made_smaller(proxy, whales):
    proxy.behave = on_call(
        lambda request: web.Response(status=413, text="<html>") if balances_in(request) > 60 else None
    )
    with chain(proxy.url) as client:
        frame = client.balances(whales[:100], [NATIVE], client.block_at(HOUR))
    assert frame.get_column("status").to_list() == ["ok"] * 100


def test_a_call_that_takes_too_long_is_made_smaller(proxy, whales):
    async def slowly() -> None:
        await asyncio.sleep(1)

    proxy.behave = on_call(lambda request: slowly() if balances_in(request) > 60 else None)
    with chain(proxy.url, timeout=timedelta(seconds=0.5)) as client:
        frame = client.balances(whales[:100], [NATIVE], client.block_at(HOUR))
    assert frame.get_column("status").to_list() == ["ok"] * 100


def test_a_chunk_that_fails_for_a_while_is_read_in_the_end(proxy, whales):
    failures = iter([error("internal error", -32603)] * 4)
    proxy.behave = on_call(lambda request: next(failures, None) if balances_in(request) == 10 else None)
    with chain(proxy.url, addresses_per_call=20) as client:
        frame = client.balances(whales[:50], [NATIVE], client.block_at(HOUR))
    assert frame.get_column("status").to_list() == ["ok"] * 50


def test_what_cannot_be_read_is_null_with_a_status_beside_what_can(proxy, whales):
    proxy.behave = on_call(
        lambda request: error("internal error", -32603) if balances_in(request) == 10 else None
    )
    with chain(proxy.url, addresses_per_call=20) as client:
        frame = client.balances(whales[:50], [NATIVE], client.block_at(HOUR))
    unread = frame.filter(pl.col("status") == "rpc_error")
    assert unread.height == unread.get_column("balance").null_count() == 10
    assert frame.filter(pl.col("status") == "ok").get_column("balance").null_count() == 0


def test_nothing_read_at_all_is_a_failure_and_no_frame_of_nulls(proxy, whales):
    proxy.behave = on_call(lambda request: web.Response(status=503))
    with chain(proxy.url, addresses_per_call=20) as client:
        block = client.block_at(HOUR)
        with pytest.raises(TransientError, match="HTTP status 503"):
            client.balances(whales[:50], [NATIVE], block)


@pytest.mark.parametrize(
    ("refusal", "kind", "words"),
    [
        (
            error("missing trie node 0x12 (path )"),
            PermanentError,
            "pruned the state.*archive endpoint is needed",
        ),
        (error("header not found"), PermanentError, "archive endpoint is needed"),
        (error("execution reverted: out of gas", 3), PermanentError, "would give the same answer"),
        (error("execution reverted"), PermanentError, "would give the same answer"),
        (error("the method eth_call does not exist", -32601), PermanentError, "would give the same answer"),
        (error("daily request limit reached", -32005), TransientError, "less often"),
        (web.Response(status=429, headers={"Retry-After": "0"}), TransientError, "HTTP status 429"),
        (web.Response(status=401), PermanentError, "check its URL and key"),
        (web.Response(text="<html>hello</html>"), TransientError, "other than JSON-RPC"),
        (web.Response(text="[]"), TransientError, "other than JSON-RPC"),
        ({"result": "0x"}, PermanentError, "has no Multicall3"),
        ({"result": "0x1234"}, TransientError, "cannot be read"),
        ({"result": None}, TransientError, "cannot be read"),
    ],
)
def test_each_failure_says_whether_another_try_may_help(proxy, whales, refusal, kind, words):
    def answer(request: Json) -> Json | web.Response:
        if not isinstance(refusal, web.Response):
            return refusal
        return web.Response(status=refusal.status, body=refusal.body, headers=refusal.headers)

    proxy.behave = on_call(answer)
    with chain(proxy.url) as client:
        block = client.block_at(HOUR)
        with pytest.raises(kind, match=words):
            client.balances(whales[:5], [NATIVE], block)


def test_answers_for_another_block_than_the_pinned_one_are_refused(proxy, whales):
    def newest(request: Json) -> None:
        request["params"][1] = "latest"

    proxy.behave = on_call(newest)
    with chain(proxy.url) as client:
        block = client.block_at(HOUR)
        with pytest.raises(PermanentError, match=f"asked for block {block.number} and answered for block"):
            client.balances(whales[:5], [NATIVE], block)


# Endpoints.


def test_an_endpoint_of_another_chain_is_refused_with_both_ids(node):
    sentence = "serves chain 1337, but ethereum is chain 1"
    with Chain("ethereum", 1, [node]) as client, pytest.raises(PermanentError, match=sentence):
        client.block_at(HOUR)


def test_the_chain_id_is_asked_for_once(proxy, whales):
    with chain(proxy.url) as client:
        client.balances(whales[:5], [NATIVE], client.block_at(HOUR))
        client.block_at(NOW)
    assert proxy.asked.count("eth_chainId") == 1


@pytest.mark.parametrize("away", [DEAD, "html", "refused"])
def test_an_endpoint_that_does_not_serve_is_passed_over(proxy, node, whales, away):
    proxy.behave = lambda request: web.Response(status=200 if away == "html" else 403, text="<html>")
    with chain(DEAD if away == DEAD else proxy.url, node) as client:
        block = client.block_at(HOUR)
        frame = client.balances(whales[:5], [NATIVE], block)
    assert frame.get_column("balance").to_list() == exact(node, sorted(whales[:5]), block)


def test_an_endpoint_that_fails_is_asked_last_for_a_while(proxy, node, whales):
    proxy.behave = lambda request: web.Response(status=503)
    with chain(proxy.url, node) as client:
        client.block_at(HOUR)
        proxy.asked.clear()
        client.balances(whales[:5], [NATIVE], client.block_at(NOW))
    assert proxy.asked == []


def test_a_second_endpoint_takes_over_in_the_middle_of_a_snapshot(proxies, node, whales):
    first, second = proxies(), proxies()
    calls = iter(range(100))
    first.behave = on_call(lambda request: web.Response(status=503) if next(calls) >= 1 else None)
    with chain(first.url, second.url, addresses_per_call=10) as client:
        block = client.block_at(HOUR)
        frame = client.balances(whales[:30], [NATIVE], block)
    assert frame.get_column("balance").to_list() == exact(node, sorted(whales[:30]), block)
    assert "eth_getBlockByNumber" in second.asked  # it showed that it has the same block


def test_an_endpoint_with_another_history_takes_no_part_in_a_snapshot(proxy, whales):
    proxy.behave = on_call(lambda request: web.Response(status=503))
    app = make_chain_app(start=START, seed=8, whales=5, clock=lambda: NOW)
    with served(app) as other, chain(proxy.url, other) as client:
        block = client.block_at(HOUR)
        with pytest.raises(TransientError):
            client.balances(whales[:5], [NATIVE], block)


def test_a_block_that_was_replaced_must_be_pinned_anew(node, whales):
    with chain(node) as client:
        block = client.block_at(HOUR)
        replaced = Block(block.number, "0x" + "00" * 32, block.timestamp, block.parent_hash)
        with pytest.raises(TransientError, match=r"another block .* than the one pinned"):
            client.balances(whales[:5], [NATIVE], replaced)


def test_a_pruned_node_is_passed_over_for_an_archive(proxy, node, whales):
    proxy.behave = on_call(lambda request: error("missing trie node"))
    with chain(proxy.url, node) as client:
        frame = client.balances(whales[:5], [NATIVE], client.block_at(HOUR))
    assert set(frame.get_column("status")) == {"ok"}


def test_no_message_holds_the_key_of_a_url(proxy, caplog):
    caplog.set_level("INFO")
    url = proxy.url.replace("http://", "http://user:s3cret@") + "/v3/s3cret?key=s3cret"
    for behaviour in (
        lambda request: web.Response(status=401),
        lambda request: web.Response(status=500),
        lambda request: error(f"bad request to {url}"),
        lambda request: web.Response(text="<html>"),
    ):
        proxy.behave = behaviour
        with chain(url) as client, pytest.raises((PermanentError, TransientError)) as failure:
            client.block_at(HOUR)
        assert proxy.url in str(failure.value)
        assert "s3cret" not in str(failure.value)
    with chain("http://127.0.0.1:9/s3cret") as client, pytest.raises(TransientError) as failure:
        client.block_at(HOUR)
    assert "s3cret" not in str(failure.value)
    ours = [record.getMessage() for record in caplog.records if record.name != "aiohttp.access"]
    assert ours
    assert not any("s3cret" in message for message in ours)


@pytest.mark.parametrize("urls", [[], ["ftp://host/"], ["host:8545"], ["http://host:port"], ["http://"]])
def test_urls_that_are_none_are_refused(urls):
    with pytest.raises(PermanentError):
        chain(*urls)


def test_a_node_whose_blocks_cannot_be_read_is_no_node(proxy):
    proxy.behave = lambda request: (
        {"result": {"number": "0x"}} if request["method"] == "eth_getBlockByNumber" else None
    )
    with chain(proxy.url) as client, pytest.raises(TransientError, match="cannot be read"):
        client.block_at(HOUR)


def test_a_client_is_shared_between_threads(node, whales):
    hours = [START + timedelta(hours=hour) for hour in range(1, 9)]
    with chain(node, addresses_per_call=10) as client, ThreadPoolExecutor(4) as threads:
        frames = list(
            threads.map(lambda hour: client.balances(whales[:30], [NATIVE], client.block_at(hour)), hours)
        )
    assert all(frame.get_column("status").to_list() == ["ok"] * 30 for frame in frames)
    assert len({json.dumps(frame.get_column("balance").to_list()) for frame in frames}) > 1
