"""Gaps healed: exactly the missing bars are asked for again, and what came of it is recorded.

A gap of a timeframe that is rolled up is not asked for: its finer bars are, and it is rolled up again.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import dagster as dg
import polars as pl
from pydantic import Field

from tracker_pipeline import keys
from tracker_pipeline.assets.bar_fetches import Fetch, Window, failure_of, fetch, keep_refused
from tracker_pipeline.assets.bar_review import review, review_all
from tracker_pipeline.assets.bar_rollups import rolled_up
from tracker_pipeline.assets.bar_series import delisted, is_tracked, listing_unknown, own_instruments
from tracker_pipeline.assets.bars import with_provenance
from tracker_pipeline.assets.declaration import newest_of, table_asset
from tracker_pipeline.domain.schemas import BAR_COVERAGE, BAR_GAPS, BARS
from tracker_pipeline.domain.staleness import merged
from tracker_pipeline.domain.timeframes import TIMEFRAMES
from tracker_pipeline.resources.clients import ExchangeResource
from tracker_pipeline.resources.errors import PipelineError
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.gaps import absent_bars, due_gaps, record_attempt
from tracker_pipeline.storage.writing import Written, write_window

_DAY: Final = timedelta(days=1)
# A gap of months is asked for in parts: a run that breaks off has stored the parts before.
_LONGEST: Final = 30 * 96


class HealConfig(dg.Config):
    """How much is asked for in one run."""

    gaps: int = Field(
        default=500, gt=0, description="At most so many gaps, those that are due longest first."
    )


@table_asset(
    BAR_GAPS,
    kinds={"polars"},
    deps=[newest_of(keys.BAR_COVERAGE)],
    pool="exchange",
    command="tracker gaps",
    description="Runs of absent bars: missing, empty, an outage or before the listing. Materializing asks the"
    " exchange for exactly the missing ones that are due, stores what comes and records the outcome.",
)
def bar_gaps(
    context: dg.AssetExecutionContext, config: HealConfig, exchange: ExchangeResource
) -> dg.MaterializeResult[None]:
    """Ask for what is due, and fail in the end if a symbol could not be asked."""
    with classified():
        now = datetime.now(UTC)
        with connect() as connection:
            due = due_gaps(connection, exchange.venue, now, most=config.gaps)
        written, failed = Written(), dict[str, PipelineError]()
        touched: dict[str, tuple[set[date], list[pl.DataFrame]]] = {}
        listed = own_instruments()
        unknown, gone = listing_unknown(listed), delisted(listed)
        for timeframe, window, gaps in _requests(due):
            wanted = {window: [gap["symbol"] for gap in gaps]}
            done = fetch(exchange, wanted, timeframe, listing_unknown=unknown, delisted=gone)
            keep_refused(done, timeframe, exchange.venue, context.run.run_id)
            written += _store(done, timeframe, window, context.run.run_id)
            _record(gaps, done, now)
            failed |= done.failed
            days, evidence = touched.setdefault(timeframe, (set(), []))
            days.update(_days_of(window))
            evidence.append(done.evidence)
        for timeframe, (days, evidence) in touched.items():
            _review(timeframe, days, pl.concat(evidence), context.run.run_id)
        _follow({day for days, _ in touched.values() for day in days}, context.run.run_id)
        _describe(context, due, written, failed)
    if failed:
        error = failure_of(failed, asked=due.get_column("symbol").n_unique(), timeframe="missing")
        # When a gap is asked for again stands in its row: a retry of the step would find nothing due and turn green.
        raise dg.Failure(description=str(error), allow_retries=False)
    return dg.MaterializeResult()


def _requests(due: pl.DataFrame) -> Iterator[tuple[str, Window, list[dict[str, Any]]]]:
    """Gaps of one timeframe and interval go into one request for all their symbols, the finest bars first."""
    order = list(TIMEFRAMES)
    for timeframe in sorted(due.get_column("timeframe").unique(), key=order.index):
        longest = _LONGEST * TIMEFRAMES[timeframe]
        capped = due.filter(pl.col("timeframe") == timeframe).with_columns(
            until=pl.min_horizontal("gap_end", pl.col("gap_start") + longest)
        )
        for (start, end), gaps in capped.group_by("gap_start", "until", maintain_order=True):
            yield timeframe, (start, end), gaps.to_dicts()


def _store(done: Fetch, timeframe: str, window: Window, run_id: str) -> Written:
    if done.frame.is_empty():
        return Written()
    with connect() as connection:
        frame = with_provenance(done.frame, timeframe, run_id)
        return write_window(connection, BARS[timeframe], frame, window, run_id=run_id)


def _record(gaps: list[dict[str, Any]], done: Fetch, now: datetime) -> None:
    """Count the attempt. A bar that came but cannot be true, and one that the venue does not serve, are told so."""
    told = done.evidence.filter(pl.col("not_served").fill_null(value=False))
    not_served = {row["symbol"]: row["error"] for row in told.iter_rows(named=True)}
    refused = dict(done.refused.select("symbol", "reason").iter_rows()) if done.refused.height else {}
    with connect() as connection:
        for gap in gaps:
            symbol = gap["symbol"]
            error = str(done.failed[symbol]) if symbol in done.failed else None
            error = error or not_served.get(symbol) or refused.get(symbol)
            record_attempt(connection, gap, now=now, error=error, again=symbol not in not_served)


def _review(timeframe: str, days: Iterable[date], evidence: pl.DataFrame, run_id: str) -> None:
    for first, last in merged([(day, day) for day in days]):
        review(timeframe, _start(first), _start(last) + _DAY, run_id=run_id, evidence=evidence)


def _follow(days: Iterable[date], run_id: str) -> None:
    """Roll up again what is made of the days' bars, and count again."""
    for first, last in merged([(day, day) for day in days]):
        start, end = _start(first), _start(last) + _DAY
        for timeframe in filter(is_tracked, TIMEFRAMES):
            rolled, _ = rolled_up(timeframe, start, end)
            if rolled.height:
                with connect() as connection:
                    frame = with_provenance(rolled, timeframe, run_id)
                    write_window(connection, BARS[timeframe], frame, (start, end), run_id=run_id)
        counted = review_all(start, end, run_id=run_id)
        with connect() as connection:
            write_window(connection, BAR_COVERAGE, counted, (start, end), run_id=run_id)


def _describe(
    context: dg.AssetExecutionContext, due: pl.DataFrame, written: Written, failed: dict[str, PipelineError]
) -> None:
    with connect() as connection:
        still_absent = absent_bars(connection)
    context.add_output_metadata(
        {
            "gaps asked for": due.height,
            "bars that came": written.inserted,
            "symbols that failed": ", ".join(sorted(failed)) or "none",
            "bars still absent, by state": still_absent,
        }
    )


def _days_of(window: Window) -> list[date]:
    start, end = window[0].replace(hour=0, minute=0, second=0, microsecond=0), window[1]
    return [(start + n * _DAY).date() for n in range(-(-(end - start) // _DAY))]


def _start(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
