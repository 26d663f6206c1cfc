"""Point-in-time features of every instrument at each closed 15m bar."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import blocks_of_days, days_of, table_asset
from tracker_pipeline.assets.regimes import reference_bars
from tracker_pipeline.domain import features, schemas
from tracker_pipeline.partitions import DAILY
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.io_managers import PartitionFrames

# The look-back is read again for each block, so a block is several times as long; 31 days of 90 symbols with all
# features are 70 MB.
_BLOCK: Final = timedelta(days=31)


@table_asset(
    schemas.ML_FEATURES_15M,
    kinds={"polars"},
    partitions=DAILY,
    deps=[keys.OHLC_15M, keys.OHLC_1D],
    description="What a model may know at each closed 15m bar: returns, oscillators, bands, volatility, volume and"
    " context of BTC. Windows are durations, lags go by time, and a value is NULL with a reason where bars are"
    " missing. Computing a day anew gives the same bytes.",
)
def ml_features_15m(context: dg.AssetExecutionContext) -> PartitionFrames:
    """Compute the features of each day of the run from its bars and the look-back before them."""
    return PartitionFrames(_days(context))


def _days(context: dg.AssetExecutionContext) -> Iterator[tuple[str, pl.DataFrame]]:
    with classified():
        for start, end, day_keys in blocks_of_days(context, _BLOCK):
            known = features_between(start, end)
            yield from days_of(known, "ts", day_keys)


def features_between(start: datetime, end: datetime, *, as_of: datetime | None = None) -> pl.DataFrame:
    """Features of the bars of [start, end), each venue with its own reference coin.

    Args:
        start: aware.
        end: aware, exclusive.
        as_of: moment of knowledge; bars available later are not seen. None sees all stored bars before `end`.
    """
    day = start.replace(hour=0, minute=0, second=0, microsecond=0)  # look-backs count from the UTC day
    bars = scan(schemas.BARS["15m"].name, day - features.LOOKBACK, end).collect()
    reference = reference_bars("1d", day - features.REFERENCE_LOOKBACK, end)
    by_venue = (
        features.features_15m(
            own,
            reference_bars=reference.filter(pl.col("venue") == own.item(0, "venue")),
            as_of=as_of,
            since=start,
        )
        for own in bars.partition_by("venue")
    )
    return pl.concat([schemas.ML_FEATURES_15M.polars_schema.to_frame(), *by_venue])
