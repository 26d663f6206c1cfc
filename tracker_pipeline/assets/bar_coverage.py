"""How complete the bars of each day are, with the gaps that make the difference."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import dagster as dg
import polars as pl
from pydantic import Field

from tracker_pipeline import keys
from tracker_pipeline.assets.bar_review import review_all
from tracker_pipeline.assets.declaration import blocks_of_days, days_of, run_window, table_asset
from tracker_pipeline.domain.schemas import BAR_COVERAGE, BARS
from tracker_pipeline.partitions import DAILY
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage.database import connect, has_rows
from tracker_pipeline.storage.io_managers import PartitionFrames

# With 90 coins these hold at most 260,000 minutes or 260,000 quarters of an hour.
_BLOCK_WITH_MINUTES: Final = timedelta(days=2)
_BLOCK: Final = timedelta(days=30)
_COUNTED: Final = ("expected", "present", "empty", "outage", "missing")


class CoverageConfig(dg.Config):
    """Which instruments are judged."""

    symbols: list[str] = Field(
        default=[], description="Unified symbols of the exchange; all recorded instruments if not given."
    )


@table_asset(
    BAR_COVERAGE,
    kinds={"polars"},
    partitions=DAILY,
    deps=[keys.INSTRUMENTS, *keys.BARS.values()],
    description="How many bars of each symbol, timeframe and day are there, and whether the others are empty, an"
    " outage of the venue or missing. Records the gaps in market.bar_gaps.",
)
def bar_coverage(context: dg.AssetExecutionContext, config: CoverageConfig) -> PartitionFrames:
    """Compare the bars of the run's days with what should be there, block by block."""
    return PartitionFrames(_days(context, config.symbols))


def _days(context: dg.AssetExecutionContext, symbols: list[str]) -> Iterator[tuple[str, pl.DataFrame]]:
    with classified():
        start, end = run_window(context)
        with connect() as connection:
            minutes = has_rows(connection, BARS["1m"], start, end)
        for first, last, day_keys in blocks_of_days(context, _BLOCK_WITH_MINUTES if minutes else _BLOCK):
            rows = review_all(first, last, run_id=context.run.run_id, symbols=symbols)
            _tell(context, rows)
            for key, day in days_of(rows, "day", day_keys):
                counted = {f"bars {state}": int(day.get_column(state).sum()) for state in _COUNTED}
                context.add_asset_metadata(counted, partition_key=key)
                yield key, day


def _tell(context: dg.AssetExecutionContext, rows: pl.DataFrame) -> None:
    lacking = rows.filter(pl.col("missing") > 0).sort("missing", descending=True)
    for row in lacking.head(5).iter_rows(named=True):
        context.log.warning(
            f"{row['missing']} of {row['expected']} {row['timeframe']} bars of {row['symbol']} on"
            f" {row['day']:%Y-%m-%d} are missing; market/bar_gaps asks for them again"
        )
