"""Small charts for the web interface: one curve over time as an SVG inside Markdown, with its figures in words.

What belongs here: pictures made of figures. What does not: figures, and which of them are drawn.

A chart is text of less than 1,000 characters: the web interface shows no longer one in place, and Dagster keeps the
metadata of the newest materialization for ever.
"""

import base64
import math
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final

# In units of 3 pixels: whole numbers below 100 are short, and a step of one pixel would not be seen.
_WIDTH, _HEIGHT, _PIXELS = 90, 24, 3
_MOST_POINTS: Final = 60
_MOST_DECIMALS: Final = 10
_MOST_NAME: Final = 120


def chart(name: str, points: Sequence[tuple[datetime, float]]) -> str:
    """Return a Markdown image of a curve, and below it what it shows, its last, lowest and highest value.

    Args:
        name: what is shown, with its unit.
        points: moment and finite value, in order of time; where there are more than 60 they are drawn in steps.
    """
    if not points:
        return "nothing to draw yet"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -1 {_WIDTH} {_HEIGHT + 2}"'
        f' width="{_WIDTH * _PIXELS}" height="{_HEIGHT * _PIXELS}">{_drawn(_thinned(points))}</svg>'
    )
    image = base64.b64encode(svg.encode()).decode()
    values = [value for _, value in points]
    decimals = _decimals(max(abs(value) for value in values))
    last, low, high = (f"{value:,.{decimals}f}" for value in (values[-1], min(values), max(values)))
    return (
        f"![chart](data:image/svg+xml;base64,{image})\n\n"
        f"{name[:_MOST_NAME]}: last {last}, lowest {low}, highest {high},"
        f" {points[0][0]:%Y-%m-%d %H:%M} to {points[-1][0]:%Y-%m-%d %H:%M} UTC"
    )


def _thinned(points: Sequence[tuple[datetime, float]]) -> list[tuple[datetime, float]]:
    """At most 60 of the points, evenly spaced, the last among them."""
    kept = min(len(points), _MOST_POINTS)
    return [points[i * (len(points) - 1) // max(1, kept - 1)] for i in range(kept)]


def _decimals(largest: float) -> int:
    """As many as give the largest value five digits, so that prices of all coins can be read."""
    return min(max(0, 4 - math.floor(math.log10(largest))), _MOST_DECIMALS) if largest else 0


def _drawn(points: Sequence[tuple[datetime, float]]) -> str:
    """A path of steps from point to point; a dot where there is one."""
    low, high = min(value for _, value in points), max(value for _, value in points)
    begin, length = points[0][0], (points[-1][0] - points[0][0]).total_seconds() or 1.0
    places = [
        (
            round(_WIDTH * (at - begin).total_seconds() / length),
            round(_HEIGHT * (1 - ((value - low) / (high - low) if high > low else 0.5))),
        )
        for at, value in points
    ]
    if len(places) == 1:
        return f'<circle cx="1" cy="{places[0][1]}" r="1" fill="#2563eb"/>'
    steps = "".join(f" {x - before[0]}{y - before[1]:+d}" for before, (x, y) in pairwise(places))
    start = f"M{places[0][0]} {places[0][1]}l{steps[1:]}"
    return f'<path d="{start}" fill="none" stroke="#2563eb" stroke-width=".6"/>'
