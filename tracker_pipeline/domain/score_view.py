"""How a score looks to people: a small chart of the last days, and who moved most, as Markdown.

What belongs here: text made of figures. What does not: figures (`accumulation`), where they are shown (`assets`).

The chart is an SVG of some kilobytes, because Dagster keeps the metadata of every materialization for ever.
"""

import base64
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from tracker_pipeline.domain.addresses import display
from tracker_pipeline.domain.holdings import WEI_PER_ETH, Pair

_WIDTH, _HEIGHT, _MARGIN = 480, 120, 6
_BALANCE, _SCORE = "#2563eb", "#d97706"
_MOVERS: Final = 10
_MOST_POINTS: Final = 168  # a week of hours


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


def chart(points: Sequence[Point]) -> str:
    """Return total balance (blue) and score (orange) over the hours of `points`, as a Markdown image with its scale.

    Args:
        points: in order of time; the last 168 are drawn.
    """
    drawn = list(points)[-_MOST_POINTS:]
    if not drawn:
        return "no snapshots yet"
    totals = [(point.at, Fraction(point.total_wei)) for point in drawn]
    scores = [(p.at, Fraction(p.score_pct)) for p in drawn if p.score_pct is not None]
    lines = _line(totals, drawn, _BALANCE) + _line(scores, drawn, _SCORE)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}"'
        f' height="{_HEIGHT}"><rect width="100%" height="100%" fill="#f8fafc"/>{lines}</svg>'
    )
    image = base64.b64encode(svg.encode()).decode()
    return (
        f"![total balance and score](data:image/svg+xml;base64,{image})\n\n"
        f"{drawn[0].at:%Y-%m-%d %H:%M} to {drawn[-1].at:%Y-%m-%d %H:%M} UTC, {len(drawn)} hours.\n\n"
        f"| | lowest | highest | last |\n|---|---:|---:|---:|\n"
        f"{_scale('total balance (blue), ETH', [value / WEI_PER_ETH for _, value in totals], 0)}\n"
        f"{_scale('score (orange), %', [value for _, value in scores], 4)}"
    )


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
        f"| `{display(p.address)}` | {_eth(p.then.wealth(rate_micro))} | {_eth(p.now.wealth(rate_micro))}"
        f" | {_eth(change, sign=True)} |"
        for change, p in moved[:_MOVERS]
    ]
    return "| address | then, ETH | now, ETH | change, ETH |\n|---|---:|---:|---:|\n" + "\n".join(lines)


def without_driver(pairs: Sequence[Pair], driver: str | None) -> Fraction | None:
    """Return the native score in per cent as it would be without one address; None where nothing is left."""
    left = [pair for pair in pairs if pair.address != driver]
    then = sum(pair.then.eth for pair in left)
    return Fraction(100 * (sum(pair.now.eth for pair in left) - then), then) if then else None


def _eth(wei: int, *, sign: bool = False) -> str:
    return f"{float(Fraction(wei, WEI_PER_ETH)):{'+' if sign else ''},.2f}"


def _scale(name: str, values: Sequence[Fraction], decimals: int) -> str:
    if not values:
        return f"| {name} | | | |"
    return (
        f"| {name} | "
        + " | ".join(f"{float(value):,.{decimals}f}" for value in (min(values), max(values), values[-1]))
        + " |"
    )


def _line(values: Sequence[tuple[datetime, Fraction]], drawn: Sequence[Point], color: str) -> str:
    """One polyline, scaled to the picture; a dot where there is one value."""
    if not values:
        return ""
    low, high = min(value for _, value in values), max(value for _, value in values)
    begin, length = drawn[0].at, (drawn[-1].at - drawn[0].at).total_seconds() or 1.0
    places = [
        (
            _MARGIN + (_WIDTH - 2 * _MARGIN) * (at - begin).total_seconds() / length,
            _MARGIN
            + (_HEIGHT - 2 * _MARGIN) * (1 - float((value - low) / (high - low)) if high > low else 0.5),
        )
        for at, value in values
    ]
    if len(places) == 1:
        return f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3" fill="{color}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'
