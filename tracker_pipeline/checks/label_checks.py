"""Labels prove that they begin after their signal and do not stay pending, and show how their classes are balanced.

What belongs here: checks of stored labels. What does not: labelling rules (`domain.labels`).
"""

from datetime import timedelta
from typing import Final

import dagster as dg
import polars as pl

from tracker_pipeline.assets.labels import TABLES
from tracker_pipeline.assets.strategies import strategy_configs
from tracker_pipeline.checks.row_checks import RowChecks, Stored, Verdict, check_window
from tracker_pipeline.domain.label_report import outcome_counts
from tracker_pipeline.domain.schemas import BARS, SETUPS, Table
from tracker_pipeline.keys import key_of
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage import scan

# The horizon runs from the entry, which is at most two hours after the signal's bar opened; a day of slack is for the
# daily run that judges them.
_SLACK: Final = timedelta(hours=26)
_LEAST_TO_JUDGE: Final = 30
_MOST_OF_ONE_CLASS: Final = 0.95


def nothing_before_the_signal(stored: Stored) -> dict[str, Verdict]:
    """Compare labels with the setups that they belong to."""
    labels = stored.rows
    columns = ["setup_id", "signal_ts", "timeframe"]
    setups = scan(SETUPS.name, stored.start, stored.end, columns=columns).collect()
    strangers = labels.join(setups, on="setup_id", how="anti").height
    length = pl.col("timeframe").replace_strict(
        {"15m": timedelta(minutes=15), "1h": timedelta(hours=1)}, return_dtype=pl.Duration("us")
    )
    judged = labels.join(setups, on="setup_id")
    early = judged.filter(pl.col("entry_ts") < pl.col("signal_ts") + length).height
    return {
        "nothing_before_the_signal": Verdict(
            not strangers and not early,
            {"labels": labels.height, "labels without a setup": strangers, "labels entered too early": early},
            f"{strangers} without a setup, {early} entered too early" if strangers or early else None,
        )
    }


def balanced_labels(strategy: str, table: Table) -> dg.AssetChecksDefinition:
    """Whether the labels of one strategy become final and are not all of one class."""

    @dg.asset_check(
        asset=key_of(table),
        name="mature_and_balanced",
        description="No label is pending though its horizon has long passed in the stored bars, and no class makes up"
        " nearly all of them.",
    )
    def mature_and_balanced(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with classified():
            start, end = check_window(context, table)
            labels = scan(table.name, start, end).collect()
            overdue = _overdue(strategy, labels)
        counts = outcome_counts(labels)
        largest = max(counts.values(), default=0)
        lopsided = labels.height >= _LEAST_TO_JUDGE and largest > _MOST_OF_ONE_CLASS * labels.height
        return dg.AssetCheckResult(
            passed=not overdue and not lopsided,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"outcomes": counts, "pending though decided": overdue},
            description=f"{overdue} overdue, outcomes {counts}" if overdue or lopsided else None,
        )

    return mature_and_balanced


def _overdue(strategy: str, labels: pl.DataFrame) -> int:
    """Pending labels whose horizon passed more than a day ago by the newest bar of their venue."""
    config = strategy_configs().get(strategy)
    pending = labels.filter(pl.col("outcome") == "PENDING")
    if config is None or pending.is_empty():
        return 0
    since = pending.select(pl.col("timestamp").min()).item()
    newest = (
        scan(BARS["15m"].name, since, columns=["venue", "available_at"])
        .group_by("venue")
        .agg(pl.col("available_at").max())
        .collect()
    )
    end = pl.col("timestamp") + timedelta(hours=config.horizon_hours) + _SLACK
    return pending.join(newest, on="venue").filter(end < pl.col("available_at")).height


_SIGNALS: Final = RowChecks(
    {
        "nothing_before_the_signal": "Each label belongs to a setup, and is entered after the bar of its signal has"
        " closed."
    },
    nothing_before_the_signal,
)
ROWS: Final = {table.name: _SIGNALS for table in TABLES.values()}
ALL: Final = [balanced_labels(strategy, table) for strategy, table in TABLES.items()]
