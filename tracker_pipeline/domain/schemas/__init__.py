"""The declared schema of every table: columns, types, keys, units. The one source of truth.

Postgres migrations must equal it (a test applies them and compares), the blocking schema checks are generated
from it, the Dagster UI shows it, and the IO managers write by it.

What belongs here: declarations, one module for each product. What does not: SQL that creates tables
(`sql/migrations`), formulas.
"""

from collections.abc import Mapping
from typing import Final

from tracker_pipeline.domain.schemas.archive import ARCHIVE_BATCHES, ARCHIVE_DEPLOYMENT, ARCHIVE_HOLDS
from tracker_pipeline.domain.schemas.completeness import BAR_COVERAGE, BAR_GAPS, OUTAGES
from tracker_pipeline.domain.schemas.declaration import Column, ColumnType, Table
from tracker_pipeline.domain.schemas.features import ML_FEATURES_15M
from tracker_pipeline.domain.schemas.labels import (
    CHANNEL_LABELS,
    DCA_LABELS,
    SETUPS,
    SWING_LABELS,
    TRAINING_SET,
)
from tracker_pipeline.domain.schemas.market import (
    BAR_INVALIDATIONS,
    BAR_QUARANTINE,
    BAR_REVISIONS,
    BARS,
    INSTRUMENTS,
    REGIMES,
)
from tracker_pipeline.domain.schemas.onchain import (
    ACCUMULATION_SCORES,
    SNAPSHOT_RECHECKS,
    STETH_RATES,
    WHALE_BALANCE_SNAPSHOTS,
    WHALE_CANDIDATES,
    WHALE_UNIVERSE,
)
from tracker_pipeline.domain.schemas.operations import (
    ALERTS,
    DELIVERIES,
    FRESHNESS,
    INSTANCE_RETENTION,
    REPORTS,
)

__all__ = [
    "ACCUMULATION_SCORES",
    "ALERTS",
    "ARCHIVE_BATCHES",
    "ARCHIVE_DEPLOYMENT",
    "ARCHIVE_HOLDS",
    "BARS",
    "BAR_COVERAGE",
    "BAR_GAPS",
    "BAR_INVALIDATIONS",
    "BAR_QUARANTINE",
    "BAR_REVISIONS",
    "CHANNEL_LABELS",
    "DCA_LABELS",
    "DELIVERIES",
    "FRESHNESS",
    "INSTANCE_RETENTION",
    "INSTRUMENTS",
    "ML_FEATURES_15M",
    "OUTAGES",
    "REGIMES",
    "REPORTS",
    "SETUPS",
    "SNAPSHOT_RECHECKS",
    "STETH_RATES",
    "SWING_LABELS",
    "TABLES",
    "TRAINING_SET",
    "WHALE_BALANCE_SNAPSHOTS",
    "WHALE_CANDIDATES",
    "WHALE_UNIVERSE",
    "Column",
    "ColumnType",
    "Table",
]

TABLES: Final[Mapping[str, Table]] = {
    table.name: table
    for table in (
        INSTRUMENTS,
        *BARS.values(),
        BAR_REVISIONS,
        BAR_QUARANTINE,
        BAR_INVALIDATIONS,
        BAR_COVERAGE,
        BAR_GAPS,
        OUTAGES,
        REGIMES,
        ML_FEATURES_15M,
        SETUPS,
        DCA_LABELS,
        SWING_LABELS,
        CHANNEL_LABELS,
        TRAINING_SET,
        WHALE_UNIVERSE,
        WHALE_CANDIDATES,
        SNAPSHOT_RECHECKS,
        WHALE_BALANCE_SNAPSHOTS,
        STETH_RATES,
        ACCUMULATION_SCORES,
        ARCHIVE_BATCHES,
        ARCHIVE_HOLDS,
        ARCHIVE_DEPLOYMENT,
        FRESHNESS,
        ALERTS,
        DELIVERIES,
        INSTANCE_RETENTION,
        *REPORTS.values(),
    )
}
