"""The code location: lists what exists and decides nothing.

Assembly is a function with overrides, so that production, tests and tools build the same graph with different
clients.
"""

from collections.abc import Mapping
from typing import Final

import dagster as dg

from tracker_pipeline.assets import (
    accumulation_scores,
    archive,
    archive_care,
    bar_coverage,
    bar_gaps,
    bars,
    features,
    instance_retention,
    instruments,
    labels,
    regimes,
    reports,
    setups,
    snapshot_rechecks,
    steth_rates,
    training_set,
    whale_balance_snapshots,
    whale_candidates,
    whale_universe,
)
from tracker_pipeline.automation import archive_care as care_times
from tracker_pipeline.automation import (
    jobs,
    report_schedules,
    schedules,
    sensors,
    training,
    universe,
    upkeep,
    watch,
)
from tracker_pipeline.checks import feature_checks, label_checks, market_checks, onchain_checks
from tracker_pipeline.checks.archive_checks import archive_check, every_row_came_back, no_row_is_lost
from tracker_pipeline.checks.row_checks import blocking_checks
from tracker_pipeline.checks.schema_checks import as_declared
from tracker_pipeline.resources.clients import ChainResource, ExchangeResource
from tracker_pipeline.storage.archive_policy import get_policies
from tracker_pipeline.storage.io_managers import ParquetIOManager, PostgresIOManager, table_of

TABLE_ASSETS: list[dg.AssetsDefinition] = [
    instruments.instruments,
    *bars.ALL,
    bar_coverage.bar_coverage,
    bar_gaps.bar_gaps,
    regimes.regimes,
    features.ml_features_15m,
    setups.strategy_setups,
    labels.strategy_dca_labels,
    labels.strategy_swing_labels,
    labels.strategy_channel_labels,
    training_set.training_set,
    whale_universe.whale_universe,
    whale_candidates.whale_candidates,
    whale_balance_snapshots.whale_balance_snapshots,
    steth_rates.steth_rates,
    accumulation_scores.accumulation_scores,
    snapshot_rechecks.snapshot_rechecks,
]


ALL_ASSETS: list[dg.AssetsDefinition] = [*TABLE_ASSETS, *archive.archives, *archive_care.ALL]

# What looks after the others; it has no part in the main job.
OPERATIONS_ASSETS: list[dg.AssetsDefinition] = [
    instance_retention.instance_retention,
    *reports.reports.values(),
]

_ROW_CHECKS: Final = {**market_checks.ROWS, **feature_checks.ROWS, **label_checks.ROWS, **onchain_checks.ROWS}


def _blocking_checks_of(asset: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    table = table_of(asset.key)
    own = _ROW_CHECKS.get(table.name)
    return blocking_checks(table, [as_declared(table), *([own] if own else [])])


def build_definitions(resource_overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """Everything of the code location.

    Args:
        resource_overrides: resources to use in place of those of the configuration, by name.
    """
    return dg.Definitions(
        assets=[*ALL_ASSETS, *OPERATIONS_ASSETS],
        asset_checks=[
            *(_blocking_checks_of(asset) for asset in [*TABLE_ASSETS, *OPERATIONS_ASSETS]),
            *market_checks.ALL,
            *feature_checks.ALL,
            *label_checks.ALL,
            *onchain_checks.ALL,
            *(archive_check(name) for name in get_policies().archived),
            no_row_is_lost,
            every_row_came_back,
        ],
        jobs=[*jobs.ALL, *upkeep.JOBS, *care_times.JOBS],
        schedules=[*schedules.ALL, *report_schedules.ALL, *upkeep.SCHEDULES, *care_times.SCHEDULES],
        sensors=[*sensors.ALL, training.training_stale, universe.new_universe_version, watch.watch],
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
