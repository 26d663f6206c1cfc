"""Balances of many addresses at one block of one network, and the block of a moment.

What belongs here: what is asked of nodes, which node is asked, and how answers become frames. What does not: HTTP and
the wording of errors (`json_rpc.py`), the bytes of calls (`domain.multicall`), which addresses (`address_lists.py`).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType, TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

import polars as pl

from tracker_pipeline.domain import multicall
from tracker_pipeline.domain.addresses import normalise
from tracker_pipeline.resources.block_search import Block, last_at
from tracker_pipeline.resources.errors import PermanentError, PipelineError, TransientError
from tracker_pipeline.resources.json_rpc import Endpoint, MissingStateError, RefusedError, TooMuchError

__all__ = ["NATIVE", "Block", "Chain"]

NATIVE: Final = "ETH"
MULTICALL3: Final = "0xcA11bde05977b3631167028862bE2a173976CA11"
BALANCE_SCHEMA: Final = pl.Schema(dict.fromkeys(("asset", "whale_address", "balance", "status"), pl.String()))

_Result = TypeVar("_Result")
_log: Final = logging.getLogger(__name__)

_NO_TOKENS: Final[Mapping[str, str]] = MappingProxyType({})
_SMALLEST_CHUNK: Final = 50  # below this a call fails for another reason than its size
_PARALLEL: Final = 4  # calls in flight; more gained nothing with 50 ms of latency and annoy public endpoints
_REST_SECONDS: Final = 60.0  # how long an endpoint that failed is asked last
# The head may lie this far before a moment and still be the last block of that moment, on chains that have settled
# it. Between two blocks of a private chain half an hour may pass.
_LONGEST_GAP: Final = timedelta(hours=1)


class _Balance(NamedTuple):
    asset: str
    address: str
    read: multicall.Read | None  # None while unknown


@dataclass
class _Node:
    """An endpoint with what is known about it."""

    endpoint: Endpoint
    chain_id_seen: bool = False
    served: set[str] = field(default_factory=set)  # hashes of blocks that it has shown to have
    asked_last_until: float = 0.0


class Chain:
    """One network, read through one or more endpoints.

    The endpoints are asked in the given order. One that fails, after its own retries, is passed over for the next,
    and asked last for a minute. All balances of a snapshot come from the same block: an endpoint is asked for them
    only if it has the block with the same hash, and every call says on which block it ran.

    Safe to share between threads. Use as a context manager or call `close`.

    Args:
        network: its name, for messages.
        chain_id: what the endpoints must say they serve.
        rpc_urls: in order of preference; may hold keys, which no message repeats.
        multicall3: address of the Multicall3 contract.
        addresses_per_call: balances in one `eth_call`; 1,000 cost 6 to 7 million gas. Smaller calls follow where
            a node refuses that many.
        timeout: of one request.
        confirmations: blocks that must follow a block before it is taken as settled. One that the network calls
            finalized needs none.
        tokens: asset name to address of its ERC-20 contract, beside the native `ETH`.
        clock: what time it is.

    Raises:
        PermanentError: there is no URL, one of them is not of http or https, or an address is not one.
    """

    def __init__(
        self,
        network: str,
        chain_id: int,
        rpc_urls: Sequence[str],
        *,
        multicall3: str = MULTICALL3,
        addresses_per_call: int = 1000,
        timeout: timedelta = timedelta(seconds=30),
        confirmations: int = 0,
        tokens: Mapping[str, str] = _NO_TOKENS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if not rpc_urls:
            raise PermanentError(f"no JSON-RPC endpoint of {network} is given; add one to the configuration")
        self._network = network
        self._chain_id = chain_id
        self._multicall3 = _raw(multicall3)
        self._tokens = {asset: _raw(address) for asset, address in tokens.items()}
        self._addresses_per_call = addresses_per_call
        self._confirmations = confirmations
        self._clock = clock
        self._nodes = [_Node(Endpoint(url, timeout)) for url in rpc_urls]
        self._settled: dict[int, Block] = {}
        self._looking = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        for node in self._nodes:
            node.endpoint.close()

    def block_at(self, moment: datetime) -> Block:
        """Return the last block with a timestamp of `moment` or earlier.

        Blocks seen on the way are kept, so the hours of a backfill take about four requests each.

        Args:
            moment: aware, in the past.

        Raises:
            TransientError: the network has not reached the moment, or the block is not settled yet; or no endpoint
                answered.
            PermanentError: the moment lies in the future or before the chain's first block, an endpoint serves
                another chain, or all endpoints refuse.
        """
        if moment > self._clock():
            raise PermanentError(f"{moment:%Y-%m-%d %H:%M:%S}Z lies in the future; ask for a moment that has passed")
        with self._looking:
            return self._asking_each(self._nodes, lambda node: self._block_at(node, moment))

    def balances(self, addresses: Sequence[str], assets: Sequence[str], block: Block) -> pl.DataFrame:
        """Return what each address held of each asset after a block.

        1,000 native balances take one request. A balance that could not be read is NULL with the reason as status.

        Args:
            addresses: in any spelling; repeated ones count once.
            assets: `ETH` for native balances, or names of the configured tokens.
            block: from `block_at`.

        Returns:
            asset, whale_address (lower-case), balance (decimal text of the smallest unit, or NULL) and status
            (`ok`, `reverted`, `empty_return`, `decode_error`, `rpc_error`), sorted by asset and address.

        Raises:
            TransientError: nothing could be read, or the block was replaced by another.
            PermanentError: an address is not one, an asset is not configured, no endpoint keeps the state of the
                block, or an endpoint answered for another block.
        """
        unread = [_Balance(asset, address, None) for asset in assets for address in sorted(set(_all(addresses)))]
        unknown = sorted(set(assets) - {NATIVE, *self._tokens})
        if unknown:
            raise PermanentError(f"no token contract is configured for {', '.join(unknown)}; add its address")
        read: list[_Balance] = []
        failure: TransientError | None = None
        for _ in range(2):  # what could not be read gets a second try, after the others
            done, unread, failure = self._read_in_chunks(unread, block)
            read += done
        if failure is not None and not read:
            raise failure
        rows = [_row(balance) for balance in (*read, *unread)]
        return pl.DataFrame(rows, schema=BALANCE_SCHEMA, orient="row").sort("asset", "whale_address")

    def _read_in_chunks(
        self, wanted: Sequence[_Balance], block: Block
    ) -> tuple[list[_Balance], list[_Balance], TransientError | None]:
        """What was read, what was not, and the last failure."""
        size = self._addresses_per_call
        chunks = [wanted[start : start + size] for start in range(0, len(wanted), size)]
        if len(chunks) == 1:
            answers = [self._read_or_split(chunks[0], block)]
        else:
            with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="balances") as pool:
                answers = list(pool.map(lambda chunk: self._read_or_split(chunk, block), chunks))
        balances = [balance for answer, _ in answers for balance in answer]
        failures = [failure for _, failure in answers if failure is not None]
        return (
            [balance for balance in balances if balance.read is not None],
            [balance for balance in balances if balance.read is None],
            failures[-1] if failures else None,
        )

    def _read_or_split(
        self, chunk: Sequence[_Balance], block: Block
    ) -> tuple[list[_Balance], TransientError | None]:
        """Read a chunk, by halves where it is too much at once; as it is with the failure where that fails too."""
        try:
            return self._read(chunk, block), None
        except TooMuchError as error:
            if len(chunk) <= _SMALLEST_CHUNK:
                return list(chunk), error
            middle = len(chunk) // 2
            left, first = self._read_or_split(chunk[:middle], block)
            right, second = self._read_or_split(chunk[middle:], block)
            return left + right, first or second
        except _ReorganisedError:
            raise
        except TransientError as error:
            return list(chunk), error

    def _read(self, chunk: Sequence[_Balance], block: Block) -> list[_Balance]:
        attestation = multicall.block_attestation(self._multicall3, block.number)
        calls = [*attestation, *(self._call_for(balance) for balance in chunk)]
        data = "0x" + multicall.encode_aggregate3(calls).hex()

        def ask(node: _Node) -> list[multicall.Returned]:
            self._require_block(node, block)
            answer = node.endpoint.call("eth_call", {"to": _hex(self._multicall3), "data": data}, hex(block.number))
            returned = self._decoded(node, answer, len(calls), block)
            self._check_attestation(node, returned[: len(attestation)], block)
            return returned[len(attestation) :]

        returned = self._asking_each(self._nodes, ask)
        reads = multicall.read_all(returned)
        return [balance._replace(read=read) for balance, read in zip(chunk, reads, strict=True)]

    def _call_for(self, balance: _Balance) -> multicall.Call:
        address = _raw(balance.address)
        if balance.asset == NATIVE:
            return multicall.eth_balance(self._multicall3, address)
        return multicall.token_balance(self._tokens[balance.asset], address)

    def _decoded(self, node: _Node, answer: Any, count: int, block: Block) -> list[multicall.Returned]:
        if answer == "0x":
            raise PermanentError(
                f"{self._network} has no Multicall3 at {_hex(self._multicall3)} in block {block.number}: correct the"
                " address, or ask for a later hour"
            )
        try:
            return multicall.decode_aggregate3(bytes.fromhex(answer[2:]), count)
        except (ValueError, TypeError):
            raise TransientError(
                f"{node.endpoint.name} answered a Multicall3 call in a form that cannot be read; try again later"
            ) from None

    def _check_attestation(self, node: _Node, said: Sequence[multicall.Returned], block: Block) -> None:
        """Refuse balances of any block but the pinned one."""
        number, timestamp, parent = (read.value for read in multicall.read_all(said))
        same = number == block.number and timestamp == int(block.timestamp.timestamp())
        # 0 is how a node says that it does not know the hash.
        if same and (not parent or parent == int(block.parent_hash, 16)):
            return
        if self._read_block(node, hex(block.number)).hash != block.hash:
            raise _ReorganisedError(_reorganised(block))
        raise PermanentError(
            f"{node.endpoint.name} was asked for block {block.number} and answered for block {number} of time"
            f" {timestamp}: it cannot be relied on, use another endpoint"
        )

    def _require_block(self, node: _Node, block: Block) -> None:
        """Pass over an endpoint that has not the same block."""
        if block.hash in node.served:
            return
        found = self._read_block(node, hex(block.number))
        if found.hash != block.hash:
            raise _ReorganisedError(_reorganised(block))
        node.served.add(block.hash)

    def _block_at(self, node: _Node, moment: datetime) -> Block:
        known = self._settled.values()
        later = min((b for b in known if b.timestamp > moment), key=_number, default=None)
        earlier = max((b for b in known if b.timestamp <= moment), key=_number, default=None)
        head = self._read_block(node, "latest") if later is None else None
        if head is not None and head.timestamp <= moment:
            found: Block | None = head
            self._require_near(node, head, moment)
        else:
            found = last_at(
                moment,
                earlier=earlier,
                later=later or head,
                read=lambda number: self._read_numbered(node, number, head),
            )
        if found is None:
            raise PermanentError(f"{self._network} has no block as early as {moment:%Y-%m-%d %H:%M:%S}Z")
        if found.number not in self._settled:
            self._require_settled(node, found, head)
        node.served.add(found.hash)
        return found

    def _read_numbered(self, node: _Node, number: int, head: Block | None) -> Block:
        """A block by number, from memory where it is settled."""
        if number in self._settled:
            return self._settled[number]
        block = self._read_block(node, hex(number))
        # Without a head the search is below a settled block, so whatever it meets is settled too.
        if head is None or number <= head.number - self._confirmations:
            self._settled[number] = block
        return block

    def _require_near(self, node: _Node, head: Block, moment: datetime) -> None:
        if moment - head.timestamp > _LONGEST_GAP:
            raise TransientError(
                f"the node has not reached {moment:%Y-%m-%d %H:%M:%S}Z: the newest block of {node.endpoint.name} is"
                f" {head.number} of {head.timestamp:%Y-%m-%d %H:%M:%S}Z; try again when it has caught up"
            )

    def _require_settled(self, node: _Node, block: Block, head: Block | None) -> None:
        if head is None or block.number <= head.number - self._confirmations:
            return
        try:
            finalized = self._read_block(node, "finalized").number
        except PermanentError:  # a network without finality
            finalized = -1
        if block.number > finalized:
            raise TransientError(
                f"block {block.number} of {self._network} has {head.number - block.number} of"
                f" {self._confirmations} confirmations; try again in a minute"
            )

    def _read_block(self, node: _Node, name: str) -> Block:
        answer = node.endpoint.call("eth_getBlockByNumber", name, False)
        if answer is None:
            raise MissingStateError(f"{node.endpoint.name} does not have block {name}; use another endpoint")
        try:
            return Block(
                number=int(answer["number"], 16),
                hash=answer["hash"].lower(),
                timestamp=datetime.fromtimestamp(int(answer["timestamp"], 16), UTC),
                parent_hash=answer["parentHash"].lower(),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise TransientError(
                f"{node.endpoint.name} answered for block {name} in a form that cannot be read; try again later"
            ) from None

    def _asking_each(self, nodes: Sequence[_Node], ask: Callable[[_Node], _Result]) -> _Result:
        """The answer of the first endpoint that has one."""
        failures: list[PipelineError] = []
        for node in _in_order(nodes):
            try:
                self._require_chain_id(node)
                return ask(node)
            except TooMuchError:
                raise
            except (TransientError, MissingStateError, RefusedError) as error:
                failures.append(error)
                node.asked_last_until = time.monotonic() + _REST_SECONDS
                _log.warning("%s", error)
        # A failure that may pass outweighs one that will not: with that endpoint back, the answer may be had.
        passing = [failure for failure in failures if isinstance(failure, TransientError)]
        raise (passing or failures)[0]

    def _require_chain_id(self, node: _Node) -> None:
        if node.chain_id_seen:
            return
        answer = node.endpoint.call("eth_chainId")
        try:
            found = int(answer, 16)
        except (TypeError, ValueError):
            raise TransientError(f"{node.endpoint.name} gave no chain id that can be read; try again later") from None
        if found != self._chain_id:
            raise PermanentError(
                f"{node.endpoint.name} serves chain {found}, but {self._network} is chain {self._chain_id}: correct"
                " the URL or the chain id"
            )
        node.chain_id_seen = True


class _ReorganisedError(TransientError):
    """The pinned block is no longer, or not here, part of the chain."""


def _reorganised(block: Block) -> str:
    return f"block {block.number} is another than when the hour was pinned ({block.hash}); run the hour again"


def _in_order(nodes: Sequence[_Node]) -> Iterator[_Node]:
    now = time.monotonic()
    yield from sorted(nodes, key=lambda node: node.asked_last_until > now)


def _number(block: Block) -> int:
    return block.number


def _all(addresses: Sequence[str]) -> list[str]:
    try:
        return [normalise(address) for address in addresses]
    except ValueError as error:
        raise PermanentError(f"{error}; correct the address list") from None


def _raw(address: str) -> bytes:
    return bytes.fromhex(_all([address])[0][2:])


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _row(balance: _Balance) -> tuple[str, str, str | None, str]:
    if balance.read is None:
        return balance.asset, balance.address, None, "rpc_error"
    value, status = balance.read
    return balance.asset, balance.address, None if value is None else str(value), status
