"""The asset keys: schema and table, once. A key is the address of its table in Postgres, lake and code."""

import re
from typing import Final

from dagster import AssetKey

from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.schemas import Table


def key_of(table: Table) -> AssetKey:
    """The asset key of a table."""
    return AssetKey([table.schema, table.table])


def archive_key_of(table: Table | str) -> AssetKey:
    """The key of the asset that moves a table's old rows to the lake; names that are no identifiers are made such."""
    name = table if isinstance(table, str) else table.name
    return AssetKey(["archive", *(re.sub(r"[^A-Za-z0-9_]", "_", part) for part in name.split(".", 1))])


INSTRUMENTS: Final = key_of(schemas.INSTRUMENTS)
BARS: Final = {timeframe: key_of(table) for timeframe, table in schemas.BARS.items()}
OHLC_15M: Final = BARS["15m"]
OHLC_1H: Final = BARS["1h"]
OHLC_1D: Final = BARS["1d"]
BAR_COVERAGE: Final = key_of(schemas.BAR_COVERAGE)
BAR_GAPS: Final = key_of(schemas.BAR_GAPS)
REGIMES: Final = key_of(schemas.REGIMES)
ML_FEATURES_15M: Final = key_of(schemas.ML_FEATURES_15M)
STRATEGY_SETUPS: Final = key_of(schemas.SETUPS)
STRATEGY_DCA_LABELS: Final = key_of(schemas.DCA_LABELS)
STRATEGY_SWING_LABELS: Final = key_of(schemas.SWING_LABELS)
STRATEGY_CHANNEL_LABELS: Final = key_of(schemas.CHANNEL_LABELS)
TRAINING_SET: Final = key_of(schemas.TRAINING_SET)
WHALE_UNIVERSE: Final = key_of(schemas.WHALE_UNIVERSE)
WHALE_CANDIDATES: Final = key_of(schemas.WHALE_CANDIDATES)
SNAPSHOT_RECHECKS: Final = key_of(schemas.SNAPSHOT_RECHECKS)
WHALE_BALANCE_SNAPSHOTS: Final = key_of(schemas.WHALE_BALANCE_SNAPSHOTS)
STETH_RATES: Final = key_of(schemas.STETH_RATES)
ACCUMULATION_SCORES: Final = key_of(schemas.ACCUMULATION_SCORES)
ARCHIVED_OHLC_15M: Final = archive_key_of(schemas.BARS["15m"])
ARCHIVE_AUDIT: Final = AssetKey(["archive", "audit"])
ARCHIVE_RESTORE_DRILL: Final = AssetKey(["archive", "restore_drill"])
INSTANCE_RETENTION: Final = key_of(schemas.INSTANCE_RETENTION)
REPORTS: Final = {name: key_of(table) for name, table in schemas.REPORTS.items()}
