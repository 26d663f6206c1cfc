"""The code location: lists what exists and decides nothing.

Assembly is a function with overrides, so that production, tests and tools build the same graph with different
clients.
"""

import warnings
from collections.abc import Mapping

import dagster as dg

# backfill_policy is beta and would warn once for each asset.
warnings.filterwarnings("ignore", category=dg.BetaWarning)

from tracker_pipeline.assets import (  # noqa: E402  # the filter must come first
    accumulation_scores,
    archive,
    bars,
    features,
    instruments,
    labels,
    regimes,
    setups,
    whale_balance_snapshots,
    whale_universe,
)
from tracker_pipeline.automation import jobs, schedules, sensors  # noqa: E402
from tracker_pipeline.checks import feature_checks, label_checks  # noqa: E402
from tracker_pipeline.checks.archive_checks import archive_check  # noqa: E402
from tracker_pipeline.checks.schema_checks import schema_check  # noqa: E402
from tracker_pipeline.domain.schemas import TABLES  # noqa: E402
from tracker_pipeline.resources.clients import ChainResource, ExchangeResource  # noqa: E402
from tracker_pipeline.settings import get_config  # noqa: E402
from tracker_pipeline.storage.io_managers import ParquetIOManager, PostgresIOManager, table_of  # noqa: E402

TABLE_ASSETS: list[dg.AssetsDefinition] = [
    instruments.instruments,
    bars.ohlc_15m,
    bars.ohlc_1h,
    bars.ohlc_1d,
    regimes.regimes,
    features.ml_features_15m,
    setups.strategy_setups,
    labels.strategy_dca_labels,
    labels.strategy_swing_labels,
    labels.strategy_channel_labels,
    whale_universe.whale_universe,
    whale_balance_snapshots.whale_balance_snapshots,
    accumulation_scores.accumulation_scores,
]


ALL_ASSETS: list[dg.AssetsDefinition] = [*TABLE_ASSETS, *archive.archives]


def build_definitions(resource_overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """Everything of the code location.

    Args:
        resource_overrides: resources to use in place of those of the configuration, by name.
    """
    return dg.Definitions(
        assets=ALL_ASSETS,
        asset_checks=[
            *(schema_check(table_of(asset.key)) for asset in TABLE_ASSETS),
            *feature_checks.ALL,
            *label_checks.ALL,
            *(archive_check(TABLES[name]) for name in get_config().archive.hot_days),
        ],
        jobs=jobs.ALL,
        schedules=schedules.ALL,
        sensors=sensors.ALL,
        resources={
            "postgres": PostgresIOManager(),
            "parquet": ParquetIOManager(),
            "exchange": ExchangeResource.configured(),
            "chain": ChainResource.configured(),
            **(resource_overrides or {}),
        },
        # A process for each step costs about 4 s; our steps are light and share one process.
        executor=dg.in_process_executor,
    )


defs = build_definitions()
