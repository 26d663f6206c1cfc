"""The two ways to read many balances with one `eth_call`: code of ours by state override, and Multicall3.

What belongs here: which way a node can go, what it is asked, whether its answer is for the pinned block. What does
not: the bytes (`domain.balance_code`, `domain.multicall`), how addresses are cut into chunks (`chain.py`), which node
is asked (`rpc_pool.py`).

A node shows by its answer to the first chunk whether it takes overrides: only code of ours can know number, time and
parent hash of the pinned block and answer in the right length. One that refuses, passes the override over, or answers
anything else reads through Multicall3 from then on.
"""

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from tracker_pipeline.domain import balance_code, multicall
from tracker_pipeline.domain.balance_code import SCRATCH, Attestation
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.resources.json_rpc import MissingStateError, RefusedError, ServerError, TooMuchError
from tracker_pipeline.resources.rpc_pool import Block, Node

_log: Final = logging.getLogger(__name__)


# 48 of the 50 million gas that geth allows a call by default, at 3,020 each.
_OVERRIDES_PER_CALL: Final = 16_000
# A token's balanceOf costs about 4,000 to 30,000 gas by how it is written; 50 million allow 1,600 of the dearest.
_TOKEN_OVERRIDES_PER_CALL: Final = 1_600
# A node that once was too slow or too busy is not asked for crumbs for ever.
_SMALLEST_OVERRIDE: Final = 1_000


class Chunk(NamedTuple):
    """Balances asked for at once.

    Attributes:
        asset: name of what is held.
        token: 20 bytes of its contract, None for the native one.
        addresses: lower-case, without repetition.
    """

    asset: str
    token: bytes | None
    addresses: list[str]

    def parts(self, size: int) -> "list[Chunk]":
        """Chunks of at most `size` addresses, in order."""
        starts = range(0, len(self.addresses), size)
        return [self._replace(addresses=self.addresses[start : start + size]) for start in starts]


class Held(NamedTuple):
    """What was read, one entry for each address of a chunk: decimal text or None, and the status."""

    balances: list[str | None]
    statuses: list[str]


class _Reads(NamedTuple):
    """Numbers read, None where unknown, and their statuses."""

    numbers: Sequence[int | None]
    statuses: list[str]

    @classmethod
    def of(cls, reads: Sequence[multicall.Read]) -> "_Reads":
        return cls([read.value for read in reads], [read.status for read in reads])

    def held(self, start: int = 0) -> Held:
        """Balances from the number at `start` on."""
        texts = [None if number is None else str(number) for number in self.numbers[start:]]
        return Held(texts, self.statuses[start:])


class _NotOurCodeError(Exception):
    """An answer that no program of ours gives on the pinned block."""


class BalanceWays:
    """Reads chunks from nodes, each the fastest way that the node can go. Safe to share between threads.

    Args:
        network: its name, for messages.
        multicall3: 20 bytes of the Multicall3 contract.
        addresses_per_call: balances in one call to Multicall3.
        state_override: whether the faster way is tried at all.
    """

    def __init__(
        self, network: str, multicall3: bytes, addresses_per_call: int, *, state_override: bool
    ) -> None:
        self._network = network
        self._multicall3 = multicall3
        self._addresses_per_call = addresses_per_call
        self._state_override = state_override

    def read(self, node: Node, chunk: Chunk, block: Block) -> Held | None:
        """Return what the addresses of a chunk held after a block.

        None where the node turned out just now to run no code of ours: it then takes chunks of another size.

        Raises:
            TransientError: the request failed, or the block was replaced by another.
            PermanentError: it would fail again, or the node answered for another block.
        """
        node.require_block(block)
        if self._may_override(node):
            return self._by_override(node, chunk, block)
        parts = chunk.parts(self._addresses_per_call)
        return _joined([self._by_multicall(node, part, block) for part in parts])

    def call(self, node: Node, call: multicall.Call, block: Block) -> multicall.Returned:
        """Return what one call gives on the state after a block.

        Raises:
            TransientError: the request failed, or the block was replaced by another.
            PermanentError: it would fail again, or the node answered for another block.
        """
        node.require_block(block)
        attestation = multicall.block_attestation(self._multicall3, block.number)
        data = multicall.encode_aggregate3([*attestation, call])
        answer = self._ask(node, data, block)
        try:
            returned = multicall.decode_aggregate3(answer, len(attestation) + 1)
        except ValueError:
            raise self._unreadable(node) from None
        reads = multicall.read_all(returned[:-1])
        _require_pinned(node, Attestation(*(read.value or 0 for read in reads)), block)
        return returned[-1]

    def chunk_size(self, node: Node, chunk: Chunk) -> int:
        """How many balances of an asset to ask a node for at once."""
        if not self._may_override(node):
            return self._addresses_per_call
        most = _OVERRIDES_PER_CALL if chunk.token is None else _TOKEN_OVERRIDES_PER_CALL
        if node.refused_size is None:
            return most
        return max(min(most, node.refused_size // 2), _SMALLEST_OVERRIDE)

    def _may_override(self, node: Node) -> bool:
        """Whether a node takes state overrides, or may do so for all that is known."""
        return self._state_override and node.takes_overrides is not False

    def _by_override(self, node: Node, chunk: Chunk, block: Block) -> Held | None:
        """Read by own code, and remember whether the node ran it; None where it did not."""
        try:
            held = _run_code(node, chunk, block)
        except (MissingStateError, RefusedError):
            # A block that was replaced is missing at every node; say so rather than ask for an archive.
            node.served.discard(block.hash)
            node.require_block(block)
            raise
        except TooMuchError:
            node.refused_size = min(len(chunk.addresses), node.refused_size or len(chunk.addresses))
            raise
        except (ServerError, PermanentError, _NotOurCodeError) as reason:
            _log.info("%s reads balances through Multicall3: %s", node.name, reason)
            node.takes_overrides = False
            return None
        node.takes_overrides = True
        return held

    def _by_multicall(self, node: Node, chunk: Chunk, block: Block) -> Held:
        attestation = multicall.block_attestation(self._multicall3, block.number)
        target = self._multicall3 if chunk.token is None else chunk.token
        function = multicall.GET_ETH_BALANCE if chunk.token is None else multicall.BALANCE_OF
        own = chunk.token is None
        data = multicall.encode_reads(attestation, target, function, _raw(chunk.addresses), lenient=own)
        reads = self._decoded(node, self._ask(node, data, block), len(attestation) + len(chunk.addresses))
        said = Attestation(*(read or 0 for read in reads.numbers[: len(attestation)]))
        _require_pinned(node, said, block)
        return reads.held(len(attestation))

    def _ask(self, node: Node, data: bytes, block: Block) -> bytes:
        call = {"to": _hex(self._multicall3), "data": _hex(data)}
        answer = node.endpoint.call("eth_call", call, hex(block.number))
        if answer == "0x":
            raise PermanentError(
                f"{self._network} has no Multicall3 at {_hex(self._multicall3)} in block {block.number}: correct"
                " the address, or ask for a later hour"
            )
        try:
            return bytes.fromhex(answer.removeprefix("0x"))
        except (ValueError, TypeError, AttributeError):
            raise self._unreadable(node) from None

    def _decoded(self, node: Node, answer: bytes, count: int) -> "_Reads":
        numbers = multicall.decode_numbers(answer, count)
        if numbers is not None:
            return _Reads(numbers, ["ok"] * count)
        try:
            return _Reads.of(multicall.read_all(multicall.decode_aggregate3(answer, count)))
        except ValueError:
            raise self._unreadable(node) from None

    def _unreadable(self, node: Node) -> TransientError:
        return TransientError(
            f"{node.name} answered a Multicall3 call in a form that cannot be read; try again later"
        )


def _run_code(node: Node, chunk: Chunk, block: Block) -> Held:
    """Run own code on the state of the pinned block.

    Raises:
        _NotOurCodeError: the answer is not that of the code on that block.
    """
    code = balance_code.NATIVE_CODE if chunk.token is None else balance_code.TOKEN_CODE
    answer = node.endpoint.call(
        "eth_call",
        {"to": _hex(SCRATCH), "data": _hex((chunk.token or b"") + balance_code.packed(chunk.addresses))},
        {"blockHash": block.hash, "requireCanonical": True},
        {_hex(SCRATCH): {"code": _hex(code)}},
    )
    try:
        data = bytes.fromhex(answer.removeprefix("0x"))
        if chunk.token is None:
            said, values = balance_code.decode_native(data, len(chunk.addresses))
            reads = _Reads(values, ["ok"] * len(values))
        else:
            said, token_reads = balance_code.decode_token(data, len(chunk.addresses))
            reads = _Reads.of(token_reads)
    except (ValueError, TypeError, AttributeError) as error:
        raise _NotOurCodeError(f"it does not run code given as state override ({error})") from None
    if not _is_pinned(said, block):
        raise _NotOurCodeError(f"the code ran on block {said.number} of time {said.timestamp}")
    return reads.held()


def _is_pinned(said: Attestation, block: Block) -> bool:
    same = said.number == block.number and said.timestamp == int(block.timestamp.timestamp())
    # A parent of 0 is how a node says that it does not know the hash.
    return same and said.parent_hash in (0, int(block.parent_hash, 16))


def _require_pinned(node: Node, said: Attestation, block: Block) -> None:
    """Refuse balances of any block but the pinned one."""
    if _is_pinned(said, block):
        return
    node.served.discard(block.hash)
    node.require_block(block)
    raise PermanentError(
        f"{node.name} was asked for block {block.number} and answered for block {said.number} of time"
        f" {said.timestamp}: it cannot be relied on, use another endpoint"
    )


def _joined(parts: list[Held]) -> Held:
    return Held(
        [balance for part in parts for balance in part.balances],
        [status for part in parts for status in part.statuses],
    )


def _raw(addresses: list[str]) -> list[bytes]:
    data = balance_code.packed(addresses)
    return [data[at : at + balance_code.ADDRESS] for at in range(0, len(data), balance_code.ADDRESS)]


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
