"""What one stETH was worth in ether at the pinned block of each hour."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import table_asset
from tracker_pipeline.assets.networks import hourly_frames
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
    read = partial(read_rate, chain, context.run.run_id)
    with classified():
        networks = chain.networks

    def hours() -> Any:
        with classified():
            yield from hourly_frames(context, schemas.STETH_RATES, networks, read)

    return PartitionFrames(hours())


def read_rate(
    chain: ChainResource, run_id: str, network: str, hour: datetime
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Ask the feed of a network at the block of the stored balances of an hour.

    Returns:
        The row of `onchain.steth_rates`, none where the hour has no balances; and what the UI shows of it.

    Raises:
        TransientError: the chain has another block by now, or cannot be asked.
    """
    pinned = pinned_block(network, hour)
    if pinned.is_empty():
        return pl.DataFrame(schema=schemas.STETH_RATES.polars_schema), {"status": "the hour has no balances"}
    rate = chain.steth_rate(pinned.item(0, "block_number"), pinned.item(0, "block_hash"), network)
    return _row(pinned, rate, run_id), _shown(rate)


def _shown(rate: Rate) -> dict[str, Any]:
    known = {} if rate.rate is None else {"ether for one stETH": float(rate.rate)}
    return {**known, "status": rate.status}


def pinned_block(network: str, hour: datetime) -> pl.DataFrame:
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
