"""Balances of many addresses at one block of one network, and the block of a moment.

What belongs here: what is asked of nodes and how answers become frames. What does not: HTTP and the wording of errors
(`json_rpc.py`), which endpoint is asked (`rpc_pool.py`), the search for a block (`block_search.py`), the bytes of
calls (`domain.multicall`), which addresses (`address_lists.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import MappingProxyType, TracebackType
from typing import Any, Final, NamedTuple, Self

import polars as pl

from tracker_pipeline.domain import multicall
from tracker_pipeline.domain.addresses import normalise
from tracker_pipeline.resources.block_search import BlockFinder
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.resources.json_rpc import TooMuchError
from tracker_pipeline.resources.rpc_pool import Block, Node, ReorganisedError, RpcPool

__all__ = ["BALANCE_SCHEMA", "MULTICALL3", "NATIVE", "Block", "Chain"]

NATIVE: Final = "ETH"
MULTICALL3: Final = "0xcA11bde05977b3631167028862bE2a173976CA11"
BALANCE_SCHEMA: Final = pl.Schema(dict.fromkeys(("asset", "whale_address", "balance", "status"), pl.String()))

_NO_TOKENS: Final[Mapping[str, str]] = MappingProxyType({})
_SMALLEST_CHUNK: Final = 50  # below this a call fails for another reason than its size
_PARALLEL: Final = 4  # calls in flight: enough to hide 50 ms of latency, few enough for public endpoints


class _Balance(NamedTuple):
    asset: str
    address: str
    read: multicall.Read | None = None  # None while unknown


class _Attempt(NamedTuple):
    """What an attempt at some balances gave: those not read stand there without `read`."""

    balances: list[_Balance]
    failure: TransientError | None = None

    @property
    def unread(self) -> list[_Balance]:
        return [balance for balance in self.balances if balance.read is None]

    @property
    def nothing_read(self) -> bool:
        return len(self.unread) == len(self.balances)


class Chain:
    """One network, read through one or more endpoints.

    The endpoints are asked in the given order. One that fails, after its own retries, is passed over for the next,
    and asked last for a minute. All balances of a snapshot come from the same block: an endpoint is asked for them
    only if it has the block with the same hash, and every answer says on which block it was computed.

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
        self._multicall3 = _raw(multicall3)
        self._tokens = {asset: _raw(address) for asset, address in tokens.items()}
        self._addresses_per_call = addresses_per_call
        self._clock = clock
        self._pool = RpcPool(network, chain_id, rpc_urls, timeout)
        self._finder = BlockFinder(self._pool, confirmations)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def block_at(self, moment: datetime) -> Block:
        """Return the last block with a timestamp of `moment` or earlier.

        Args:
            moment: aware, in the past.

        Raises:
            TransientError: the network has not reached the moment, or the block is not settled yet; or no endpoint
                answered.
            PermanentError: the moment lies in the future or before the chain's first block, an endpoint serves
                another chain, or all endpoints refuse.
        """
        if moment > self._clock():
            raise PermanentError(
                f"{moment:%Y-%m-%d %H:%M:%S}Z lies in the future; ask for a moment that has passed"
            )
        return self._finder.find(moment)

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
        unknown = sorted(set(assets) - {NATIVE, *self._tokens})
        if unknown:
            raise PermanentError(f"no token contract is configured for {', '.join(unknown)}; add its address")
        distinct = sorted({_normalised(address) for address in addresses})
        wanted = [_Balance(asset, address) for asset in sorted(set(assets)) for address in distinct]
        attempt = self._attempt_in_chunks(wanted, block)
        if attempt.failure is not None and attempt.nothing_read:
            raise attempt.failure
        read = [balance for balance in attempt.balances if balance.read is not None]
        # What could not be read gets a second try after everything else.
        second = self._attempt_in_chunks(attempt.unread, block)
        rows = [_row(balance) for balance in (*read, *second.balances)]
        return pl.DataFrame(rows, schema=BALANCE_SCHEMA, orient="row").sort("asset", "whale_address")

    def _attempt_in_chunks(self, wanted: Sequence[_Balance], block: Block) -> _Attempt:
        size = self._addresses_per_call
        chunks = [wanted[start : start + size] for start in range(0, len(wanted), size)]
        if len(chunks) < 2:
            attempts = [self._attempt(chunk, block) for chunk in chunks]
        else:
            with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="balances") as threads:
                attempts = list(threads.map(lambda chunk: self._attempt(chunk, block), chunks))
        return _together(attempts)

    def _attempt(self, chunk: Sequence[_Balance], block: Block) -> _Attempt:
        """Read a chunk, by halves where it is too much at once."""
        try:
            return _Attempt(self._read(chunk, block))
        except ReorganisedError:
            raise
        except TransientError as error:
            if not isinstance(error, TooMuchError) or len(chunk) <= _SMALLEST_CHUNK:
                return _Attempt(list(chunk), error)
        middle = len(chunk) // 2
        first = self._attempt(chunk[:middle], block)
        # A node that answers nothing of the first half would keep us waiting once more for each part of the second.
        if first.nothing_read:
            return _Attempt(list(chunk), first.failure)
        return _together([first, self._attempt(chunk[middle:], block)])

    def _read(self, chunk: Sequence[_Balance], block: Block) -> list[_Balance]:
        attestation = multicall.block_attestation(self._multicall3, block.number)
        calls = [*attestation, *(self._call_for(balance) for balance in chunk)]
        call = {"to": _hex(self._multicall3), "data": _hex(multicall.encode_aggregate3(calls))}

        def ask(node: Node) -> list[multicall.Returned]:
            node.require_block(block)
            answer = node.endpoint.call("eth_call", call, hex(block.number))
            returned = self._decoded(node, answer, len(calls), block)
            _check_attestation(node, returned[: len(attestation)], block)
            return returned[len(attestation) :]

        reads = multicall.read_all(self._pool.ask(ask))
        return [balance._replace(read=read) for balance, read in zip(chunk, reads, strict=True)]

    def _call_for(self, balance: _Balance) -> multicall.Call:
        address = bytes.fromhex(balance.address[2:])
        if balance.asset == NATIVE:
            return multicall.eth_balance(self._multicall3, address)
        return multicall.token_balance(self._tokens[balance.asset], address)

    def _decoded(self, node: Node, answer: Any, count: int, block: Block) -> list[multicall.Returned]:
        if answer == "0x":
            raise PermanentError(
                f"{self._pool.network} has no Multicall3 at {_hex(self._multicall3)} in block {block.number}: correct"
                " the address, or ask for a later hour"
            )
        try:
            return multicall.decode_aggregate3(bytes.fromhex(answer.removeprefix("0x")), count)
        except (ValueError, TypeError, AttributeError):
            raise TransientError(
                f"{node.name} answered a Multicall3 call in a form that cannot be read; try again later"
            ) from None


def _check_attestation(node: Node, said: Sequence[multicall.Returned], block: Block) -> None:
    """Refuse balances of any block but the pinned one."""
    number, timestamp, parent = (read.value for read in multicall.read_all(said))
    same = number == block.number and timestamp == int(block.timestamp.timestamp())
    # A parent of 0 is how a node says that it does not know the hash.
    if same and (not parent or parent == int(block.parent_hash, 16)):
        return
    node.served.discard(block.hash)
    node.require_block(block)
    raise PermanentError(
        f"{node.name} was asked for block {block.number} and answered for block {number} of time {timestamp}: it"
        " cannot be relied on, use another endpoint"
    )


def _together(attempts: Sequence[_Attempt]) -> _Attempt:
    balances = [balance for attempt in attempts for balance in attempt.balances]
    return _Attempt(balances, next((attempt.failure for attempt in attempts if attempt.failure), None))


def _normalised(address: str) -> str:
    try:
        return normalise(address)
    except ValueError as error:
        raise PermanentError(f"{error}; correct the address") from None


def _raw(address: str) -> bytes:
    return bytes.fromhex(_normalised(address)[2:])


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _row(balance: _Balance) -> tuple[str, str, str | None, str]:
    if balance.read is None:
        return balance.asset, balance.address, None, "rpc_error"
    value, status = balance.read
    return balance.asset, balance.address, None if value is None else str(value), status
