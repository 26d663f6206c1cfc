"""Moments at which a strategy would have bought, each event once."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import days_of, own_blocks_of_days, table_asset
from tracker_pipeline.assets.strategies import strategy_configs
from tracker_pipeline.domain import schemas, setups
from tracker_pipeline.domain.strategy_config import StrategyConfig
from tracker_pipeline.partitions import DAILY
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.io_managers import PartitionFrames

_BLOCK: Final = timedelta(days=31)


@table_asset(
    schemas.SETUPS,
    kinds={"polars"},
    partitions=DAILY,
    deps=[keys.OHLC_15M, keys.OHLC_1H, keys.ML_FEATURES_15M, keys.REGIMES],
    description="Buy signals of the configured strategies on closed bars, with the evidence and the regime of the"
    " moment. A drop that lasts is one event. Nothing here knows what came after.",
)
def strategy_setups(context: dg.AssetExecutionContext) -> PartitionFrames:
    """Detect the setups of each day of the run."""
    return PartitionFrames(_days(context))


def _days(context: dg.AssetExecutionContext) -> Iterator[tuple[str, pl.DataFrame]]:
    with classified():
        for start, end, day_keys in own_blocks_of_days(context, schemas.SETUPS, _BLOCK):
            features = scan(schemas.ML_FEATURES_15M.name, start, end).collect()
            detected = (
                _detect(strategy, start, end, features, config)
                for strategy, config in strategy_configs().items()
            )
            found = pl.concat([schemas.SETUPS.polars_schema.to_frame(), *detected])
            for key, day in days_of(found, "signal_ts", day_keys):
                counted = day.group_by("strategy").len().sort("strategy")
                context.add_asset_metadata(
                    {"setups by strategy": dict(counted.iter_rows())}, partition_key=key
                )
                yield key, day


def _detect(
    strategy: str, start: datetime, end: datetime, features: pl.DataFrame, config: StrategyConfig
) -> pl.DataFrame:
    since = start - setups.STRATEGIES[strategy].lookback
    bars = scan(schemas.BARS[config.timeframe].name, since, end).collect()
    regimes = scan(schemas.REGIMES.name, since, end).collect()
    return setups.detect(strategy, bars, features, regimes, config)
