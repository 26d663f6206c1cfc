"""How a score looks to people: small charts of the last days, and who moved most, as Markdown.

What belongs here: text made of figures. What does not: figures (`accumulation`), where they are shown (`assets`).
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from tracker_pipeline.domain.addresses import display
from tracker_pipeline.domain.chart import chart
from tracker_pipeline.domain.holdings import WEI_PER_ETH, Pair

_MOVERS: Final = 10


class Point(NamedTuple):
    """One hour of the chart.

    Attributes:
        at: the hour.
        total_wei: native balance of all known addresses.
        score_pct: the score over the look-back; None where there is none.
    """

    at: datetime
    total_wei: int
    score_pct: Decimal | None


def total_chart(points: Sequence[Point]) -> str:
    """Return the total balance over the hours of `points`, in order of time, as Markdown."""
    return chart(
        "ether of all watched addresses", [(p.at, float(Fraction(p.total_wei, WEI_PER_ETH))) for p in points]
    )


def score_chart(points: Sequence[Point]) -> str:
    """Return the score over the hours of `points`, in order of time, as Markdown."""
    known = [(p.at, float(p.score_pct)) for p in points if p.score_pct is not None]
    return chart("change over the look-back, %", known)


def movers(pairs: Sequence[Pair], rate_micro: int) -> str:
    """Return the ten addresses whose wealth changed most, as a Markdown table in ether.

    Args:
        pairs: the matched addresses.
        rate_micro: ether for one stETH, in millionths.
    """
    worth = [(p.now.wealth(rate_micro) - p.then.wealth(rate_micro), p) for p in pairs]
    moved = sorted((one for one in worth if one[0]), key=lambda one: (-abs(one[0]), one[1].address))
    if not moved:
        return "nobody moved"
    lines = [
        f"| {_eth(change, sign=True)} | {_eth(p.now.wealth(rate_micro))} | `{display(p.address)}` |"
        for change, p in moved[:_MOVERS]
    ]
    # The change first: the web interface shows about thirty characters of a line before it has to be scrolled.
    return "| change, ETH | now, ETH | address |\n|---:|---:|---|\n" + "\n".join(lines)


def without_driver(pairs: Sequence[Pair], driver: str | None) -> Fraction | None:
    """Return the native score in per cent as it would be without one address; None where nothing is left."""
    left = [pair for pair in pairs if pair.address != driver]
    then = sum(pair.then.eth for pair in left)
    return Fraction(100 * (sum(pair.now.eth for pair in left) - then), then) if then else None


def _eth(wei: int, *, sign: bool = False) -> str:
    return f"{float(Fraction(wei, WEI_PER_ETH)):{'+' if sign else ''},.2f}"
