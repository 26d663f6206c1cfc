"""What the universe asks for, joined with what the venue lists."""

from typing import Final

import dagster as dg
import polars as pl
from pydantic import Field

from tracker_pipeline.assets.declaration import table_asset
from tracker_pipeline.domain import schemas
from tracker_pipeline.resources.clients import ExchangeResource
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.settings import PipelineConfig, get_config

_COLUMNS: Final = (
    "venue",
    "symbol",
    "base",
    "quote",
    "native_symbol",
    "market_type",
    "listed_from",
    "listed_to",
)


class InstrumentsConfig(dg.Config):
    """How much of the universe is tracked."""

    symbols: int | None = Field(
        default=None,
        gt=0,
        description="Track this many coins, taken from the groups of the universe in turn; all if not given.",
    )


@table_asset(
    schemas.INSTRUMENTS,
    kinds={"polars"},
    pool="exchange",
    description="The coins of the universe that the exchange lists, with tier and listing dates."
    " Every other market asset takes its symbols from here.",
)
def instruments(
    context: dg.AssetExecutionContext, config: InstrumentsConfig, exchange: ExchangeResource
) -> pl.DataFrame:
    """Ask the exchange what it lists and keep what the universe names."""
    with classified():
        found = listed_instruments(exchange, config.symbols)
    wanted = wanted_instruments(get_config(), config.symbols)
    absent = sorted(set(wanted.get_column("symbol")) - set(found.get_column("symbol")))
    context.add_output_metadata(
        {"wanted": wanted.height, "listed": found.height, "not listed": ", ".join(absent)}
    )
    return found


def listed_instruments(exchange: ExchangeResource, count: int | None) -> pl.DataFrame:
    """The coins to track that the exchange lists now, in the columns of the table.

    Args:
        exchange: which is asked.
        count: how many coins of the universe are wanted; None wants all.
    """
    wanted = wanted_instruments(get_config(), count)
    return exchange.client().instruments().select(_COLUMNS).join(wanted, on="symbol", how="inner")


def wanted_instruments(config: PipelineConfig, count: int | None) -> pl.DataFrame:
    """Symbol and tier of the coins to track."""
    symbols = config.universe.spread(count)
    return pl.DataFrame(
        {"symbol": [config.market.symbol(s.base) for s in symbols], "tier": [s.tier for s in symbols]}
    )
