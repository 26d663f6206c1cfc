"""Which addresses are watched, by version of the list."""

import dagster as dg
import polars as pl

from tracker_pipeline.assets.declaration import table_asset
from tracker_pipeline.domain import schemas
from tracker_pipeline.resources.clients import ChainResource
from tracker_pipeline.resources.failures import classified


@table_asset(
    schemas.WHALE_UNIVERSE,
    kinds={"polars"},
    description="Watched addresses from the configured lists, and excluded ones (exchanges, bridges, contracts) with"
    " the reason. Each change of the lists is a new version; earlier versions stay.",
)
def whale_universe(context: dg.AssetExecutionContext, chain: ChainResource) -> pl.DataFrame:
    """Read the address lists, drop what is known not to be a whale, and name the version by content."""
    with classified():
        universe = chain.universe()
    context.add_output_metadata(
        {
            "version": universe.item(0, "version") if universe.height else "empty",
            "watched": int((~universe.get_column("excluded")).sum()),
            "excluded": int(universe.get_column("excluded").sum()),
        }
    )
    return universe
