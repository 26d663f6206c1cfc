"""Comparing stored bars with what should be there: the gaps of a window brought up to date, and its coverage.

What belongs here: from stored rows and what sources said to stored gaps and coverage. What does not: the rules
(`domain.gap_states`, `domain.outages`, `domain.coverage`), asking sources.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from tracker_pipeline.assets.bar_series import finer_timeframes, tracked_series
from tracker_pipeline.domain.bar_slots import SERIES, SLOT, TIME, closed_until, runs_of, slots_of
from tracker_pipeline.domain.bars import expected_spans, find_gaps
from tracker_pipeline.domain.coverage import coverage
from tracker_pipeline.domain.gap_states import reviewed
from tracker_pipeline.domain.outages import outage_slots
from tracker_pipeline.domain.rollups import nonexistent_buckets
from tracker_pipeline.domain.schemas import BAR_COVERAGE, BARS
from tracker_pipeline.domain.timeframes import TIMEFRAMES, duration
from tracker_pipeline.resources.symbols import facts_of_name
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import Connection, connect
from tracker_pipeline.storage.gaps import (
    gaps_touching,
    lock_gaps,
    open_gaps,
    record_outages,
    replace_gaps,
    resolve_outages,
)

EVIDENCE: Final = pl.Schema(
    {
        "venue": pl.String(),
        "symbol": pl.String(),
        "gap_start": TIME,
        "gap_end": TIME,
        "confirmed_by": pl.String(),
        "not_served": pl.Boolean(),  # asking again is of no use
        "before_listing": pl.Boolean(),  # unless it is known better, the symbol was not listed then
        "error": pl.String(),
    }
)
# A hole at the edge of a window is inside the series if there are bars beyond the edge.
_MARGIN: Final = timedelta(days=1)


def review(
    timeframe: str,
    start: datetime,
    end: datetime,
    *,
    run_id: str,
    symbols: Sequence[str] = (),
    evidence: pl.DataFrame | None = None,
    now: datetime | None = None,
) -> pl.DataFrame:
    """Bring the gaps of one timeframe in [start, end) up to date and return its coverage.

    Args:
        timeframe: one of ours.
        start: start of a UTC day.
        end: start of another, exclusive.
        run_id: of the run that reviews.
        symbols: of the exchange, all if none is given.
        evidence: what a source said about bars it did not give: frame of `EVIDENCE`.
        now: aware; bars that are not closed by then are not expected. The present if not given.

    Returns:
        Rows of `market.bar_coverage`.
    """
    now = now or datetime.now(UTC)
    stop = min(end, closed_until(timeframe, now))
    nothing = BAR_COVERAGE.polars_schema.to_frame()
    if stop <= start:
        return nothing
    columns = [*SLOT, "source"]
    bars = scan(BARS[timeframe].name, start - _MARGIN, end + _MARGIN, columns=columns).collect()
    with connect() as connection, connection.transaction():
        lock_gaps(connection)
        series = tracked_series(connection, timeframe, bars, symbols)
        spans = expected_spans(series, timeframe, start, stop)
        if spans.is_empty():
            return nothing
        known = gaps_touching(connection, timeframe, start, end)
        inside = bars.filter(pl.col("ts").is_between(start, stop, closed="left"))
        absent = _absent_slots(connection, timeframe, start, stop, bars, series, known, evidence)
        down = outage_slots(absent.filter(~pl.col("unlisted")), bars, spans)
        gaps = reviewed(known, absent, inside.select(SLOT), down, timeframe=timeframe, now=now)
        replace_gaps(connection, timeframe, known, gaps)
        record_outages(connection, _outage_runs(down, timeframe), timeframe, run_id=run_id)
        resolve_outages(connection, start, end, now)
    states = slots_of(
        gaps.filter(pl.col("resolved_at").is_null()).select(*SERIES, "gap_start", "gap_end", "state"),
        timeframe,
        "gap_start",
        "gap_end",
    ).join(absent.select(SLOT), on=SLOT, how="semi")
    counted = coverage(inside, _expected_only(states, spans), spans, timeframe=timeframe)
    return BAR_COVERAGE.conform(counted.with_columns(timeframe=pl.lit(timeframe)))


def review_all(
    start: datetime, end: datetime, *, run_id: str, symbols: Sequence[str] = (), now: datetime | None = None
) -> pl.DataFrame:
    """Review every timeframe, the finest first, since a coarser bar does not exist if none of its children does."""
    return pl.concat(
        review(timeframe, start, end, run_id=run_id, symbols=symbols, now=now) for timeframe in TIMEFRAMES
    )


def _absent_slots(
    connection: Connection,
    timeframe: str,
    start: datetime,
    stop: datetime,
    bars: pl.DataFrame,
    series: pl.DataFrame,
    known: pl.DataFrame,
    evidence: pl.DataFrame | None,
) -> pl.DataFrame:
    """Slots without a bar, with what is known about why: as `gap_states.reviewed` takes them."""
    gaps = find_gaps(bars, timeframe=timeframe, start=start, end=stop, listed=series)
    said = [
        _slots_of_evidence(evidence, timeframe),
        _inside_dumps(gaps, bars, timeframe),
        _without_children(connection, timeframe, start, stop),
    ]
    # Of several sources that speak of a slot the one asked first in this list counts.
    words = pl.concat(said, how="diagonal").unique(SLOT, keep="first", maintain_order=True)
    expected = slots_of(gaps.drop("bars"), timeframe, "gap_start", "gap_end").with_columns(
        unlisted=pl.lit(value=False)
    )
    delisted = _no_longer_expected(known, bars, series, timeframe, start, stop).join(
        expected, on=SLOT, how="anti"
    )
    # Of a symbol that came back the first listing counts, and a bound that is open is earlier than any other.
    known_from = pl.col("listed_from").sort(nulls_last=False).first()
    bounds = series.group_by(SERIES).agg(pl.col("askable").any(), known_from, pl.col("first_bar").min())
    not_served = pl.col("not_served").fill_null(value=False)
    before_listing = pl.col("before_listing").fill_null(value=False)
    before_all = pl.col("confirmed_by").is_not_null() & (pl.col("ts") < pl.col("first_bar")).fill_null(
        value=False
    )
    return (
        pl.concat([expected, delisted])
        .join(words, on=SLOT, how="left")
        .join(bounds, on=SERIES, how="left")
        .with_columns(
            unlisted=pl.col("unlisted") | (pl.col("listed_from").is_null() & (before_listing | before_all)),
            askable=pl.col("askable").fill_null(value=False) & ~not_served,
        )
        .select(*SLOT, "confirmed_by", "unlisted", "askable", "error")
    )


def _slots_of_evidence(evidence: pl.DataFrame | None, timeframe: str) -> pl.DataFrame:
    frame = EVIDENCE.to_frame() if evidence is None else evidence
    return slots_of(frame, timeframe, "gap_start", "gap_end").select(
        *SLOT, "confirmed_by", "not_served", "before_listing", "error"
    )


def _inside_dumps(gaps: pl.DataFrame, bars: pl.DataFrame, timeframe: str) -> pl.DataFrame:
    """Slots between two bars of one public dump: a dump is complete by definition, so these do not exist."""
    sources = bars.get_column("source").unique().to_list()
    dumps = [
        s for s in sources if s.startswith("file:") and facts_of_name(Path(s.removeprefix("file:"))).is_dump
    ]
    from_dumps = bars.filter(pl.col("source").is_in(dumps)).select(*SLOT, confirmed_by="source")
    before = from_dumps.with_columns(gap_start=pl.col("ts") + duration(timeframe)).drop("ts")
    after = from_dumps.rename({"ts": "gap_end"})
    between = gaps.join(before, on=[*SERIES, "gap_start"]).join(
        after, on=[*SERIES, "gap_end", "confirmed_by"]
    )
    return slots_of(between, timeframe, "gap_start", "gap_end").select(*SLOT, "confirmed_by")


def _without_children(
    connection: Connection, timeframe: str, start: datetime, stop: datetime
) -> pl.DataFrame:
    """Slots whose every finer bar is known not to exist."""
    found = [pl.DataFrame(schema={"venue": pl.String, "symbol": pl.String, "ts": TIME})]
    for finer in finer_timeframes(timeframe):
        runs = open_gaps(connection, finer, start, stop, nonexistent=True).filter(
            pl.col("state") != "unlisted"
        )
        children = slots_of(runs.select(*SERIES, "gap_start", "gap_end"), finer, "gap_start", "gap_end")
        found.append(nonexistent_buckets(children, timeframe, finer=finer))
    return pl.concat(found).unique(SLOT).with_columns(confirmed_by=pl.lit("rollup"))


def _no_longer_expected(
    known: pl.DataFrame,
    bars: pl.DataFrame,
    series: pl.DataFrame,
    timeframe: str,
    start: datetime,
    stop: datetime,
) -> pl.DataFrame:
    """Slots of open gaps without a bar that is expected: by now it is known that the symbol was not listed."""
    still = known.filter(pl.col("resolved_at").is_null()).join(series, on=SERIES, how="semi")
    return (
        slots_of(still.select(*SERIES, "gap_start", "gap_end"), timeframe, "gap_start", "gap_end")
        .filter(pl.col("ts").is_between(start, stop, closed="left"))
        .join(bars.select(SLOT), on=SLOT, how="anti")
        .with_columns(unlisted=pl.lit(value=True))
    )


def _outage_runs(down: pl.DataFrame, timeframe: str) -> pl.DataFrame:
    slots = down.with_columns(symbol=pl.lit(""))
    counts = [pl.col("symbols_absent", "symbols_expected").max(), pl.col("confirmed_by").drop_nulls().first()]
    return runs_of(slots, timeframe, "outage_start", "outage_end", aggregated=counts).drop("symbol")


def _expected_only(states: pl.DataFrame, spans: pl.DataFrame) -> pl.DataFrame:
    inside = pl.col("ts").is_between("span_start", "span_end", closed="left")
    return states.join(spans, on=SERIES).filter(inside).select(*SLOT, "state")
