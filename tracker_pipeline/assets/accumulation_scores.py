"""Whether the watched addresses gained or lost since a day, a week and a month before each hour."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import table_asset
from tracker_pipeline.assets.networks import HOUR, hourly_frames
from tracker_pipeline.assets.snapshot_reads import (
    ether_snapshot,
    price_change_48h_pct,
    snapshot_times,
    steth_rate,
    stored_coverage,
    total_points,
)
from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.accumulation import find_baseline, score_of
from tracker_pipeline.domain.accumulation_tags import tags_of
from tracker_pipeline.domain.holdings import (
    MICRO,
    WEI_PER_ETH,
    Cohort,
    among_largest,
    common_assets,
    holdings_of,
    usable_rate,
)
from tracker_pipeline.domain.score_view import movers, score_chart, total_chart, without_driver
from tracker_pipeline.domain.snapshot_quality import coverage_quality
from tracker_pipeline.partitions import HOURLY
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.settings import get_config, get_networks
from tracker_pipeline.storage.io_managers import PartitionFrames

# A baseline may lie an hour beside the ideal one; further away it would measure another period.
TOLERANCE: Final = timedelta(minutes=60)
_CHART_DAYS: Final = timedelta(days=3)


@table_asset(
    schemas.ACCUMULATION_SCORES,
    kinds={"polars"},
    partitions=HOURLY,
    deps=[keys.WHALE_BALANCE_SNAPSHOTS, keys.STETH_RATES],
    description="Change of the watched addresses' balances over 24 h, 7 d and 30 d, in exact arithmetic over the"
    " addresses known on both sides, stETH at the rate of the hour on both. Where no snapshot lies near the look-back"
    " the status is no_baseline.",
)
def accumulation_scores(context: dg.AssetExecutionContext) -> PartitionFrames:
    """Score the hours of the run one after the other."""
    read = partial(score_hour, context.run.run_id)
    with classified():
        networks = tuple(get_networks())

    def hours() -> Any:
        with classified():
            yield from hourly_frames(context, schemas.ACCUMULATION_SCORES, networks, read)

    return PartitionFrames(hours())


def score_hour(run_id: str, network: str, hour: datetime) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Score an hour over each look-back.

    Returns:
        Rows of `onchain.accumulation_scores`, and what the UI shows of them.
    """
    current, rate = ether_snapshot(network, hour), steth_rate(network, hour)
    covered = stored_coverage(network, hour)
    context = {
        "complete": coverage_quality(covered) != "critical",
        "price_change_48h_pct": price_change_48h_pct(hour),
    }
    scored = [
        _score(network, hour, timedelta(hours=hours), current, rate, context)
        for hours in get_config().chain.lookback_hours
    ]
    rows = [{**row, "run_id": run_id} for row, _ in scored]
    frame = pl.DataFrame(rows, schema=schemas.ACCUMULATION_SCORES.polars_schema, orient="row")
    return frame, {
        "share of the last 24 hours that is stored, 0 to 1": float(covered),
        **_shown(network, hour, rate, *scored[0]),
    }


def _score(
    network: str,
    hour: datetime,
    lookback: timedelta,
    current: pl.DataFrame,
    rate: Decimal | None,
    context: Mapping[str, Any],
) -> tuple[dict[str, Any], Cohort]:
    runs = snapshot_times(network, hour - lookback - TOLERANCE, hour - lookback + TOLERANCE)
    at = None if current.is_empty() else find_baseline(runs, at=hour, lookback=lookback, tolerance=TOLERANCE)
    baseline = ether_snapshot(network, at) if at else current.clear()
    # A token that only one of the two snapshots has read would look like it was bought or sold.
    now, then = common_assets(current, baseline) if at else (current, baseline)
    config = get_config().chain
    cohort = among_largest(
        holdings_of(now),
        holdings_of(then),
        rate_micro=usable_rate(rate) or MICRO,
        top=config.top,
        least_wei=int(Decimal(str(config.min_balance_eth)) * WEI_PER_ETH),
    )
    result = score_of(cohort, steth_rate=rate)
    status = "no_baseline" if at is None else "ok" if context["complete"] else "low_coverage"
    row = {
        **_as_text(result),
        "network": network,
        "snapshot_timestamp": hour,
        "lookback_hours": int(lookback / HOUR),
        "tags": tags_of(result, cohort.pairs, **context) if at else [],
        "status": status,
        "baseline_timestamp": at,
        "elapsed_seconds": _elapsed_seconds(current, baseline),
    }
    return row, cohort


def _elapsed_seconds(current: pl.DataFrame, baseline: pl.DataFrame) -> int | None:
    if current.is_empty() or baseline.is_empty():
        return None
    elapsed = current.item(0, "block_timestamp") - baseline.item(0, "block_timestamp")
    return int(elapsed.total_seconds())


def _as_text(result: Mapping[str, Any]) -> dict[str, Any]:
    """Exact numbers travel through frames as decimal text."""
    exact = {schemas.ColumnType.NUMERIC, schemas.ColumnType.WEI}
    columns = schemas.ACCUMULATION_SCORES.column_by_name
    return {
        name: str(value) if value is not None and columns[name].type in exact else value
        for name, value in result.items()
    }


def _shown(
    network: str, hour: datetime, rate: Decimal | None, row: Mapping[str, Any], cohort: Cohort
) -> dict[str, Any]:
    """The score over the first look-back for people, with its chart and the ten largest movers."""
    alone = without_driver(cohort.pairs, row["driver"])
    points = total_points(network, hour - _CHART_DAYS, hour, row["lookback_hours"], row["score_pct"])
    # Numbers, since the web interface plots those over the hours; the table has them exactly.
    scores = {"score, %": row["score_pct"], "score without the driver, %": alone}
    return {
        "look-back": f"{row['lookback_hours']} h",
        **{name: float(value) for name, value in scores.items() if value is not None},
        "band": row["band"] or "none without a score",
        "tags": ", ".join(row["tags"]) or "none",
        "status": row["status"],
        "total balance": dg.MetadataValue.md(total_chart(points)),
        "score over time": dg.MetadataValue.md(score_chart(points)),
        "largest movers": dg.MetadataValue.md(movers(cohort.pairs, usable_rate(rate) or MICRO)),
    }
