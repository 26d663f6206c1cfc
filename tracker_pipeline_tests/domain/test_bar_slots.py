"""Runs and slots are the same thing in two forms, and every expected bar is accounted for."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain.bar_slots import SLOT, TIME, closed_until, count_by_day, runs_of, slots_of
from tracker_pipeline.domain.bars import expected_spans, find_gaps
from tracker_pipeline.domain.coverage import coverage
from tracker_pipeline.domain.gap_states import EMPTY, GAP_COLUMNS, MISSING, OUTAGE, reviewed

START = datetime(2024, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def slots(hours: set[int], symbol: str = "BTC/USDT") -> pl.DataFrame:
    rows = [("bybit", symbol, START + hour * HOUR) for hour in sorted(hours)]
    return pl.DataFrame(rows, schema={"venue": pl.String, "symbol": pl.String, "ts": TIME}, orient="row")


def listing(first: int | None, last: int | None) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (
                "bybit",
                "BTC/USDT",
                None if first is None else START + first * HOUR,
                None if last is None else START + last * HOUR,
            )
        ],
        schema={"venue": pl.String, "symbol": pl.String, "listed_from": TIME, "listed_to": TIME},
        orient="row",
    )


@given(st.sets(st.integers(0, 80)), st.sets(st.integers(0, 80)))
def test_slots_joined_to_runs_and_taken_apart_again_are_the_same_slots(some: set[int], others: set[int]):
    frame = pl.concat([slots(some), slots(others, "ETH/USDT")])
    runs = runs_of(frame, "1h", "start", "end")
    assert slots_of(runs, "1h", "start", "end").select(SLOT).sort(SLOT).equals(frame.sort(SLOT))
    assert runs.height <= frame.height


def test_a_run_ends_where_a_column_changes_though_the_slots_go_on():
    frame = slots({0, 1, 2, 3}).with_columns(state=pl.Series(["a", "a", "b", None]))
    runs = runs_of(frame, "1h", "start", "end", by=["state"])
    assert runs.get_column("state").to_list() == ["a", "b", None]


def test_the_bars_of_a_span_are_counted_by_day():
    spans = expected_spans(listing(20, 50), "1h", START, START + 3 * DAY)
    assert count_by_day(spans, "1h").get_column("slots").to_list() == [4, 24, 2]


def test_a_bar_is_expected_when_every_clock_agrees_that_it_is_final():
    noon = START + 12 * HOUR
    assert closed_until("1h", noon + timedelta(minutes=3)) == noon - HOUR
    assert closed_until("1h", noon + timedelta(minutes=5)) == noon


states = st.dictionaries(st.integers(0, 71), st.sampled_from(["empty", "outage", "missing", "unlisted"]))


@settings(deadline=None)
@given(
    present=st.sets(st.integers(-5, 80)),
    said=states,
    listed=st.tuples(st.none() | st.integers(-5, 40), st.none() | st.integers(40, 80)),
)
def test_expected_is_present_and_empty_and_outage_and_missing(
    present: set[int], said: dict[int, str], listed: tuple[int | None, int | None]
):
    end = START + 3 * DAY
    bars, listing_ = slots(present), listing(*listed)
    gaps = find_gaps(bars, timeframe="1h", start=START, end=end, listed=listing_)
    absent = slots_of(gaps, "1h", "gap_start", "gap_end").select(SLOT)
    hour = (pl.col("ts") - START).dt.total_hours()
    absent = absent.with_columns(state=hour.replace_strict(said, default="missing", return_dtype=pl.String))
    rows = coverage(bars, absent, expected_spans(listing_, "1h", START, end), timeframe="1h")
    first, last = max(listed[0] or 0, 0), min(72 if listed[1] is None else listed[1], 72)
    expected = set(range(first, last))
    unlisted = {h for h in expected - present if said.get(h) == "unlisted"}
    sums = rows.select(pl.col("expected", "present", EMPTY, OUTAGE, MISSING).sum()).row(0)
    assert sums[0] == sum(sums[1:])
    assert sums[0] == len(expected - unlisted)
    assert sums[1] == len(expected & present)
    assert rows.filter(pl.sum_horizontal("present", EMPTY, OUTAGE, MISSING) != pl.col("expected")).is_empty()


round_of_review = st.tuples(
    st.sets(st.integers(0, 23)), st.sets(st.integers(0, 23)), st.sets(st.integers(0, 23)), st.integers(0, 12)
)


@settings(deadline=None, max_examples=60)
@given(st.lists(round_of_review, min_size=1, max_size=5))
def test_every_bar_that_was_ever_absent_stays_in_exactly_one_gap(rounds: list[tuple[set[int], ...]]):
    """Reviews of changing windows: what is absent and what came, what was confirmed, what is an outage."""
    known = GAP_COLUMNS.to_frame()
    ever: set[int] = set()
    still: set[int] = set()
    for number, (gone, confirmed, down, first) in enumerate(rounds):
        window = range(first, 24)
        lost = gone & set(window)
        absent = slots(lost).with_columns(
            confirmed_by=pl.Series(
                [("bybit" if h in confirmed else None) for h in sorted(lost)], dtype=pl.String
            ),
            unlisted=pl.lit(value=False),
            askable=pl.lit(value=True),
            error=pl.lit(None, pl.String),
        )
        now = START + DAY + number * HOUR
        present = slots(set(window) - lost)
        known = reviewed(known, absent, present, slots(down), timeframe="1h", now=now)
        ever |= lost
        still = (still - set(window)) | lost
        taken = slots_of(known, "1h", "gap_start", "gap_end")
        assert taken.select(SLOT).sort(SLOT).equals(slots(ever))
        assert taken.filter(pl.col("resolved_at").is_null()).select(SLOT).sort(SLOT).equals(slots(still))
        assert known.filter(
            pl.col("resolved_at").is_not_null() & pl.col("next_attempt_at").is_not_null()
        ).is_empty()
        again = reviewed(known, absent, present, slots(down), timeframe="1h", now=now + HOUR)
        assert again.equals(known), "a review that finds nothing new changes nothing"
