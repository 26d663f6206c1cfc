"""Which block was the last at a moment: a search over real block times.

What belongs here: the search, what was seen on the way, and when a block is settled. What does not: how a block is
read (`rpc_pool.py`). Slots can be empty and block times drift, so a block is never computed by a division; a division
is only a guess at where to look next.
"""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.resources.rpc_pool import Block, Node, RpcPool

# Every third look halves what is left, so that a jump in block times (a chain that stood still, or mainnet's block 0
# at 1970) costs no more than three times the looks of a plain halving.
_HALVE_EVERY: Final = 3
_FIRST_STEP: Final = 300  # blocks below the head, an hour of mainnet
# The head may lie this far before a moment and still be the last block of that moment, on chains that have settled
# it. Between two blocks of a private chain half an hour may pass.
_LONGEST_GAP: Final = timedelta(hours=1)


class BlockFinder:
    """Finds blocks by time and keeps the settled ones, so that the hours of a backfill take few requests each.

    Args:
        pool: the endpoints.
        confirmations: blocks that must follow a block before it is settled. One that the network calls finalized
            needs none.
    """

    def __init__(self, pool: RpcPool, confirmations: int) -> None:
        self._pool = pool
        self._confirmations = confirmations
        self._settled: dict[int, Block] = {}
        self._looking = threading.Lock()

    def find(self, moment: datetime) -> Block:
        """Return the last block with a timestamp of `moment`, which is aware and past, or earlier.

        Raises:
            TransientError: the network has not reached the moment, the block is not settled, or nobody answered.
            PermanentError: the moment lies before block 0, or all endpoints refuse.
        """
        with self._looking:
            return self._pool.ask(lambda node: self._find(node, moment))

    def _find(self, node: Node, moment: datetime) -> Block:
        known = sorted(self._settled.values(), key=lambda block: block.number)
        later = next((block for block in known if block.timestamp > moment), None)
        earlier = next((block for block in reversed(known) if block.timestamp <= moment), None)
        if later is not None:  # whatever is found below a settled block is settled too
            found = last_at(
                moment, earlier=earlier, later=later, read=lambda number: self._read(node, number, number)
            )
        else:
            found = self._find_below_head(node, moment, earlier)
        if found is None:
            raise PermanentError(f"{self._pool.network} has no block as early as {_text(moment)}")
        return found

    def _find_below_head(self, node: Node, moment: datetime, earlier: Block | None) -> Block | None:
        head = node.read_block("latest")
        last_settled = head.number - self._confirmations
        if head.timestamp > moment:
            found = last_at(
                moment,
                earlier=earlier,
                later=head,
                read=lambda number: self._read(node, number, last_settled),
            )
        else:
            _require_near(node, head, moment)
            found = head
        if found is not None and found.number > last_settled:
            self._require_finalized(node, found, head)
        return found

    def _read(self, node: Node, number: int, last_settled: int) -> Block:
        """A block by number, from memory where it is settled."""
        if number in self._settled:
            return self._settled[number]
        block = node.read_block(hex(number))
        if number <= last_settled:
            self._settled[number] = block
        return block

    def _require_finalized(self, node: Node, block: Block, head: Block) -> None:
        try:
            finalized = node.read_block("finalized").number
        except PermanentError:  # a network without finality
            finalized = -1
        if block.number > finalized:
            raise TransientError(
                f"block {block.number} of {self._pool.network} has {head.number - block.number} of"
                f" {self._confirmations} confirmations; try again in a minute"
            )


def _require_near(node: Node, head: Block, moment: datetime) -> None:
    if moment - head.timestamp > _LONGEST_GAP:
        raise TransientError(
            f"the node has not reached {_text(moment)}: the newest block of {node.name} is {head.number} of"
            f" {_text(head.timestamp)}; try again when it has caught up"
        )


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def last_at(
    moment: datetime, *, earlier: Block | None, later: Block, read: Callable[[int], Block]
) -> Block | None:
    """Return the last block with a timestamp of `moment` or earlier, None where even block 0 is later.

    Args:
        moment: aware.
        earlier: any block at or before the moment, the closer the better; None where none is known.
        later: any block after the moment, the closer the better.
        read: returns the block of a number below that of `later`.
    """
    if earlier is None:
        earlier, later = _bracket(moment, later, read)
        if earlier is None:
            return None
    looks = 0
    while later.number - earlier.number > 1:
        looks += 1
        block = read(_between(earlier, later, moment, halve=looks % _HALVE_EVERY == 0))
        if block.timestamp <= moment:
            earlier = block
        else:
            later = block
    return earlier


def _bracket(moment: datetime, top: Block, read: Callable[[int], Block]) -> tuple[Block | None, Block]:
    """Go down from `top` to a block at or before the moment, in steps of the pace seen so far, each longer."""
    later, step = top, _FIRST_STEP
    while later.number > 0:
        block = read(max(0, later.number - max(step, _blocks_between(moment, later, top))))
        if block.timestamp <= moment:
            return block, later
        later, step = block, step * 4
    return None, later


def _blocks_between(moment: datetime, later: Block, top: Block) -> int:
    """Blocks from the moment to `later` at the pace from there to `top`, and an eighth more; 0 if unknown."""
    pace = (top.timestamp - later.timestamp) / max(1, top.number - later.number)
    return int((later.timestamp - moment) / pace * 9 / 8) if pace else 0


def _between(earlier: Block, later: Block, moment: datetime, *, halve: bool) -> int:
    """A number strictly between the two."""
    distance = later.number - earlier.number
    if halve:
        return earlier.number + distance // 2
    part = (moment - earlier.timestamp) / (later.timestamp - earlier.timestamp)
    return min(max(earlier.number + int(part * distance), earlier.number + 1), later.number - 1)
