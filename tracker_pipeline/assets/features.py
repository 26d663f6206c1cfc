"""Point-in-time features of every instrument at each closed 15m bar."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import Final

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import days_of, own_blocks_of_days, table_asset
from tracker_pipeline.assets.regimes import of_reference, reference_bars
from tracker_pipeline.domain import features
from tracker_pipeline.domain.feature_surroundings import Surroundings
from tracker_pipeline.domain.schemas import BARS, ML_FEATURES_15M, REGIMES
from tracker_pipeline.domain.timeframes import GRACE, duration
from tracker_pipeline.partitions import DAILY
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.io_managers import PartitionFrames

# The look-back is read again for each block, so a block is several times as long; 31 days of 90 symbols with all
# features are 80 MB.
_BLOCK: Final = timedelta(days=31)
_LAST_BAR: Final = time(23, 45)
_FIVE_PAST: Final = 5  # minute within a quarter of the 5m bars that features look at
_OF_SERIES: Final = ["venue", "symbol", "ts", "close", "revision", "available_at"]
_COLUMNS: Final = [*_OF_SERIES, "high", "low", "volume"]
# Of the bars before the day before, nothing but their prices is looked at.
_RECENT: Final = timedelta(days=1)
_FINAL: Final = pl.col("ts") + duration("15m") + GRACE["15m"]


@table_asset(
    ML_FEATURES_15M,
    kinds={"polars", "numba"},
    partitions=DAILY,
    deps=[keys.BARS["5m"], keys.OHLC_15M, keys.OHLC_1D, keys.REGIMES],
    description="What a model may know at each closed 15m bar: returns, oscillators, bands, volatility, volume, BTC"
    " and the regime of the market. Windows are durations, lags go by time, and a value is NULL with a reason where"
    " bars are missing. Computing a day anew gives the same bytes.",
)
def ml_features_15m(context: dg.AssetExecutionContext) -> PartitionFrames:
    """Compute the features of each day of the run from its bars and the look-back before them."""
    return PartitionFrames(_days(context))


def _days(context: dg.AssetExecutionContext) -> Iterator[tuple[str, pl.DataFrame]]:
    with classified():
        for start, end, day_keys in own_blocks_of_days(context, ML_FEATURES_15M, _BLOCK):
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
    with ThreadPoolExecutor(2) as pool:  # Postgres answers each read on a connection of its own
        older = pool.submit(_burn_in, day, as_of)
        small = pool.submit(_small_reads, day, start, end)
        recent = scan(BARS["15m"].name, day - _RECENT, end, columns=_COLUMNS).collect()
        closes = _closes(day)
        daily, beside = small.result()
        bars = pl.concat([closes, older.result(), recent])
    beside = replace(beside, reference_15m=of_reference(bars))
    by_venue = (
        features.features_15m(
            own,
            reference_bars=daily.filter(pl.col("venue") == venue),
            surroundings=beside.of_venue(str(venue)),
            as_of=as_of,
            since=start,
        )
        for (venue,), own in bars.partition_by("venue", as_dict=True).items()
    )
    return pl.concat([ML_FEATURES_15M.polars_schema.to_frame(), *by_venue])


def _burn_in(day: datetime, as_of: datetime | None) -> pl.DataFrame:
    """The older bars of the burn-in of a day, which recursions alone look at: they have no volume.

    When they were known matters to `as_of` only; without it, it is not read.
    """
    unread = pl.lit(None, pl.Float64).alias("volume"), _FINAL.alias("available_at")
    columns = [name for name in _COLUMNS if name not in ("volume", "available_at")]
    known = None if as_of is None else pl.col("available_at") <= as_of
    bars = scan(BARS["15m"].name, day - features.BURN_IN, day - _RECENT, columns=columns, predicate=known)
    return bars.with_columns(unread).select(_COLUMNS).collect()


def _closes(day: datetime) -> pl.DataFrame:
    """The last 15m bar of each day before the burn-in."""
    first, last = day - features.LOOKBACK, day - features.BURN_IN
    return scan(BARS["15m"].name, first, last, columns=_COLUMNS, at=_LAST_BAR).collect()


def _small_reads(day: datetime, start: datetime, end: datetime) -> tuple[pl.DataFrame, Surroundings]:
    """BTC's daily bars, and what lies beside the bars but BTC's 15m bars."""
    daily = reference_bars("1d", day - features.REFERENCE_LOOKBACK, end)
    second = pl.col("ts").dt.minute() % 15 == _FIVE_PAST
    fine = scan(BARS["5m"].name, start, end, columns=_OF_SERIES, predicate=second)
    return daily, Surroundings(
        fine_bars=fine.collect(),
        regimes=scan(REGIMES.name, start, end).collect(),
        tiers=get_config().universe.tiers(),
    )
