"""What models learn from, by the week of the signal."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import day_of, table_asset
from tracker_pipeline.assets.labels import TABLES
from tracker_pipeline.domain import schemas
from tracker_pipeline.domain import training_set as rules
from tracker_pipeline.partitions import WEEKLY
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.day_locks import only_maker
from tracker_pipeline.storage.io_managers import PartitionFrames

_WEEK: Final = timedelta(days=7)
# Labels live at most 7 days and a wait of hours for their entry; those of the days around may overlap the week's own.
_NEIGHBOURS: Final = timedelta(days=8)


@table_asset(
    schemas.TRAINING_SET,
    kinds={"polars"},
    partitions=WEEKLY,
    deps=[
        keys.ML_FEATURES_15M,
        keys.STRATEGY_SETUPS,
        keys.STRATEGY_DCA_LABELS,
        keys.STRATEGY_SWING_LABELS,
        keys.STRATEGY_CHANNEL_LABELS,
    ],
    description="Entered setups of the week with the features known at their signal, their final label, the interval"
    " to purge around and a weight for overlapping labels. Pending and unresolved labels are not in it.",
)
def training_set(context: dg.AssetExecutionContext) -> PartitionFrames:
    """Join the setups of each week of the run."""
    return PartitionFrames(_weeks(context))


def _weeks(context: dg.AssetExecutionContext) -> Iterator[tuple[str, pl.DataFrame]]:
    with classified():
        for key in context.partition_keys:
            start = day_of(key)
            with only_maker(schemas.TRAINING_SET, start, start + _WEEK):
                rows = _rows(start - _NEIGHBOURS, start + _WEEK + _NEIGHBOURS)
                own = rows.filter(pl.col("signal_ts").is_between(start, start + _WEEK, closed="left"))
                context.add_asset_metadata(
                    {
                        "wins": int(own.get_column("is_win").sum()),
                        "sum of weights, overlapping labels counted once": own.get_column("weight").sum(),
                    },
                    partition_key=key,
                )
                yield key, own


def _rows(start: datetime, end: datetime) -> pl.DataFrame:
    setups = scan(schemas.SETUPS.name, start, end).collect()
    columns = [
        "setup_id",
        "outcome",
        "exit_reason",
        "gross_return_pct",
        "actual_return",
        "entry_ts",
        "exit_ts",
    ]
    labels = pl.concat(
        scan(table.name, start, end, columns=[*columns, "label_version"]).collect()
        for table in TABLES.values()
    )
    features = scan(
        schemas.ML_FEATURES_15M.name,
        start,
        end + timedelta(days=1),
        predicate=pl.col("symbol").is_in(setups.get_column("symbol").implode()),
    ).collect()
    return rules.training_set(setups, labels, features)
