"""Ranks and floors apply after everyone was read, so that who enters and who leaves is seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker_pipeline.domain.accumulation import score_of
from tracker_pipeline.domain.holdings import MICRO, Holding, among_largest, largest, match_holdings

ETH = 10**18
A, B, C, D = (f"0x{letter * 40}" for letter in "abcd")


def eth(**held: float | None):
    names = {"a": A, "b": B, "c": C, "d": D}
    return {names[n]: None if v is None else Holding(int(v * ETH), 0, 0) for n, v in held.items()}


def test_the_largest_are_by_wealth_with_ties_by_address():
    held = eth(a=5, b=7, c=7, d=1)
    assert largest(held, rate_micro=MICRO, top=2) == {B, C}
    assert largest({**held, D: Holding(1, 0, 9 * ETH)}, rate_micro=MICRO, top=1) == {D}
    assert largest(eth(a=7, b=7), rate_micro=MICRO, top=1) == {A}
    assert largest(held, rate_micro=MICRO, top=None, least_wei=6 * ETH) == {B, C}


def test_who_enters_and_who_leaves_is_compared_with_what_it_held_outside():
    cohort = among_largest(eth(a=5, b=9, c=1), eth(a=5, b=2, c=6), rate_micro=MICRO, top=2)
    assert (cohort.entrants, cohort.leavers, cohort.universe, len(cohort.pairs)) == (1, 1, 3, 3)
    assert score_of(cohort, steth_rate=None)["change_wei"] == 2 * ETH


def test_one_that_was_among_the_largest_and_cannot_be_read_now_is_counted_as_missing():
    cohort = among_largest(eth(a=None, b=3, c=1), eth(a=5, b=3, c=1), rate_micro=MICRO, top=1)
    assert (cohort.universe, cohort.missing_current, len(cohort.pairs)) == (2, 1, 1)


@pytest.mark.parametrize("top", [None, 10])
def test_without_a_limit_that_bites_it_is_the_comparison_of_all(top):
    now, then = eth(a=5, b=9, d=2), eth(a=5, b=2, c=6)
    cohort = among_largest(now, then, rate_micro=MICRO, top=top)
    whole = match_holdings(now, then)
    assert (cohort.pairs, cohort.entrants, cohort.leavers) == (whole.pairs, whole.entrants, whole.leavers)


HELD = st.dictionaries(st.sampled_from([A, B, C, D]), st.integers(0, 9), min_size=1)


@given(HELD, HELD, st.integers(1, 4))
def test_every_one_of_either_largest_is_in_the_comparison(now, then, top):
    as_holdings = lambda held: {address: Holding(wei, 0, 0) for address, wei in held.items()}  # noqa: E731
    cohort = among_largest(as_holdings(now), as_holdings(then), rate_micro=MICRO, top=top)
    union = largest(as_holdings(now), rate_micro=MICRO, top=top) | largest(
        as_holdings(then), rate_micro=MICRO, top=top
    )
    assert cohort.universe == len(union)
    assert {pair.address for pair in cohort.pairs} == union & now.keys() & then.keys()
