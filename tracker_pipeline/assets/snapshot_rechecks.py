"""Whether the pinned blocks are still part of the chain; what a reorganisation replaced is read and scored again."""

from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.accumulation_scores import score_hour
from tracker_pipeline.assets.declaration import newest_of, table_asset
from tracker_pipeline.assets.networks import HOUR, named
from tracker_pipeline.assets.steth_rates import read_rate
from tracker_pipeline.assets.whale_balance_snapshots import read_hour, watched_addresses
from tracker_pipeline.assets.whale_candidates import find_candidates
from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.schemas import Table
from tracker_pipeline.keys import key_of
from tracker_pipeline.resources.clients import ChainResource
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.resources.rpc_pool import Block
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.finality import PinnedHour, hours_resting_on, unfinal_hours
from tracker_pipeline.storage.writing import write_window

# Ethereum calls a block final after a quarter of an hour; the longest that it failed to do so was an hour.
_REACH: Final = timedelta(hours=48)


@table_asset(
    schemas.SNAPSHOT_RECHECKS,
    kinds={"ethereum"},
    deps=[newest_of(keys.WHALE_BALANCE_SNAPSHOTS), newest_of(keys.ACCUMULATION_SCORES)],
    pool="chain",
    description="Compares the stored block hash of every hour that is not final yet with the chain. An hour whose"
    " block was replaced is read again: balances, stETH rate, candidates, its scores and those that compare with it.",
)
def snapshot_rechecks(context: dg.AssetExecutionContext, chain: ChainResource) -> pl.DataFrame:
    """Look at the unfinal hours of each network."""
    with classified():
        frames = [_Recheck(context, chain, network).rows() for network in chain.networks]
    return pl.concat(frames)


class _Recheck:
    """The re-check of one network in one run."""

    def __init__(self, context: dg.AssetExecutionContext, chain: ChainResource, network: str) -> None:
        self._context = context
        self._chain = chain
        self._network = network
        self._run_id = context.run.run_id
        self._client = chain.client(network)

    def rows(self) -> pl.DataFrame:
        """Compare every hour that is not final, repair those that differ, and return what was found."""
        with connect() as connection:
            hours = unfinal_hours(connection, self._network, _REACH)
        final_to = self._client.finalized_number() if hours else 0
        frames = [self._look(pinned, final_to) for pinned in hours]
        found = pl.concat([schemas.SNAPSHOT_RECHECKS.polars_schema.to_frame(), *frames])
        repaired = found.filter(pl.col("replaced_hash").is_not_null()).get_column("snapshot_timestamp")
        metadata = {
            "hours looked at": found.height,
            "final now": found.filter(state="final").height,
            "not final yet": found.filter(state="pending").height,
            "read again once or more": ", ".join(f"{hour:%Y-%m-%d %H:%M}" for hour in repaired),
        }
        self._context.add_output_metadata(named(metadata, self._network, self._chain.networks))
        return found

    def _look(self, pinned: PinnedHour, final_to: int) -> pl.DataFrame:
        block = self._client.block_at(pinned.hour)
        state = "final" if block.number <= final_to else "pending"
        # What a repair that broke off has replaced is only known to be whole once all of it was made again.
        if block.hash == pinned.block_hash and pinned.state != "reorganised":
            return self._row(pinned, block, state, pinned.replaced_hash, pinned.repairs)
        replaced = pinned.replaced_hash if block.hash == pinned.block_hash else pinned.block_hash
        self._store(
            schemas.SNAPSHOT_RECHECKS,
            pinned.hour,
            self._row(pinned, block, "reorganised", replaced, pinned.repairs),
        )
        self._context.log.warning(
            "%s %s: block %s was replaced by %s, the hour is read again",
            self._network, pinned.hour, pinned.block_hash, block.hash,
        )  # fmt: skip
        self._repair(pinned.hour)
        return self._row(pinned, block, state, replaced, pinned.repairs + 1)

    def _repair(self, hour: datetime) -> None:
        """Make the hour again from balances to scores, one step after the other; all again if one fails."""
        chain, network, run_id = self._chain, self._network, self._run_id
        addresses = cache(watched_addresses)
        self._replace(
            schemas.WHALE_BALANCE_SNAPSHOTS, hour, read_hour(chain, addresses, run_id, network, hour)
        )
        self._replace(schemas.STETH_RATES, hour, read_rate(chain, run_id, network, hour))
        self._replace(schemas.WHALE_CANDIDATES, hour, find_candidates(chain, run_id, network, hour))
        with connect() as connection:
            resting = hours_resting_on(connection, network, hour)
        for scored in sorted({hour, *resting}):
            self._replace(schemas.ACCUMULATION_SCORES, scored, score_hour(run_id, network, scored))

    def _replace(self, table: Table, hour: datetime, made: tuple[pl.DataFrame, dict[str, Any]]) -> None:
        """Store the rows of this network and hour beside those of other networks, and say so to Dagster."""
        rows, metadata = made
        others = scan(table.name, hour, hour + HOUR, predicate=pl.col("network") != self._network).collect()
        self._store(table, hour, pl.concat([table.conform(rows), others]))
        self._context.log_event(
            dg.AssetMaterialization(
                asset_key=key_of(table),
                partition=f"{hour:%Y-%m-%d-%H:%M}",
                metadata={**metadata, "read again": "its block was replaced"},
            )
        )

    def _store(self, table: Table, hour: datetime, rows: pl.DataFrame) -> None:
        with connect() as connection:
            write_window(connection, table, rows, (hour, hour + HOUR), run_id=self._run_id)

    def _row(
        self, pinned: PinnedHour, block: Block, state: str, replaced: str | None, repairs: int
    ) -> pl.DataFrame:
        row = {
            "network": self._network,
            "snapshot_timestamp": pinned.hour,
            "block_number": block.number,
            "block_hash": block.hash,
            "state": state,
            "replaced_hash": replaced,
            "repairs": repairs,
            "run_id": self._run_id,
        }
        return pl.DataFrame([row], schema=schemas.SNAPSHOT_RECHECKS.polars_schema)
