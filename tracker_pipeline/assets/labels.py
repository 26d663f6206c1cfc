"""What became of each setup, net of costs, by the day of its signal: one asset for each strategy.

Time here is the time of the data: what the newest stored bar of any symbol says, not the clock of the machine. A feed
that stops leaves labels pending instead of unresolved, and the same bars give the same labels whenever asked.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import days_of, own_blocks_of_days, table_asset
from tracker_pipeline.assets.strategies import strategy_configs
from tracker_pipeline.domain import label_report, labels, schemas
from tracker_pipeline.domain.schemas import Table
from tracker_pipeline.domain.strategy_config import StrategyConfig
from tracker_pipeline.partitions import DAILY
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.io_managers import PartitionFrames

_BLOCK: Final = timedelta(days=31)
# A signal is known at the end of its bar, an hour at most, and its label begins up to two 15m bars later.
_ENTRY_WAIT: Final = timedelta(hours=2)

TABLES: Final[dict[str, Table]] = {
    "dca": schemas.DCA_LABELS,
    "swing": schemas.SWING_LABELS,
    "channel": schemas.CHANNEL_LABELS,
}
_RULES: Final = {
    "dca": "entered by a grid of orders below the next open",
    "swing": "entered at the next open, with a trailing stop",
    "channel": "entered at the next open, left at the lines of the channel",
}


def _label_asset(strategy: str, table: Table) -> dg.AssetsDefinition:
    @table_asset(
        table,
        kinds={"polars"},
        partitions=DAILY,
        deps=[keys.OHLC_15M, keys.STRATEGY_SETUPS],
        command="tracker labels report",
        description=f"Outcome of each {strategy} setup: {_RULES[strategy]}, stop before target inside a bar unless"
        " finer bars decide, costs of the tier taken off. PENDING until the horizon has passed and its bars are"
        " there; then final.",
    )
    def strategy_labels(context: dg.AssetExecutionContext) -> PartitionFrames:
        """Label the setups of each day of the run with the bars that are known."""
        return PartitionFrames(_days(context, strategy, table))

    return strategy_labels


def _days(
    context: dg.AssetExecutionContext, strategy: str, table: Table
) -> Iterator[tuple[str, pl.DataFrame]]:
    with classified():
        config = strategy_configs().get(strategy)
        for start, end, day_keys in own_blocks_of_days(context, table, _BLOCK):
            found = table.polars_schema.to_frame()
            if config is not None:
                found = _labels(strategy, config, start, end)
            for key, day in days_of(found, table.time_column, day_keys):
                context.add_asset_metadata({"outcomes": label_report.outcome_counts(day)}, partition_key=key)
                yield key, day
        # All days are stored by now; the report goes to the newest one alone, as each would keep a copy for ever.
        report = dg.MetadataValue.md(label_report.as_markdown(stored_report([strategy])))
        context.add_asset_metadata({"report by month": report}, partition_key=context.partition_keys[-1])


def stored_report(strategies: Iterable[str] = tuple(TABLES)) -> pl.DataFrame:
    """Labels of some strategies by month, over all that is stored."""
    return label_report.by_month({name: scan(TABLES[name].name).collect() for name in strategies})


def _labels(strategy: str, config: StrategyConfig, start: datetime, end: datetime) -> pl.DataFrame:
    setups = scan(schemas.SETUPS.name, start, end, predicate=pl.col("strategy") == strategy).collect()
    horizon = timedelta(hours=config.horizon_hours) + _ENTRY_WAIT
    bars = scan(schemas.BARS["15m"].name, start, end + horizon).collect()
    fine = scan(
        schemas.BARS["1m"].name,
        start,
        end + horizon,
        predicate=pl.col("symbol").is_in(setups.get_column("symbol").implode()),
    ).collect()
    as_of: datetime = bars.select(pl.col("available_at").max()).item() or start
    return labels.label(setups, bars, fine_bars=fine if fine.height else None, as_of=as_of, config=config)


strategy_dca_labels = _label_asset("dca", TABLES["dca"])
strategy_swing_labels = _label_asset("swing", TABLES["swing"])
strategy_channel_labels = _label_asset("channel", TABLES["channel"])
