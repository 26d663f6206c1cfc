"""The jobs: one for each chain, because a run can carry only one partition definition.

The unpartitioned ends of both chains ride along: instruments with the market chain, the whale universe with the
on-chain one.
"""

from typing import Final

import dagster as dg

from tracker_pipeline import keys
from tracker_pipeline.assets.bar_series import is_tracked

LABEL_ASSETS: Final = (keys.STRATEGY_DCA_LABELS, keys.STRATEGY_SWING_LABELS, keys.STRATEGY_CHANNEL_LABELS)
# Finer timeframes than any that the exchange is asked for come from files, when somebody imports them.
BAR_ASSETS: Final = tuple(key for timeframe, key in keys.BARS.items() if is_tracked(timeframe))
MARKET_ASSETS: Final = (
    keys.INSTRUMENTS,
    *BAR_ASSETS,
    keys.BAR_COVERAGE,
    keys.REGIMES,
    keys.ML_FEATURES_15M,
    keys.STRATEGY_SETUPS,
    *LABEL_ASSETS,
)
ONCHAIN_ASSETS: Final = (
    keys.WHALE_UNIVERSE,
    keys.WHALE_CANDIDATES,
    keys.WHALE_BALANCE_SNAPSHOTS,
    keys.STETH_RATES,
    keys.ACCUMULATION_SCORES,
)
# What looks after the archive has no days.
ARCHIVE_CARE: Final = (keys.ARCHIVE_AUDIT, keys.ARCHIVE_RESTORE_DRILL)

market_day = dg.define_asset_job(
    "market_day",
    selection=dg.AssetSelection.assets(*MARKET_ASSETS),
    description="A day of the market chain, from instruments to labels.",
)
onchain_hour = dg.define_asset_job(
    "onchain_hour",
    selection=dg.AssetSelection.assets(*ONCHAIN_ASSETS),
    description="An hour of the on-chain chain, from the universe to scores.",
)
rolling_up = dg.define_asset_job(
    "rolling_up",
    selection=dg.AssetSelection.assets(*keys.BARS.values(), keys.BAR_COVERAGE),
    description="Bars of the days whose finer bars came late or were corrected, and their coverage.",
)
gap_healing = dg.define_asset_job(
    "gap_healing",
    selection=dg.AssetSelection.assets(keys.BAR_GAPS),
    description="The missing bars that are due are asked for again.",
)
onchain_recheck = dg.define_asset_job(
    "onchain_recheck",
    selection=dg.AssetSelection.assets(keys.SNAPSHOT_RECHECKS),
    description="Hours whose block is not final yet are compared with the chain; what was replaced is read again.",
)
label_maturing = dg.define_asset_job(
    "label_maturing",
    selection=dg.AssetSelection.assets(*LABEL_ASSETS),
    description="Labels of the days whose horizon may have passed since they were last judged.",
)
training_week = dg.define_asset_job(
    "training_week",
    selection=dg.AssetSelection.assets(keys.TRAINING_SET),
    description="Training rows of the weeks whose labels are final.",
)
archiving = dg.define_asset_job(
    "archiving",
    selection=dg.AssetSelection.groups("archive") - dg.AssetSelection.assets(*ARCHIVE_CARE),
    description="Days that left the hot window move to the lake.",
)

instance_retention = dg.define_asset_job(
    "instance_retention",
    selection=dg.AssetSelection.assets(keys.INSTANCE_RETENTION),
    description="Dagster's own old records go.",
)
daily_reports = dg.define_asset_job(
    "daily_reports",
    selection=dg.AssetSelection.assets(*(keys.REPORTS[name] for name in ("morning", "midday", "evening"))),
    description="Reports of a day, each at its hour.",
)
weekly_report = dg.define_asset_job(
    "weekly_report",
    selection=dg.AssetSelection.assets(keys.REPORTS["weekly"]),
    description="The report of a week.",
)

ALL: Final = [
    market_day,
    onchain_hour,
    rolling_up,
    gap_healing,
    onchain_recheck,
    label_maturing,
    training_week,
    archiving,
    instance_retention,
    daily_reports,
    weekly_report,
]
