"""How long a snapshot of native balances takes, against what else there is, side by side in one run.

    python -m benchmarks.balances

A real node (anvil) behind a line that adds 0 and 50 ms to each request. All ways alternate within each repetition,
every answer is compared with the balances that were set, and medians are shown. Figures marked * were measured on
fewer addresses and scaled. Exits 1 where a target is missed. About three minutes.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
from multicall import Call, Multicall
from multicall.constants import MULTICALL3_BYTECODE
from web3 import HTTPProvider, Web3

from benchmarks.slow_line import slow_line
from tracker_pipeline.domain.multicall import eth_balance
from tracker_pipeline.resources.chain import MULTICALL3, NATIVE, Chain
from tracker_pipeline_tests.resources.anvil import Anvil, addresses, running_anvil

SIZES = (1_000, 10_000, 100_000)
LATENCIES_MS = (0, 50)
REPETITIONS = {1_000: 9, 10_000: 5, 100_000: 5}
START = 1_772_323_200
BLOCK = 4  # all ways have looked it up before they are timed
OURS, OURS_MULTICALL3 = "state override", "Multicall3, own encoding"
MULTICALL, BATCHES, CHUNKS = "multicall", "web3 batch_requests", "web3 contract, chunks of 100"
_CALL = {"name": "calls", "type": "tuple[]"} | {
    "components": [
        {"name": "target", "type": "address"},
        {"name": "allowFailure", "type": "bool"},
        {"name": "callData", "type": "bytes"},
    ]
}
_RETURNED = {"name": "returnData", "type": "tuple[]"} | {
    "components": [{"name": "success", "type": "bool"}, {"name": "returnData", "type": "bytes"}]
}
AGGREGATE3 = [
    {"name": "aggregate3", "type": "function", "stateMutability": "payable"}
    | {"inputs": [_CALL], "outputs": [_RETURNED]}
]

Read = Callable[[Sequence[str]], Any]


@dataclass(frozen=True)
class Way:
    """A way to read balances.

    Attributes:
        opened: URL and block number to a function from addresses to balances in wei.
        most: what it is asked for at once; larger sizes are scaled from that.
    """

    opened: Callable[[str, int], AbstractContextManager[Read]]
    most: int = SIZES[-1]


@contextmanager
def ours(url: str, number: int, **options: Any) -> Iterator[Read]:
    now = datetime.fromtimestamp(START + 5000, UTC)
    with Chain("ethereum", 1, [url], clock=lambda: now, timeout=timedelta(seconds=120), **options) as client:
        block = client.block_at(datetime.fromtimestamp(START + 900 * number, UTC))
        yield lambda wanted: client.balances(wanted, [NATIVE], block)


@contextmanager
def multicall_package(url: str, number: int) -> Iterator[Read]:
    w3 = web3_of(url, number)

    def read(wanted: Sequence[str]) -> Mapping[str, int]:
        calls = [
            Call(MULTICALL3, ["getEthBalance(address)(uint256)", address], [(address, int)])
            for address in wanted
        ]
        # Its own default of 50 million gas is less than its default chunk of 10,000 needs.
        return Multicall(calls, block_id=number, gas_limit=10**9, _w3=w3)()

    yield read


@contextmanager
def web3_batches(url: str, number: int) -> Iterator[Read]:
    w3 = web3_of(url, number)

    def read(wanted: Sequence[str]) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(wanted), 1000):
            part = wanted[start : start + 1000]
            with w3.batch_requests() as batch:
                for address in part:
                    batch.add(w3.eth.get_balance(Web3.to_checksum_address(address), number))
                found.update(zip(part, batch.execute(), strict=True))
        return found

    yield read


@contextmanager
def web3_chunks(url: str, number: int) -> Iterator[Read]:
    w3 = web3_of(url, number)
    contract = w3.eth.contract(address=Web3.to_checksum_address(MULTICALL3), abi=AGGREGATE3)
    raw = bytes.fromhex(MULTICALL3[2:])

    def read(wanted: Sequence[str]) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(wanted), 100):
            part = wanted[start : start + 100]
            calls = [(MULTICALL3, True, eth_balance(raw, bytes.fromhex(a[2:])).data) for a in part]
            answers = contract.functions.aggregate3(calls).call(block_identifier=number)
            found.update((a, int.from_bytes(data, "big")) for a, (_, data) in zip(part, answers, strict=True))
        return found

    yield read


def web3_of(url: str, number: int) -> Web3:
    """A client that has looked up the block, as ours has."""
    w3 = Web3(HTTPProvider(url, request_kwargs={"timeout": 120}))
    w3.eth.get_block(number)
    return w3


WAYS = {
    OURS: Way(ours),
    OURS_MULTICALL3: Way(partial(ours, state_override=False, addresses_per_call=5000)),
    MULTICALL: Way(multicall_package),
    BATCHES: Way(web3_batches, most=2_000),
    CHUNKS: Way(web3_chunks, most=1_000),
}


def measured(url: str, expected: Mapping[str, int], size: int) -> dict[str, float]:
    """Median milliseconds of each way for `size` addresses, with a client of its own each time as in a new run."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    wanted = list(expected)[:size]
    for repetition in range(REPETITIONS[size]):
        for name, way in WAYS.items():
            part = wanted[: way.most]
            if len(part) < size and repetition > 2:  # what is scaled is measured well enough
                continue
            with way.opened(url, BLOCK) as read:
                begin = time.perf_counter()
                found = read(part)
                seconds[name].append((time.perf_counter() - begin) * size / len(part))
            require_right(name, found, {address: expected[address] for address in part})
    return {name: statistics.median(times) * 1000 for name, times in seconds.items()}


def require_right(name: str, found: Any, expected: Mapping[str, int]) -> None:
    """Stop where a way loses or changes a balance."""
    if isinstance(found, pl.DataFrame):  # ours are text; other ways do not give a table at all
        columns = (found.get_column("whale_address"), map(int, found.get_column("balance")))
        found = dict(zip(*columns, strict=True))
    if found != expected:
        raise SystemExit(f"{name} gave {len(found)} of {len(expected)} balances, or wrong ones")


def round_trip(url: str) -> float:
    """Median milliseconds of a request that costs the node nothing."""
    with Chain("ethereum", 1, [url]) as client:
        node = client._pool.preferred
        times = []
        for _ in range(20):
            begin = time.perf_counter()
            node.endpoint.call("eth_chainId")
            times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1000


def memory_growth_mb(work: Callable[[], object]) -> float:
    """How far the peak of this process's memory rises above what it holds before."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_mb("VmRSS")
    work()
    return _status_mb("VmHWM") - before


def _status_mb(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def prepared(node: Anvil) -> dict[str, int]:
    """Fund the addresses and mine some blocks; returns what each holds."""
    expected = {address: 10**18 * (n % 5000) + n for n, address in enumerate(addresses(SIZES[-1]))}
    node.call("anvil_setCode", MULTICALL3, MULTICALL3_BYTECODE)
    node.fund(expected)
    for step in range(1, 6):
        node.mine(START + 900 * step)
    return expected


def targets(
    result: Mapping[tuple[int, int], Mapping[str, float]], trip: float, grown: float
) -> list[tuple[str, float, bool]]:
    """Each target: what it says, the figure, whether it is met."""

    def times(size: int, latency: int, peer: str, way: str = OURS) -> float:
        figures = result[size, latency]
        return figures[peer] / figures[way]

    at_50 = result[1_000, 50][OURS] / trip
    least = [
        ("1,000 at 50 ms: 2.2 x faster than multicall", times(1_000, 50, MULTICALL), 2.2),
        ("1,000 at 50 ms: 25 x faster than chunks of 100", times(1_000, 50, CHUNKS), 25),
        ("1,000 at 0 ms: 6 x faster than multicall", times(1_000, 0, MULTICALL), 6),
        ("10,000 at 50 ms: 4 x faster than multicall", times(10_000, 50, MULTICALL), 4),
        ("100,000 at 50 ms: 10 x faster than multicall", times(100_000, 50, MULTICALL), 10),
        (
            "100,000 at 50 ms through Multicall3: 4 x faster than multicall",
            times(100_000, 50, MULTICALL, OURS_MULTICALL3),
            4,
        ),
    ]
    return [
        ("1,000 at 50 ms: at most 1.25 round trips", at_50, at_50 <= 1.25),
        *((text, figure, figure >= limit) for text, figure, limit in least),
        ("100,000 addresses: memory grows by less than 200 MB", grown, grown < 200),
    ]


def main() -> int:
    result: dict[tuple[int, int], dict[str, float]] = {}
    with running_anvil("--gas-limit", "2000000000", chain_id=1) as node:
        expected = prepared(node)
        for latency in LATENCIES_MS:
            with slow_line(urlsplit(node.url).port or 0, latency / 1000) as url:
                trip = round_trip(url)
                print(f"\n{latency} ms added to each request; a round trip takes {trip:.1f} ms", flush=True)
                for size in SIZES:
                    figures = result[size, latency] = measured(url, expected, size)
                    print_figures(size, figures)
                with ours(url, BLOCK) as read:
                    grown = memory_growth_mb(partial(read, list(expected)))
    print("\nTargets")
    judged = targets(result, trip, grown)
    for text, figure, met in judged:
        print(f"  {'met   ' if met else 'MISSED'} {figure:8.2f}  {text}")
    return 0 if all(met for *_, met in judged) else 1


def print_figures(size: int, figures: Mapping[str, float]) -> None:
    print(f"  {size:,} balances")
    for name, milliseconds in figures.items():
        scaled = "*" if WAYS[name].most < size else " "
        faster = milliseconds / figures[OURS]
        print(f"    {name:30} {milliseconds:10.1f} ms{scaled}  state override is {faster:6.1f} x as fast")


if __name__ == "__main__":
    sys.exit(main())
