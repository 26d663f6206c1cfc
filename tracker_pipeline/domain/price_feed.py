"""What a price feed on the chain says at a block, and whether it can be used.

What belongs here: the call to a feed that answers `latestRoundData()`, its answer, its age and range. What does not:
nodes (`resources.chain`), what a price is used for (`holdings`).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Final, Literal

from tracker_pipeline.domain.holdings import usable_rate
from tracker_pipeline.domain.multicall import Returned

LATEST_ROUND_DATA: Final = bytes.fromhex("feaf968c")  # latestRoundData()

RateStatus = Literal["ok", "no_feed", "no_answer", "stale", "out_of_range"]

_WORD: Final = 32
_EXACT: Final = Context(prec=100)  # 78 digits are the most that a word holds


@dataclass(frozen=True)
class Rate:
    """A price as far as it is known.

    Attributes:
        status: `ok`; `no_feed` where none is configured; `no_answer` where the contract gave no price; `stale` where
            the price is older than allowed; `out_of_range` where it is none that stETH ever had.
        rate: the price; None unless it is of its time. One out of range is kept: it shows how far it is off.
        answered_at: when the feed was last given a price; None where it gave none.
    """

    status: RateStatus
    rate: Decimal | None = None
    answered_at: datetime | None = None


NO_FEED: Final = Rate("no_feed")


def judged(returned: Returned, *, decimals: int, at: datetime, max_age: timedelta) -> Rate:
    """Return what an answer to `latestRoundData()` is worth.

    The answer is the round, the price, when the round began, when the price was given, and the round that it was
    given in, a word each. A price that is not positive is none, and so is one given after the block.

    Args:
        returned: the answer of the feed.
        decimals: of the price.
        at: time of the block, aware.
        max_age: how long a price stands.
    """
    if not returned.success or len(returned.data) != 5 * _WORD:
        return Rate("no_answer")
    price = int.from_bytes(returned.data[_WORD : 2 * _WORD], "big", signed=True)
    given = int.from_bytes(returned.data[3 * _WORD : 4 * _WORD], "big")
    if price <= 0 or not 0 < given <= at.timestamp():
        return Rate("no_answer")
    answered_at = datetime.fromtimestamp(given, UTC)
    if at - answered_at > max_age:
        return Rate("stale", answered_at=answered_at)
    rate = _EXACT.scaleb(Decimal(price), -decimals)
    return Rate("ok" if usable_rate(rate) is not None else "out_of_range", rate, answered_at)
