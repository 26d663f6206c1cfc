"""What became of each DCA setup, net of costs, by the day of its signal.

Time here is the time of the data: what the newest stored bar of any symbol says, not the clock of the machine. A feed
that stops leaves labels pending instead of unresolved, and the same bars give the same labels whenever asked.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import blocks_of_days, day_of, table_asset
from tracker_pipeline.assets.strategies import strategy_configs
from tracker_pipeline.domain import labels, schemas
from tracker_pipeline.partitions import DAILY
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.io_managers import PartitionFrames

_STRATEGY: Final = "dca"
_BLOCK: Final = timedelta(days=31)
# A label may begin two bars after its signal and ends with the bar that holds the end of the horizon.
_ENTRY_WAIT: Final = timedelta(hours=1)


@table_asset(
    schemas.DCA_LABELS,
    kinds={"polars"},
    partitions=DAILY,
    deps=[keys.OHLC_15M, keys.STRATEGY_SETUPS],
    description="Outcome of each DCA setup: entered at the next open, grid filled in sequence, stop before target"
    " inside a bar, costs of the tier taken off. PENDING until the horizon has passed; a later run makes it final.",
)
def strategy_dca_labels(context: dg.AssetExecutionContext) -> PartitionFrames:
    """Label the setups of each day of the run with the bars that are known."""
    return PartitionFrames(_days(context))


def _days(context: dg.AssetExecutionContext) -> Iterator[tuple[str, pl.DataFrame]]:
    config = strategy_configs()[_STRATEGY]
    with classified():
        for start, end, day_keys in blocks_of_days(context, _BLOCK):
            setups = scan(
                schemas.SETUPS.name, start, end, predicate=pl.col("strategy") == _STRATEGY
            ).collect()
            horizon = timedelta(hours=config.horizon_hours) + _ENTRY_WAIT
            bars = scan(schemas.BARS["15m"].name, start, end + horizon).collect()
            as_of: datetime = bars.select(pl.col("available_at").max()).item() or start
            found = labels.label(setups, bars, as_of=as_of, config=config)
            for key in day_keys:
                day = day_of(key)
                yield (
                    key,
                    found.filter(pl.col("timestamp").is_between(day, day + timedelta(days=1), closed="left")),
                )
