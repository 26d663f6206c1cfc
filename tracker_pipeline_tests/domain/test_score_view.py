"""The hours of a score are drawn; movers are named with what they moved."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from tracker_pipeline.domain.holdings import MICRO, Holding, Pair
from tracker_pipeline.domain.score_view import Point, movers, score_chart, total_chart, without_driver

ETH = 10**18
T = datetime(2026, 3, 1, tzinfo=UTC)


def pair(number: int, then: int, now: int) -> Pair:
    return Pair(f"0x{number:040x}", Holding(then * ETH, 0, 0), Holding(now * ETH, 0, 0))


def test_balance_and_score_are_drawn_over_the_hours_that_have_them():
    points = [
        Point(T + timedelta(hours=h), (1000 + h) * ETH, Decimal(h) / 10 if h >= 24 else None)
        for h in range(72)
    ]
    assert total_chart(points).endswith(
        "ether of all watched addresses: last 1,071.0, lowest 1,000.0, highest 1,071.0,"
        " 2026-03-01 00:00 to 2026-03-03 23:00 UTC"
    )
    assert "last 7.1000, lowest 2.4000, highest 7.1000, 2026-03-02 00:00 to" in score_chart(points)


def test_without_a_score_there_is_no_curve_of_it():
    assert score_chart([Point(T, 10 * ETH, None)]) == "nothing to draw yet"


def test_the_ten_that_moved_most_are_named_largest_first():
    text = movers([pair(n, 100, 100 + (-1) ** n * n) for n in range(0, 15)], MICRO)
    lines = text.splitlines()[2:]
    assert len(lines) == 10
    assert lines[0] == "| +14.00 | 114.00 | `0x000000000000000000000000000000000000000E` |"
    assert lines[1].startswith("| -13.00 | 87.00 |")
    assert movers([pair(1, 5, 5)], MICRO) == "nobody moved"


def test_a_score_without_its_driver_is_that_of_the_others():
    pairs = [pair(1, 100, 300), pair(2, 100, 101)]
    assert without_driver(pairs, pairs[0].address) == Fraction(1)
    assert without_driver(pairs[:1], pairs[0].address) is None
