"""Which block was the last at a moment: a search over real block times.

What belongs here: the search. What does not: how a block is read (`chain.py`). Slots can be empty and block times
drift, so the block is never computed by a division; a division is only a guess at where to look next.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

# Every third look halves what is left, so that a jump in block times (a chain that stood still, or mainnet's block 0
# at 1970) costs no more than three times the looks of a plain halving.
_HALVE_EVERY: Final = 3
_FIRST_STEP: Final = 300  # blocks below the head, an hour of mainnet


@dataclass(frozen=True)
class Block:
    """A block of the chain.

    Attributes:
        number: its height.
        hash: 0x and 64 hex digits.
        timestamp: its time, UTC.
        parent_hash: hash of the block before.
    """

    number: int
    hash: str
    timestamp: datetime
    parent_hash: str


def last_at(moment: datetime, head: Block, read: Callable[[int], Block]) -> Block | None:
    """Return the last block with a timestamp of `moment` or earlier, None where even block 0 is later.

    Args:
        moment: aware.
        head: the newest block.
        read: returns the block of a number below the head's.
    """
    if head.timestamp <= moment:
        return head
    later, step = head, _FIRST_STEP
    earlier = None
    while earlier is None:
        if later.number == 0:
            return None
        block = read(max(0, _below(head, later, moment, step)))
        earlier, later = (block, later) if block.timestamp <= moment else (None, block)
        step *= 4
    looks = 0
    while later.number - earlier.number > 1:
        looks += 1
        block = read(_between(earlier, later, moment, halve=looks % _HALVE_EVERY == 0))
        if block.timestamp <= moment:
            earlier = block
        else:
            later = block
    return earlier


def _below(head: Block, later: Block, moment: datetime, step: int) -> int:
    """A number probably at or before the moment, at the pace of the blocks seen so far."""
    if head.number == later.number:
        return later.number - step
    pace = (head.timestamp - later.timestamp) / (head.number - later.number)
    missing = int((later.timestamp - moment) / pace) if pace else step
    return later.number - missing - missing // 8 - 1


def _between(earlier: Block, later: Block, moment: datetime, *, halve: bool) -> int:
    """A number strictly between the two."""
    distance = later.number - earlier.number
    if halve:
        return earlier.number + distance // 2
    part = (moment - earlier.timestamp) / (later.timestamp - earlier.timestamp)
    return min(max(earlier.number + int(part * distance), earlier.number + 1), later.number - 1)
