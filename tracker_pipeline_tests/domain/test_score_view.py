"""The picture of a score is small and complete; movers are named with what they moved."""

import base64
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from xml.etree import ElementTree

from tracker_pipeline.domain.holdings import MICRO, Holding, Pair
from tracker_pipeline.domain.score_view import Point, chart, movers, without_driver

ETH = 10**18
T = datetime(2026, 3, 1, tzinfo=UTC)


def pair(number: int, then: int, now: int) -> Pair:
    return Pair(f"0x{number:040x}", Holding(then * ETH, 0, 0), Holding(now * ETH, 0, 0))


def picture(markdown: str) -> ElementTree.Element:
    data = markdown.split("base64,")[1].split(")", maxsplit=1)[0]
    return ElementTree.fromstring(base64.b64decode(data))


def test_a_week_is_a_picture_of_some_kilobytes_with_both_lines():
    points = [
        Point(T + timedelta(hours=h), (1000 + h) * ETH, Decimal(h) / 10 if h > 24 else None)
        for h in range(400)
    ]
    markdown = chart(points)
    lines = [element for element in picture(markdown) if element.tag.endswith("polyline")]
    assert [len(line.attrib["points"].split()) for line in lines] == [168, 168]
    assert len(markdown) < 12_000
    assert "2026-03-10 16:00 to 2026-03-17 15:00 UTC, 168 hours" in markdown
    assert "| total balance (blue), ETH | 1,232 | 1,399 | 1,399 |" in markdown


def test_one_hour_is_a_dot_and_none_is_said():
    markdown = chart([Point(T, 10 * ETH, None)])
    assert [element.tag.split("}")[1] for element in picture(markdown)] == ["rect", "circle"]
    assert "| score (orange), % | | | |" in markdown
    assert chart([]) == "no snapshots yet"


def test_the_ten_that_moved_most_are_named_largest_first():
    text = movers([pair(n, 100, 100 + (-1) ** n * n) for n in range(0, 15)], MICRO)
    lines = text.splitlines()[2:]
    assert len(lines) == 10
    assert lines[0] == "| `0x000000000000000000000000000000000000000E` | 100.00 | 114.00 | +14.00 |"
    assert lines[1].endswith("| 100.00 | 87.00 | -13.00 |")
    assert movers([pair(1, 5, 5)], MICRO) == "nobody moved"


def test_a_score_without_its_driver_is_that_of_the_others():
    pairs = [pair(1, 100, 300), pair(2, 100, 101)]
    assert without_driver(pairs, pairs[0].address) == Fraction(1)
    assert without_driver(pairs[:1], pairs[0].address) is None
