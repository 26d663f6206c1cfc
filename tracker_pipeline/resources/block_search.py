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
