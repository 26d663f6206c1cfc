"""Large transfers in a row of blocks, and proof that none of the blocks was left out.

What belongs here: blocks with transactions, receipts and Transfer events as nodes give them. What does not: which
endpoint is asked (`rpc_pool.py`), what transfers mean (`domain.discovery`).

The blocks must be a chain: each names the one before as its parent, the last is the pinned one, and each event names
the block it is of. A gap, a reorganisation or an endpoint that lags shows in that.

Ether that contracts pass on inside a transaction is not seen: only tracing nodes tell it.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any, Final

from tracker_pipeline.domain.discovery import TRANSFER_TOPIC, Kind, Moved, kind_of
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.resources.json_rpc import MissingStateError, TooMuchError
from tracker_pipeline.resources.rpc_pool import Block, Node, ReorganisedError, RpcPool

Json = Any

_PARALLEL: Final = 8  # 300 blocks of the main network are 90 MB; eight at a time keep memory small
_NATIVE: Final = "ETH"


class TransferScan:
    """Reads transfers of one network.

    Args:
        pool: the endpoints.
        tokens: asset to lower-case address of its contract.
        blocks_per_request: whose events are asked for at once; fewer follow where a node refuses that many.
    """

    def __init__(self, pool: RpcPool, tokens: Mapping[str, str], blocks_per_request: int) -> None:
        self._pool = pool
        self._tokens = tokens
        self._blocks_per_request = blocks_per_request

    def transfers(self, before: Block, last: Block, least: Mapping[str, int]) -> list[Moved]:
        """Return every transfer of at least its threshold in the blocks after `before` up to `last`.

        Args:
            before: the block of the hour before.
            last: the block of the hour.
            least: asset to threshold in its smallest unit.

        Raises:
            TransientError: a request failed, or a block was replaced by another meanwhile.
            PermanentError: no endpoint keeps the blocks, or a threshold names an asset that is not configured.
        """
        unknown = sorted(set(least) - {_NATIVE, *self._tokens})
        if unknown:
            raise PermanentError(
                f"no token contract is configured for {', '.join(unknown)}, which discovery is to scan"
            )
        numbers = range(before.number + 1, last.number + 1)
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="blocks") as threads:
            found = list(threads.map(partial(self._block, least=least.get(_NATIVE)), numbers))
        hashes = _chained(before, last, [head for head, _ in found])
        native = [moved for _, transfers in found for moved in transfers]
        return [*native, *self._token_transfers(numbers, last, least, hashes)]

    def kinds(self, addresses: Sequence[str], block: Block) -> dict[str, Kind]:
        """Return what each address is, by its code after a block.

        Raises:
            TransientError: no endpoint answered.
            PermanentError: no endpoint keeps the state.
        """
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="code") as threads:
            kinds = threads.map(partial(self._kind, block=block), addresses)
            return dict(zip(addresses, kinds, strict=True))

    def _kind(self, address: str, *, block: Block) -> Kind:
        return kind_of(self._pool.ask(lambda node: node.read_code(address, block)))

    def _block(self, number: int, *, least: int | None) -> tuple[Block, list[Moved]]:
        """A block, and its large transfers of ether."""
        return self._pool.ask(lambda node: _read_block(node, number, least))

    def _token_transfers(
        self, numbers: range, last: Block, least: Mapping[str, int], hashes: Mapping[int, str]
    ) -> list[Moved]:
        scanned = {self._tokens[asset]: asset for asset in least if asset != _NATIVE}
        if not scanned or not numbers:
            return []
        starts = range(numbers.start, numbers.stop, self._blocks_per_request)
        parts = [range(at, min(at + self._blocks_per_request, numbers.stop)) for at in starts]
        logs = [log for part in parts for log in self._logs(part, last, sorted(scanned))]
        found = (_token_transfer(log, scanned, hashes) for log in logs)
        return [moved for moved in found if moved is not None and moved.amount >= least[moved.asset]]

    def _logs(self, numbers: range, last: Block, tokens: list[str]) -> list[Json]:
        """Events of some blocks, by halves where they are too many at once."""
        try:
            return self._pool.ask(lambda node: _read_logs(node, numbers, last, tokens))
        except TooMuchError:
            if len(numbers) < 2:
                raise
        middle = numbers.start + len(numbers) // 2
        halves = range(numbers.start, middle), range(middle, numbers.stop)
        return [log for half in halves for log in self._logs(half, last, tokens)]


def _read_block(node: Node, number: int, least: int | None) -> tuple[Block, list[Moved]]:
    answer = node.endpoint.call("eth_getBlockByNumber", hex(number), least is not None)
    if answer is None:
        raise MissingStateError(f"{node.name} does not have block {number}; use another endpoint")
    head = node.as_block(answer, hex(number))
    if least is None:
        return head, []
    try:
        large = [one for one in answer["transactions"] if int(one["value"], 16) >= least]
        return head, [moved for one in large if (moved := _native_transfer(node, one, head)) is not None]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _unreadable(node, f"block {number}") from None


def _native_transfer(node: Node, transaction: Json, head: Block) -> Moved | None:
    """The transfer of a transaction; None where it failed, as its ether then stayed."""
    receipt = node.endpoint.call("eth_getTransactionReceipt", transaction["hash"])
    if receipt is None:
        raise TransientError(f"{node.name} has no receipt in block {head.number} yet; try again later")
    if receipt["blockHash"].lower() != head.hash:
        raise ReorganisedError(f"block {head.number} was replaced while it was read; run the hour again")
    if receipt.get("status") == "0x0":
        return None
    receiver = transaction["to"] or receipt["contractAddress"]  # a new contract may be born with ether
    amount = int(transaction["value"], 16)
    return Moved(_NATIVE, transaction["from"].lower(), receiver.lower(), amount, head.number)


def _read_logs(node: Node, numbers: range, last: Block, tokens: list[str]) -> list[Json]:
    node.require_block(last)  # one that lags would answer with too few
    wanted = {"fromBlock": hex(numbers.start), "toBlock": hex(numbers.stop - 1), "address": tokens}
    logs = node.endpoint.call("eth_getLogs", wanted | {"topics": [TRANSFER_TOPIC]})
    if not isinstance(logs, list):
        raise _unreadable(node, "eth_getLogs")
    return logs


def _token_transfer(log: Json, scanned: Mapping[str, str], hashes: Mapping[int, str]) -> Moved | None:
    """The transfer of an event; None where it is none of an ERC-20 token."""
    try:
        number, block_hash = int(log["blockNumber"], 16), log["blockHash"].lower()
        if log.get("removed") or hashes.get(number) != block_hash:
            raise ReorganisedError(f"block {number} was replaced while it was read; run the hour again")
        topics, data = log["topics"], log["data"]
        if len(topics) != 3 or len(data) != 66:
            return None
        giver, receiver = (f"0x{topic[-40:].lower()}" for topic in topics[1:])
        return Moved(scanned[log["address"].lower()], giver, receiver, int(data, 16), number)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise TransientError("an event cannot be read; try again later, or use another endpoint") from None


def _chained(before: Block, last: Block, heads: Sequence[Block]) -> dict[int, str]:
    """Number to hash of the blocks, which are one unbroken chain from one pinned block to the other."""
    chain = [before, *heads]
    if (
        any(block.parent_hash != parent.hash for parent, block in pairwise(chain))
        or chain[-1].hash != last.hash
    ):
        raise ReorganisedError(
            f"the blocks from {before.number} to {last.number} are not one chain: some were replaced while they"
            " were read; run the hour again"
        )
    return {block.number: block.hash for block in heads}


def _unreadable(node: Node, what: str) -> TransientError:
    return TransientError(f"{node.name} answered for {what} in a form that cannot be read; try again later")
