"""Gaps through time: asked for less and less often, cut where they fill, told from outages and delistings."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tracker_pipeline.domain.bar_slots import SLOTS, TIME
from tracker_pipeline.domain.gap_states import GAP_COLUMNS, OUTAGE_ATTEMPTS, next_attempt, reviewed
from tracker_pipeline.domain.outages import joined, outage_slots
from tracker_pipeline.domain.timeframes import TIMEFRAMES

START = datetime(2024, 3, 1, tzinfo=UTC)
NOW = datetime(2024, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NONE_DOWN = pl.DataFrame(schema={"venue": pl.String, "ts": TIME})


def slots(hours: range | list[int], symbol: str = "BTC/USDT") -> pl.DataFrame:
    return pl.DataFrame([("bybit", symbol, START + h * HOUR) for h in hours], schema=SLOTS, orient="row")


def absent(
    hours: range | list[int],
    *,
    confirmed_by: str | None = None,
    askable: bool = True,
    symbol: str = "BTC/USDT",
) -> pl.DataFrame:
    return slots(hours, symbol).with_columns(
        confirmed_by=pl.lit(confirmed_by, pl.String),
        unlisted=pl.lit(value=False),
        askable=pl.lit(askable),
        error=pl.lit(None, pl.String),
    )


def review(
    known: pl.DataFrame, gone: pl.DataFrame, there: range | list[int] = (), now: datetime = NOW
) -> list[dict]:
    return reviewed(known, gone, slots(list(there)), NONE_DOWN, timeframe="1h", now=now).to_dicts()


def test_the_waits_grow_to_a_day_and_an_outage_is_asked_for_six_times():
    waits = [next_attempt(n, NOW, state="missing") - NOW for n in range(9)]
    assert waits == [timedelta(minutes=m) for m in (0, 5, 15, 45, 135, 405, 1215, 1440, 1440)]
    assert next_attempt(OUTAGE_ATTEMPTS - 1, NOW, state="outage") is not None
    assert next_attempt(OUTAGE_ATTEMPTS, NOW, state="outage") is None
    assert next_attempt(0, NOW, state="empty") is None


def test_a_gap_that_fills_in_the_middle_is_cut_and_its_parts_keep_what_is_known_of_it():
    before = reviewed(
        GAP_COLUMNS.to_frame(), absent(range(10)), slots([]), NONE_DOWN, timeframe="1h", now=NOW
    )
    asked = before.with_columns(attempts=pl.lit(3, pl.Int64), next_attempt_at=pl.lit(NOW + 45 * HOUR, TIME))
    later = NOW + 46 * HOUR
    left, middle, right = review(asked, absent([0, 1, 8, 9]), there=range(2, 8), now=later)
    assert [row["attempts"] for row in (left, middle, right)] == [3, 3, 3]
    assert (middle["gap_start"], middle["gap_end"]) == (START + 2 * HOUR, START + 8 * HOUR)
    assert middle["resolved_at"] == later
    assert left["resolved_at"] is right["resolved_at"] is None
    assert {row["detected_at"] for row in (left, middle, right)} == {NOW}
    assert left["next_attempt_at"] == right["next_attempt_at"] == NOW + 45 * HOUR


def test_a_gap_that_grows_by_the_hour_is_one_gap():
    known = GAP_COLUMNS.to_frame()
    for end in (4, 8, 12):
        known = reviewed(
            known, absent(range(end), confirmed_by="bybit"), slots([]), NONE_DOWN, timeframe="1h", now=NOW
        )
    (gap,) = known.to_dicts()
    assert (gap["gap_end"] - gap["gap_start"], gap["state"]) == (12 * HOUR, "empty")


@pytest.mark.parametrize(
    ("days", "confirmed_by", "askable", "state"),
    [
        (14, "bybit", True, "unlisted"),
        (13, "bybit", True, "empty"),
        (14, None, False, "unlisted"),
        (30, None, True, "missing"),
    ],
)
def test_two_weeks_without_a_bar_are_a_delisting_unless_we_just_did_not_ask(
    days, confirmed_by, askable, state
):
    (gap,) = review(
        GAP_COLUMNS.to_frame(), absent(range(24 * days), confirmed_by=confirmed_by, askable=askable)
    )
    assert gap["state"] == state


def spans(symbols: list[str], hours: int) -> pl.DataFrame:
    rows = [("bybit", symbol, START, START + hours * HOUR) for symbol in symbols]
    schema = {"venue": pl.String, "symbol": pl.String, "span_start": TIME, "span_end": TIME}
    return pl.DataFrame(rows, schema=schema, orient="row")


def down(lacking: int, of: int, hours: range, bars: range, *, confirmed: bool = False) -> int:
    """How many hours are an outage where some of the symbols lack these hours and all have those bars."""
    names = [f"C{n}/USDT" for n in range(of)]
    gone = pl.concat(
        absent(hours, confirmed_by="bybit" if confirmed else None, symbol=s) for s in names[:lacking]
    )
    there = pl.concat(slots([h for h in bars if h not in hours or s in names[lacking:]], s) for s in names)
    return outage_slots(gone, there, spans(names, 24)).height


def test_an_outage_is_what_most_symbols_lack_between_bars_they_have():
    assert down(10, 10, range(12, 14), range(24)) == 2
    assert down(8, 10, range(12, 14), range(24)) == 2
    assert down(7, 10, range(12, 14), range(24)) == 0
    assert down(2, 2, range(12, 14), range(24)) == 0, (
        "two symbols cannot tell the venue's fault from their own"
    )


def test_hours_that_nobody_has_asked_for_yet_are_no_outage_and_hours_that_the_venue_denies_are():
    assert down(10, 10, range(20, 24), range(20)) == 0
    assert down(10, 10, range(20, 24), range(20), confirmed=True) == 4


def test_one_outage_has_the_bounds_of_its_finest_bars():
    noon = START + 12 * HOUR
    found = (noon + timedelta(minutes=40), noon + 2 * HOUR, "5m")
    hourly = (noon + HOUR, noon + 2 * HOUR, "1h")
    order = list(TIMEFRAMES)
    assert joined([hourly], found, finest_first=order) == (*found, [hourly[0]])
    assert joined([found], hourly, finest_first=order) == (*found, [found[0]])
    longer = (noon + 2 * HOUR, noon + 3 * HOUR, "5m")
    assert joined([found], longer, finest_first=order)[:2] == (found[0], longer[1])
