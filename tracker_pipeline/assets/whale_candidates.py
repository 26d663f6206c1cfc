"""Who moved much since the hour before: candidates for the universe, both sides of each large transfer."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import table_asset
from tracker_pipeline.assets.networks import HOUR, hourly_frames
from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.addresses import exclusions, watched
from tracker_pipeline.domain.discovery import candidates, smallest_units
from tracker_pipeline.partitions import HOURLY
from tracker_pipeline.resources.clients import ChainResource
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.settings import get_config, get_networks
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.io_managers import PartitionFrames


@table_asset(
    schemas.WHALE_CANDIDATES,
    kinds={"ethereum", "polars"},
    partitions=HOURLY,
    deps=[keys.WHALE_UNIVERSE],
    pool="chain",
    description="Both sides of every transfer of ether or a configured token above its threshold, in the blocks"
    " since the hour before, which are proven to be one unbroken chain. Exchanges, bridges and the like are kept with"
    " the reason why they are excluded.",
)
def whale_candidates(context: dg.AssetExecutionContext, chain: ChainResource) -> PartitionFrames:
    """Scan the blocks of each hour of the run."""
    read = partial(find_candidates, chain, context.run.run_id)
    with classified():
        networks = chain.networks

    def hours() -> Any:
        with classified():
            yield from hourly_frames(context, schemas.WHALE_CANDIDATES, networks, read)

    return PartitionFrames(hours())


def find_candidates(
    chain: ChainResource, run_id: str, network: str, hour: datetime
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Propose both sides of the large transfers between the block of the hour before and that of the hour.

    Returns:
        Rows of `onchain.whale_candidates`, and what the UI shows of them.

    Raises:
        TransientError: the block is not settled, or a block was replaced meanwhile.
        PermanentError: no endpoint keeps the blocks.
    """
    client, config = chain.client(network), get_config().chain.discovery
    last = client.block_at(hour)
    before = client.block_at(hour - HOUR)
    least = _least(network, config.least)
    moved = client.transfers(before, last, least, blocks_per_request=config.blocks_per_request)
    addresses = sorted({address for one in moved for address in (one.giver, one.receiver)})
    kinds = client.kinds(addresses, last)
    excluded = exclusions(network, chain.excluded(network))
    rows = candidates(network, hour, moved, kinds, excluded).with_columns(run_id=pl.lit(run_id))
    known = set(watched(scan(schemas.WHALE_UNIVERSE.name).collect(), network))
    new = rows.filter(~pl.col("excluded"), ~pl.col("whale_address").is_in(sorted(known)))
    metadata = {
        "blocks": last.number - before.number,
        "large transfers": len(moved),
        "addresses": len(addresses),
        "not watched yet": new.get_column("whale_address").n_unique(),
        "largest of them": dg.MetadataValue.md(_largest(new)),
    }
    return rows, metadata


def _least(network: str, least: Mapping[str, float]) -> dict[str, int]:
    """Thresholds in smallest units, of what this network has."""
    tokens = get_networks()[network].tokens
    decimals = {"ETH": 18, **{asset: token.decimals for asset, token in tokens.items()}}
    return {
        asset: smallest_units(amount, decimals[asset]) for asset, amount in least.items() if asset in decimals
    }


def _largest(new: pl.DataFrame) -> str:
    """The ten that moved most of each asset, as a table."""
    digits = pl.col("largest").str.zfill(78)
    top = new.sort(digits, descending=True).group_by("asset", maintain_order=True).head(10).sort("asset")
    lines = [
        f"| {row['asset']} | `{row['whale_address']}` | {row['kind']} | {row['transfers']} | {row['largest']} |"
        for row in top.iter_rows(named=True)
    ]
    head = "| asset | address | kind | transfers | largest (smallest unit) |\n|---|---|---|---:|---:|\n"
    return head + "\n".join(lines)
