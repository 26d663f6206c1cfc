"""The balances of every watched address, ether and configured tokens, at one pinned block for each hour."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import hour_of, table_asset
from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.addresses import watched
from tracker_pipeline.partitions import HOURLY
from tracker_pipeline.resources.clients import ChainResource
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.io_managers import PartitionFrames


@table_asset(
    schemas.WHALE_BALANCE_SNAPSHOTS,
    kinds={"ethereum", "polars"},
    partitions=HOURLY,
    deps=[keys.WHALE_UNIVERSE],
    pool="chain",
    description="Balance of ether and of each configured token of every watched address at the last block of or"
    " before the hour, all at one block whose number and hash stand in each row. Unknown balances are NULL with a"
    " status, never 0.",
)
def whale_balance_snapshots(context: dg.AssetExecutionContext, chain: ChainResource) -> PartitionFrames:
    """Read the hours of the run one after the other; each is stored before the next is read."""
    return PartitionFrames(_hours(context, chain))


def _hours(context: dg.AssetExecutionContext, chain: ChainResource) -> Iterator[tuple[str, pl.DataFrame]]:
    with classified():
        addresses = _watched_addresses(chain.network)
        client = chain.client()
        for key in context.partition_keys:
            hour = hour_of(key)
            block = client.block_at(hour)
            balances = client.balances(addresses, client.assets, block)
            _refuse_too_many_unknown(balances, key)
            context.add_asset_metadata(
                {
                    "block": block.number,
                    "seconds before the hour": int((hour - block.timestamp).total_seconds()),
                    "assets": ", ".join(client.assets),
                },
                partition_key=key,
            )
            yield (
                key,
                ranked(balances).with_columns(
                    network=pl.lit(chain.network),
                    snapshot_timestamp=pl.lit(hour),
                    block_number=pl.lit(block.number, pl.Int64),
                    block_hash=pl.lit(block.hash),
                    block_timestamp=pl.lit(block.timestamp),
                    run_id=pl.lit(context.run.run_id),
                ),
            )


def ranked(balances: pl.DataFrame) -> pl.DataFrame:
    """Add `rank`: 1 is the largest known balance of its asset, ties in the order of the address."""
    # Decimal text sorts as numbers once it is as long as the longest.
    digits = pl.col("balance").str.zfill(78)
    known = (
        balances.filter(pl.col("balance").is_not_null())
        .with_columns(digits=digits)
        .sort(["asset", "digits", "whale_address"], descending=[False, True, False])
        .with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over("asset"))
        .select("asset", "whale_address", "rank")
    )
    return balances.join(known, on=["asset", "whale_address"], how="left")


def _watched_addresses(network: str) -> list[str]:
    addresses = watched(scan("onchain.whale_universe").collect(), network)
    if not addresses:
        raise PermanentError(
            f"no address of {network} is watched: materialize onchain/whale_universe, and check address_lists"
        )
    return addresses


def _refuse_too_many_unknown(balances: pl.DataFrame, key: str) -> None:
    unknown = balances.get_column("balance").null_count()
    allowed = get_config().chain.max_unknown_frac
    if unknown > allowed * balances.height:
        reasons = balances.filter(pl.col("balance").is_null()).get_column("status").value_counts(sort=True)
        raise TransientError(
            f"{key}: {unknown} of {balances.height} balances are unknown, more than {allowed:.0%};"
            f" most often {reasons.item(0, 'status')}; nothing was stored for this hour"
        )
