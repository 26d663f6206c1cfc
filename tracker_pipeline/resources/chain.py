"""Balances of many addresses at one block of one network, and the block of a moment.

What belongs here: chunks, several at once, by halves where one is too much, and frames. What does not: HTTP and the
wording of errors (`json_rpc.py`), which endpoint is asked (`rpc_pool.py`), how a chunk is read (`balance_ways.py`),
the search for a block (`block_search.py`), which addresses (`address_lists.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Final, NamedTuple, Self

import polars as pl

from tracker_pipeline.domain.addresses import normalise
from tracker_pipeline.domain.discovery import Kind, Moved
from tracker_pipeline.domain.multicall import Call, Returned
from tracker_pipeline.resources.balance_ways import BalanceWays, Chunk, Held
from tracker_pipeline.resources.block_search import BlockFinder
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.resources.json_rpc import TooMuchError
from tracker_pipeline.resources.rpc_pool import Block, Node, ReorganisedError, RpcPool
from tracker_pipeline.resources.transfer_scan import TransferScan

__all__ = ["BALANCE_SCHEMA", "MULTICALL3", "NATIVE", "Block", "Chain"]

NATIVE: Final = "ETH"
MULTICALL3: Final = "0xcA11bde05977b3631167028862bE2a173976CA11"
BALANCE_SCHEMA: Final = pl.Schema(dict.fromkeys(("asset", "whale_address", "balance", "status"), pl.String()))

_NO_TOKENS: Final[Mapping[str, str]] = MappingProxyType({})
_SMALLEST_CHUNK: Final = 50  # below this a call fails for another reason than its size
# Calls in flight: 100,000 balances by override in one round; a universe of thousands never has more than one or two
# for each asset.
_PARALLEL: Final = 8
_DEEP: Final = (
    64  # blocks, two epochs of Ethereum: as far as a network without a word for it is taken to go back
)


class _Attempt(NamedTuple):
    """What an attempt at some chunks gave."""

    read: Sequence[tuple[Chunk, Held]] = ()
    recut: Sequence[Chunk] = ()  # the endpoint takes these in another size, as it turned out
    unread: Sequence[Chunk] = ()
    failure: TransientError | None = None  # why there are unread ones


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
        addresses_per_call: balances in one call to Multicall3; 1,000 cost 6 to 7 million gas. Smaller calls follow
            where a node refuses that many.
        state_override: read by own code where an endpoint runs it, up to 16,000 balances in one call.
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
        state_override: bool = True,
        timeout: timedelta = timedelta(seconds=30),
        confirmations: int = 0,
        tokens: Mapping[str, str] = _NO_TOKENS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tokens = {asset: _raw(address) for asset, address in tokens.items()}
        self._addresses_per_call = addresses_per_call
        self._ways = BalanceWays(network, _raw(multicall3), addresses_per_call, state_override=state_override)
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

    def block_numbered(self, number: int) -> Block:
        """Return the block that the chain has now at a height.

        Raises:
            TransientError: no endpoint answered.
            PermanentError: no endpoint has such a block.
        """
        return self._pool.ask(lambda node: node.read_block(hex(number)))

    def call(self, contract: str, data: bytes, block: Block) -> Returned:
        """Return what a contract answers on the state after a block.

        Raises:
            TransientError: no endpoint answered, or the block was replaced by another.
            PermanentError: the address is not one, no endpoint keeps the state, or one answered for another block.
        """
        question = Call(_raw(contract), data)
        return self._pool.ask(lambda node: self._ways.call(node, question, block))

    def finalized_number(self) -> int:
        """Return the height up to which nothing is replaced any more.

        What the network calls finalized, or 64 blocks below the head where it does not know the word.

        Raises:
            TransientError: no endpoint answered.
        """
        return self._pool.ask(_finalized_number)

    def transfers(
        self, before: Block, last: Block, least: Mapping[str, int], *, blocks_per_request: int
    ) -> list[Moved]:
        """Return the transfers of at least their threshold in the blocks after `before` up to `last`.

        See `TransferScan.transfers`.
        """
        return self._scan(blocks_per_request).transfers(before, last, least)

    def kinds(self, addresses: Sequence[str], block: Block) -> dict[str, Kind]:
        """Return what each address is by its code after a block: an account, a delegated one, or a contract."""
        return self._scan(1).kinds(addresses, block)

    def _scan(self, blocks_per_request: int) -> TransferScan:
        tokens = {asset: f"0x{address.hex()}" for asset, address in self._tokens.items()}
        return TransferScan(self._pool, tokens, blocks_per_request)

    def single_balances(self, addresses: Sequence[str], number: int, block_hash: str) -> dict[str, int]:
        """Return native balances in wei, asked for one by one: another way than `balances`, to compare with it.

        Raises:
            TransientError: no endpoint answered, or the block of that number has another hash by now.
            PermanentError: no endpoint keeps the state of the block.
        """
        block = self.block_numbered(number)
        if block.hash != block_hash:
            raise ReorganisedError(f"block {number} is no longer {block_hash}; run the hour again")
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="single") as threads:
            ask = lambda address: self._pool.ask(lambda node: node.read_balance(address, block))  # noqa: E731
            return dict(zip(addresses, threads.map(ask, addresses), strict=True))

    @property
    def assets(self) -> tuple[str, ...]:
        """What balances can be read of: native ether and the configured tokens."""
        return NATIVE, *self._tokens

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
            PermanentError: an address is not one, an asset is not configured or has no contract in that block, no
                endpoint keeps the state of the block, or an endpoint answered for another block.
        """
        unknown = sorted(set(assets) - {NATIVE, *self._tokens})
        if unknown:
            raise PermanentError(f"no token contract is configured for {', '.join(unknown)}; add its address")
        distinct = _distinct(addresses)
        wanted = [Chunk(asset, self._tokens.get(asset), distinct) for asset in sorted(set(assets))]
        first = self._attempt_in_parts(wanted, block)
        if first.failure is not None and not first.read:
            raise first.failure
        self._require_contracts(first.read, block)
        # What could not be read gets a second try after everything else.
        second = self._attempt_in_parts(first.unread, block)
        read = [*first.read, *second.read]
        failed = [(chunk, _unread(chunk)) for chunk in second.unread]
        return _frame([*read, *failed])

    def _require_contracts(self, read: Sequence[tuple[Chunk, Held]], block: Block) -> None:
        """Refuse a token that has no contract: each call to it succeeds and returns nothing."""
        silent = {
            chunk.asset: chunk.token
            for chunk, held in read
            if chunk.token is not None and set(held.statuses) == {"empty_return"}
        }
        for asset, token in silent.items():
            code = self._pool.ask(partial(Node.read_code, address=f"0x{token.hex()}", block=block))
            if code == "0x":
                raise PermanentError(
                    f"{asset} has no contract at 0x{token.hex()} in block {block.number}: correct the address of the"
                    " token, or ask for a later hour"
                )

    def _attempt_in_parts(self, wanted: Sequence[Chunk], block: Block) -> _Attempt:
        attempt = self._attempt_at_once(wanted, block)
        while attempt.recut:  # ends, because an endpoint turns out only once to run no code of ours
            again = self._attempt_at_once(attempt.recut, block)
            attempt = _together([attempt._replace(recut=()), again])
        return attempt

    def _attempt_at_once(self, wanted: Sequence[Chunk], block: Block) -> _Attempt:
        """Read chunks, cut as suits the endpoint, several at a time."""
        size = partial(self._ways.chunk_size, self._pool.preferred)
        chunks = [part for chunk in _merged(wanted) for part in chunk.parts(size(chunk))]
        if len(chunks) < 2:
            attempts = [self._attempt(chunk, block) for chunk in chunks]
        else:
            with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="balances") as threads:
                attempts = list(threads.map(lambda chunk: self._attempt(chunk, block), chunks))
        return _together(attempts)

    def _attempt(self, chunk: Chunk, block: Block) -> _Attempt:
        """Read a chunk, by halves where it is too much at once."""
        try:
            held = self._pool.ask(partial(self._ways.read, chunk=chunk, block=block))
        except ReorganisedError:
            raise
        except TransientError as error:
            if not isinstance(error, TooMuchError) or len(chunk.addresses) <= _SMALLEST_CHUNK:
                return _Attempt(unread=[chunk], failure=error)
        else:
            return _Attempt(recut=[chunk]) if held is None else _Attempt(read=[(chunk, held)])
        halves = chunk.parts((len(chunk.addresses) + 1) // 2)
        first = self._attempt(halves[0], block)
        # A node that answers nothing of the first half would keep us waiting once more for each part of the second.
        if first.unread and not first.read:
            return _Attempt(unread=[chunk], failure=first.failure)
        return _together([first, self._attempt(halves[1], block)])


def _together(attempts: Sequence[_Attempt]) -> _Attempt:
    return _Attempt(
        [read for attempt in attempts for read in attempt.read],
        [chunk for attempt in attempts for chunk in attempt.recut],
        [chunk for attempt in attempts for chunk in attempt.unread],
        next((attempt.failure for attempt in attempts if attempt.failure), None),
    )


def _finalized_number(node: Node) -> int:
    try:
        return node.read_block("finalized").number
    except PermanentError:
        return node.read_block("latest").number - _DEEP


def _merged(chunks: Sequence[Chunk]) -> list[Chunk]:
    """One chunk for each asset, so that they are cut anew as suits the endpoint."""
    by_asset: dict[str, Chunk] = {}
    for chunk in chunks:
        known = by_asset.setdefault(chunk.asset, chunk._replace(addresses=[]))
        known.addresses.extend(chunk.addresses)
    return list(by_asset.values())


def _distinct(addresses: Sequence[str]) -> list[str]:
    """The addresses in lower case, sorted, each once; a list already so spelled is not looked at one by one."""
    series = pl.Series(list(addresses), dtype=pl.String)
    if not series.str.contains(r"^0x[0-9a-f]{40}$").all():
        series = pl.Series([_normalised(address) for address in addresses], dtype=pl.String)
    return list(dict.fromkeys(series.sort().to_list()))


def _unread(chunk: Chunk) -> Held:
    size = len(chunk.addresses)
    return Held([None] * size, ["rpc_error"] * size)


def _frame(held: Sequence[tuple[Chunk, Held]]) -> pl.DataFrame:
    parts = [
        pl.DataFrame(
            {
                "asset": [chunk.asset] * len(chunk.addresses),
                "whale_address": chunk.addresses,
                "balance": read.balances,
                "status": read.statuses,
            },
            schema=BALANCE_SCHEMA,
        )
        # The addresses of a chunk are sorted, and no other chunk of the asset has any between them.
        for chunk, read in sorted(held, key=lambda one: (one[0].asset, one[0].addresses[:1]))
    ]
    return pl.concat(parts) if parts else BALANCE_SCHEMA.to_frame()


def _normalised(address: str) -> str:
    try:
        return normalise(address)
    except ValueError as error:
        raise PermanentError(f"{error}; correct the address") from None


def _raw(address: str) -> bytes:
    return bytes.fromhex(_normalised(address)[2:])
