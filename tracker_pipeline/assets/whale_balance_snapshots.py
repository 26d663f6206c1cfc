"""The balances of every watched address, ether and configured tokens, at one pinned block for each hour."""

from datetime import datetime
from fractions import Fraction
from functools import cache, partial
from typing import Any

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import table_asset
from tracker_pipeline.assets.networks import hourly_frames
from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.addresses import watched
from tracker_pipeline.domain.holdings import WEI_PER_ETH
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
    read = partial(read_hour, chain, cache(watched_addresses), context.run.run_id)
    with classified():
        networks = chain.networks

    def hours() -> Any:
        with classified():
            yield from hourly_frames(context, schemas.WHALE_BALANCE_SNAPSHOTS, networks, read)

    return PartitionFrames(hours())


def read_hour(
    chain: ChainResource, addresses_of: Any, run_id: str, network: str, hour: datetime
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Read the watched balances of a network at the block of an hour.

    Args:
        chain: the networks.
        addresses_of: network to the addresses to read.
        run_id: of the writer.
        network: whose.
        hour: aware.

    Returns:
        Rows of `onchain.whale_balance_snapshots`, and what the UI shows of them.

    Raises:
        TransientError: the block is not settled, or more balances are unknown than allowed.
        PermanentError: no address is watched, or no endpoint keeps the state of the block.
    """
    client = chain.client(network)
    block = client.block_at(hour)
    balances = client.balances(addresses_of(network), client.assets, block)
    _refuse_too_many_unknown(balances, f"{network} {hour:%Y-%m-%d %H:%M}Z")
    rows = ranked(balances).with_columns(
        network=pl.lit(network),
        snapshot_timestamp=pl.lit(hour),
        block_number=pl.lit(block.number, pl.Int64),
        block_hash=pl.lit(block.hash),
        block_timestamp=pl.lit(block.timestamp),
        run_id=pl.lit(run_id),
    )
    ether = rows.filter(asset="ETH").get_column("balance").drop_nulls()
    metadata = {
        "ether of all addresses": float(Fraction(sum(map(int, ether)), WEI_PER_ETH)),
        "block": block.number,
        "block hash": block.hash,
        "seconds before the hour": int((hour - block.timestamp).total_seconds()),
        "addresses": rows.get_column("whale_address").n_unique(),
        "unknown balances": rows.get_column("balance").null_count(),
        "assets": ", ".join(client.assets),
    }
    return rows, metadata


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


def watched_addresses(network: str) -> list[str]:
    """The addresses to read of a network.

    Raises:
        PermanentError: there is none.
    """
    addresses = watched(scan("onchain.whale_universe").collect(), network)
    if not addresses:
        raise PermanentError(
            f"no address of {network} is watched: materialize onchain/whale_universe, and check address_lists"
        )
    return addresses


def _refuse_too_many_unknown(balances: pl.DataFrame, what: str) -> None:
    unknown = balances.get_column("balance").null_count()
    allowed = get_config().chain.max_unknown_frac
    if unknown > allowed * balances.height:
        reasons = balances.filter(pl.col("balance").is_null()).get_column("status").value_counts(sort=True)
        raise TransientError(
            f"{what}: {unknown} of {balances.height} balances are unknown, more than {allowed:.0%};"
            f" most often {reasons.item(0, 'status')}; nothing was stored for this hour"
        )
