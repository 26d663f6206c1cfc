"""A chart is small enough to be shown in place, and says in words what it draws."""

import base64
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker_pipeline.domain.chart import chart

T = datetime(2026, 3, 1, tzinfo=UTC)


def curve(*values: float, every: timedelta = timedelta(minutes=15)) -> list[tuple[datetime, float]]:
    return [(T + i * every, value) for i, value in enumerate(values)]


def drawing(markdown: str) -> ElementTree.Element:
    data = markdown.split("base64,")[1].split(")", maxsplit=1)[0]
    (element,) = ElementTree.fromstring(base64.b64decode(data))
    return element


def places(markdown: str) -> list[tuple[int, int]]:
    """The points of the path, with the first at the left and y growing downwards."""
    start, steps = drawing(markdown).attrib["d"].removeprefix("M").split("l")
    found = [tuple(map(int, start.split()))]
    for step in steps.split():
        dx, dy = step.replace("+", " +").replace("-", " -").split()
        found.append((found[-1][0] + int(dx), found[-1][1] + int(dy)))
    return found


def test_a_curve_goes_from_its_first_to_its_last_value_between_lowest_and_highest():
    drawn = places(chart("close", curve(1.0, 3.0, 2.0)))
    assert drawn == [(0, 24), (45, 0), (90, 12)]


def test_time_that_lacks_is_a_long_step():
    points = [*curve(1.0, 1.0), (T + timedelta(hours=10), 1.0)]
    assert [x for x, _ in places(chart("close", points))] == [0, 2, 90]


def test_last_lowest_and_highest_value_stand_below_with_their_time():
    text = chart("close, USDT", curve(0.000123456, 0.000223456, 0.000199999)).splitlines()[-1]
    assert text == (
        "close, USDT: last 0.00020000, lowest 0.00012346, highest 0.00022346,"
        " 2026-03-01 00:00 to 2026-03-01 00:30 UTC"
    )
    assert "last 1,234,568," in chart("close", curve(1_234_567.8))


@pytest.mark.parametrize(("count", "drawn"), [(2, 2), (59, 59), (60, 60), (61, 60), (1440, 60)])
def test_long_curves_are_drawn_in_sixty_points_from_the_first_to_the_last(count, drawn):
    markdown = chart("close", curve(*range(count)))
    assert len(places(markdown)) == drawn
    assert (places(markdown)[0], places(markdown)[-1]) == ((0, 24), (90, 0))
    assert f"last {count - 1:,}." in markdown


def test_one_value_is_a_dot_and_none_is_said():
    assert drawing(chart("close", curve(5.0))).tag.endswith("circle")
    assert chart("close", []) == "nothing to draw yet"


@given(st.lists(st.floats(-1e15, 1e15), min_size=1, max_size=200))
def test_any_curve_is_shown_in_place(values):
    assert len(chart("n" * 300, curve(*values))) < 1_000
