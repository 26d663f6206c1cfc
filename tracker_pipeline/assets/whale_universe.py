"""Which addresses are watched, by version of the list."""

import dagster as dg
import polars as pl

from tracker_pipeline.assets.declaration import table_asset
from tracker_pipeline.assets.networks import named
from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.addresses import ListedAddress, merge, universe
from tracker_pipeline.domain.discovery import accepted
from tracker_pipeline.resources.clients import ChainResource
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage import scan


@table_asset(
    schemas.WHALE_UNIVERSE,
    kinds={"polars"},
    description="Watched addresses from the configured lists, and excluded ones (exchanges, bridges, contracts) with"
    " the reason. Each change of the lists is a new version; earlier versions stay. Candidates of"
    " onchain/whale_candidates enter by a list, or by themselves where chain.discovery.accept is automatic.",
)
def whale_universe(context: dg.AssetExecutionContext, chain: ChainResource) -> pl.DataFrame:
    """Read the address lists, drop what is known not to be a whale, and name the version by content."""
    frames = []
    with classified():
        for network in chain.networks:
            entries = [*chain.listed(network), *_accepted(network)]
            rows = universe(network, entries, chain.excluded(network))
            context.add_output_metadata(named(_shown(rows, entries), network, chain.networks))
            frames.append(rows)
    return pl.concat(frames)


def _accepted(network: str) -> list[ListedAddress]:
    if get_config().chain.discovery.accept != "automatic":
        return []
    return accepted(scan(schemas.WHALE_CANDIDATES.name).collect(), network)


def _shown(rows: pl.DataFrame, entries: list[ListedAddress]) -> dict[str, dg.MetadataValue]:
    merged = merge(entries)
    excluded = rows.filter("excluded")
    reasons = excluded.group_by("category", "reason").len("addresses").sort("category", "reason")
    table = "\n".join(f"| {c} | {r} | {n} |" for c, r, n in reasons.iter_rows())
    return {
        "version": dg.MetadataValue.text(rows.item(0, "version") if rows.height else "empty"),
        "watched": dg.MetadataValue.int(rows.height - excluded.height),
        "excluded": dg.MetadataValue.int(excluded.height),
        "repeated lines": dg.MetadataValue.int(merged.duplicates),
        "names that lists differ in": dg.MetadataValue.json(list(merged.conflicts[:20])),
        "exclusions": dg.MetadataValue.md(f"| category | reason | addresses |\n|---|---|---:|\n{table}"),
    }
