"""Trend and stress of the market at each closed 15m bar, judged on the reference coin of each venue."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import days_of, own_blocks_of_days, table_asset
from tracker_pipeline.domain import regimes as rules
from tracker_pipeline.domain import schemas
from tracker_pipeline.partitions import DAILY
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.io_managers import PartitionFrames

_BLOCK: Final = timedelta(days=92)


@table_asset(
    schemas.REGIMES,
    kinds={"polars"},
    partitions=DAILY,
    deps=[keys.OHLC_15M, keys.OHLC_1D],
    docs="labels.md",
    description="Whether the market trends up or down (200 daily closes of BTC) and how stressed it is (its last"
    " 48 hours), as known when each 15m bar became available. UNKNOWN where history is short.",
)
def regimes(context: dg.AssetExecutionContext) -> PartitionFrames:
    """Judge each day of the run."""
    return PartitionFrames(_days(context))


def _days(context: dg.AssetExecutionContext) -> Iterator[tuple[str, pl.DataFrame]]:
    with classified():
        for start, end, day_keys in own_blocks_of_days(context, schemas.REGIMES, _BLOCK):
            daily = reference_bars("1d", start - rules.DAILY_LOOKBACK, end)
            recent = reference_bars("15m", start - rules.LOOKBACK, end)
            if recent.is_empty():
                context.log.warning(
                    f"no 15m bars of {get_config().market.reference} up to {end:%Y-%m-%d}: the regime of these days"
                    " is not known, and nothing is bought on them"
                )
            known = pl.concat(
                [
                    schemas.REGIMES.polars_schema.to_frame(),
                    *(
                        rules.regimes(daily.filter(pl.col("venue") == bars.item(0, "venue")), bars)
                        for bars in recent.partition_by("venue")
                    ),
                ]
            )
            for key, day in days_of(known, "ts", day_keys):
                context.add_asset_metadata(_last_verdict(day), partition_key=key)
                yield key, day


def _last_verdict(day: pl.DataFrame) -> dict[str, str]:
    """Trend and stress at the last bar of a day, on the configured venue where that has any."""
    own = day.filter(pl.col("venue") == get_config().market.venue)
    last = (own if own.height else day).sort("ts").tail(1)
    return {f"{name} at the last bar": str(last.item(0, name)) for name in ("trend", "stress") if last.height}


def reference_bars(timeframe: str, start: datetime, end: datetime) -> pl.DataFrame:
    """Bars of the coin that regimes are judged on, one series of every venue that has it."""
    return of_reference(scan(schemas.BARS[timeframe].name, start, end, predicate=_is_reference()).collect())


def of_reference(bars: pl.DataFrame) -> pl.DataFrame:
    """The bars of the coin that regimes are judged on, one series of every venue that has it.

    Where a venue has several, as a spot and a perpetual market, it is that of the configured market, or else the
    first by name.
    """
    market = get_config().market
    own = bars.filter(_is_reference())
    chosen = (
        own.select("venue", "symbol")
        .unique()
        .sort(pl.col("symbol") != market.symbol(market.reference), "symbol")
        .unique("venue", keep="first", maintain_order=True)
    )
    return own.join(chosen, on=["venue", "symbol"], how="semi")


def _is_reference() -> pl.Expr:
    return pl.col("symbol").str.starts_with(f"{get_config().market.reference}/")
