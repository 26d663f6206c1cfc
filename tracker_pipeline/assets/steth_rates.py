"""What one stETH was worth in ether at the pinned block of each hour."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import hour_of, table_asset
from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.price_feed import Rate
from tracker_pipeline.partitions import HOURLY
from tracker_pipeline.resources.clients import ChainResource
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.io_managers import PartitionFrames

_SNAPSHOTS: Final = schemas.WHALE_BALANCE_SNAPSHOTS.name


@table_asset(
    schemas.STETH_RATES,
    kinds={"ethereum"},
    partitions=HOURLY,
    deps=[keys.WHALE_BALANCE_SNAPSHOTS],
    pool="chain",
    description="Ether for one stETH, read from the configured price feed at the block of the hour's balances. A"
    " price that is too old, none, or of no feed is NULL with a status, never 1.",
)
def steth_rates(context: dg.AssetExecutionContext, chain: ChainResource) -> PartitionFrames:
    """Ask the feed at the pinned block of each hour of the run."""
    return PartitionFrames(_hours(context, chain))


def _hours(context: dg.AssetExecutionContext, chain: ChainResource) -> Iterator[tuple[str, pl.DataFrame]]:
    with classified():
        for key in context.partition_keys:
            hour = hour_of(key)
            pinned = _pinned_block(chain.network, hour)
            if pinned.is_empty():
                context.log.warning("%s has no balances, so there is no block to ask the feed at", key)
                yield key, pl.DataFrame(schema=schemas.STETH_RATES.polars_schema)
                continue
            rate = chain.steth_rate(pinned.item(0, "block_number"), pinned.item(0, "block_hash"))
            context.add_asset_metadata({"rate": str(rate.rate), "status": rate.status}, partition_key=key)
            yield key, _row(pinned, rate, context.run.run_id)


def _pinned_block(network: str, hour: datetime) -> pl.DataFrame:
    """Network, hour and block of the hour's balances in one row; none where there are none."""
    columns = ["network", "snapshot_timestamp", "block_number", "block_hash", "block_timestamp"]
    rows = scan(
        _SNAPSHOTS, hour, hour + timedelta(hours=1), predicate=pl.col("network") == network, columns=columns
    )
    return rows.head(1).collect()


def _row(pinned: pl.DataFrame, rate: Rate, run_id: str) -> pl.DataFrame:
    return pinned.with_columns(
        rate=pl.lit(None if rate.rate is None else f"{rate.rate:f}", pl.String),
        status=pl.lit(rate.status),
        answered_at=pl.lit(rate.answered_at, pl.Datetime("us", "UTC")),
        run_id=pl.lit(run_id),
    )
