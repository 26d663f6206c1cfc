"""Closed OHLC bars of six timeframes: asked of the exchange, or rolled up from finer ones.

`native_timeframes` of the configuration are asked for; the others are made of the finest bars stored, and so is every
timeframe over minutes and over bars from files (`tracker import-bars`). See docs/completeness.md.

What one symbol's failure leaves undone is recorded as a gap, and the run fails in the end, naming it: what the others
gave is stored by then.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl
from pydantic import Field

from tracker_pipeline import keys
from tracker_pipeline.assets.bar_fetches import (
    Fetch,
    Window,
    failure_of,
    fetch,
    keep_refused,
    refuse_nonsense,
)
from tracker_pipeline.assets.bar_review import review
from tracker_pipeline.assets.bar_rollups import finest_stored, rolled_up
from tracker_pipeline.assets.bar_series import (
    delisted,
    finer_timeframes,
    is_native,
    listing_unknown,
    own_instruments,
)
from tracker_pipeline.assets.declaration import blocks_of_days, days_of, run_window, table_asset
from tracker_pipeline.assets.instruments import listed_instruments
from tracker_pipeline.domain.bars import KEY
from tracker_pipeline.domain.schemas import BARS, INSTRUMENTS
from tracker_pipeline.domain.timeframes import TIMEFRAMES
from tracker_pipeline.partitions import DAILY
from tracker_pipeline.resources.clients import ExchangeResource
from tracker_pipeline.resources.errors import PipelineError
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.io_managers import PartitionFrames

# 30 days of 15m bars of 90 symbols are 259,200 rows, about 40 MB; a block is also what a broken run repeats. Blocks
# of other timeframes hold as many bars, within bounds.
_BLOCK_BARS: Final = 30 * 96
_DAY: Final = timedelta(days=1)
_LONGEST_BLOCK: Final = timedelta(days=365)

_DESCRIPTIONS: Final = {
    "1m": "Closed minutes, from files or where the configuration asks for them; coarser bars are made of them.",
    "5m": "Closed 5-minute bars, rolled up from minutes where these lack nothing.",
    "15m": "Closed 15-minute bars of every instrument: what features, regimes and labels are computed from.",
    "1h": "Closed hourly bars of every instrument.",
    "4h": "Closed 4-hour bars of every instrument, rolled up from finer ones where these lack nothing.",
    "1d": "Closed daily bars of every instrument, UTC days; a day's bar is known 10 minutes after midnight.",
}


class BarsConfig(dg.Config):
    """Which instruments are fetched."""

    symbols: list[str] = Field(
        default=[], description="Unified symbols; all recorded instruments if not given."
    )


def _bars_asset(timeframe: str) -> dg.AssetsDefinition:
    @table_asset(
        BARS[timeframe],
        kinds={"polars"},
        partitions=DAILY,
        deps=[keys.INSTRUMENTS, *(keys.BARS[finer] for finer in finer_timeframes(timeframe))],
        pool="exchange",
        description=_DESCRIPTIONS[timeframe],
    )
    def bars(
        context: dg.AssetExecutionContext, config: BarsConfig, exchange: ExchangeResource
    ) -> PartitionFrames:
        """Fetch or roll up the bars of the run's days, block by block."""
        return PartitionFrames(_days(context, exchange, timeframe, config.symbols))

    return bars


def _days(
    context: dg.AssetExecutionContext, exchange: ExchangeResource, timeframe: str, symbols: list[str]
) -> Iterator[tuple[str, pl.DataFrame]]:
    failed: dict[str, PipelineError] = {}
    with classified():
        run_id = context.run.run_id
        listed = _listed(exchange, symbols)
        for start, end, day_keys in blocks_of_days(context, _block(context, timeframe)):
            rolled, hulls = rolled_up(timeframe, start, end)
            done = Fetch.nothing(timeframe)
            if is_native(timeframe):
                windows = _windows(listed, hulls, start, end)
                unknown, gone = listing_unknown(listed), delisted(listed)
                done = fetch(exchange, windows, timeframe, listing_unknown=unknown, delisted=gone)
            keep_refused(done, timeframe, exchange.venue, run_id)
            if problem := refuse_nonsense(done):
                context.log.warning(problem)
            # Where an edge of finer bars cuts a bar, both may have it.
            asked = done.frame.join(rolled, on=KEY, how="anti")
            frame = with_provenance(pl.concat([asked, rolled]), timeframe, run_id)
            yield from days_of(frame, "ts", day_keys)
            # By now the block is stored.
            if done.evidence.height:
                review(timeframe, start, end, run_id=run_id, symbols=symbols, evidence=done.evidence)
            failed |= done.failed
        if failed:
            raise failure_of(failed, asked=listed.height, timeframe=timeframe)


def _block(context: dg.AssetExecutionContext, timeframe: str) -> timedelta:
    finest = finest_stored(timeframe, *run_window(context))
    return min(max(_BLOCK_BARS * TIMEFRAMES[finest], _DAY), _LONGEST_BLOCK)


def _listed(exchange: ExchangeResource, symbols: list[str]) -> pl.DataFrame:
    """What is tracked, with its listing: before instruments were ever materialized, what the exchange lists of it."""
    tracked = own_instruments()
    if tracked.is_empty() and scan(INSTRUMENTS.name, columns=["symbol"]).collect().is_empty():
        tracked = listed_instruments(exchange, None).select(tracked.columns).cast(tracked.schema)
    if not symbols:
        return tracked
    wanted = pl.DataFrame({"venue": exchange.venue, "symbol": symbols})
    return wanted.join(tracked, on=["venue", "symbol"], how="left")


def _windows(
    listed: pl.DataFrame, hulls: pl.DataFrame, start: datetime, end: datetime
) -> dict[Window, list[str]]:
    """Where each symbol is asked for: its listing, without what stored finer bars stand for."""
    standing = {(venue, symbol): (first, last) for venue, symbol, first, last in hulls.iter_rows()}
    windows: dict[Window, list[str]] = {}
    for venue, symbol, listed_from, listed_to in listed.sort("symbol").iter_rows():
        first, last = max(start, listed_from or start), min(end, listed_to or end)
        hull = standing.get((venue, symbol), (first, first))
        for window in ((first, min(hull[0], last)), (max(hull[1], first), last)):
            if window[0] < window[1]:
                windows.setdefault(window, []).append(symbol)
    return windows


def with_provenance(frame: pl.DataFrame, timeframe: str, run_id: str) -> pl.DataFrame:
    """The bars as rows of their table."""
    return BARS[timeframe].conform(frame.with_columns(revision=pl.lit(1, pl.Int64), run_id=pl.lit(run_id)))


ohlc_1m = _bars_asset("1m")
ohlc_5m = _bars_asset("5m")
ohlc_15m = _bars_asset("15m")
ohlc_1h = _bars_asset("1h")
ohlc_4h = _bars_asset("4h")
ohlc_1d = _bars_asset("1d")
ALL: Final = [ohlc_1m, ohlc_5m, ohlc_15m, ohlc_1h, ohlc_4h, ohlc_1d]
