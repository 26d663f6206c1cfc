"""Whether the watched addresses gained or lost since a day, a week and a month before each hour."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import hour_of, table_asset
from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.accumulation import accumulation_score, find_baseline
from tracker_pipeline.domain.accumulation_tags import tags
from tracker_pipeline.domain.holdings import ETHER_ASSETS, common_assets
from tracker_pipeline.partitions import HOURLY
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.io_managers import PartitionFrames

_SNAPSHOTS: Final = schemas.WHALE_BALANCE_SNAPSHOTS.name
_RATES: Final = schemas.STETH_RATES.name
# A baseline may lie an hour beside the ideal one; further away it would measure another period.
_TOLERANCE: Final = timedelta(minutes=60)
# Below this share of known balances a sum says more about the node than about the whales.
_LEAST_COVERAGE: Final = 0.70


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
    return PartitionFrames(_hours(context))


def _hours(context: dg.AssetExecutionContext) -> Iterator[tuple[str, pl.DataFrame]]:
    with classified():
        network = get_config().chain.network
        for key in context.partition_keys:
            hour = hour_of(key)
            current = _snapshot(network, hour)
            rate = _steth_rate(network, hour)
            rows = [
                _score(network, hour, timedelta(hours=hours), current, rate)
                for hours in get_config().chain.lookback_hours
            ]
            frame = pl.DataFrame(rows, schema=schemas.ACCUMULATION_SCORES.polars_schema, orient="row")
            day = frame.row(0, named=True)
            context.add_asset_metadata(
                {"score_pct over the first look-back": str(day["score_pct"]), "status": day["status"]},
                partition_key=key,
            )
            yield key, frame.with_columns(run_id=pl.lit(context.run.run_id))


def _score(
    network: str, hour: datetime, lookback: timedelta, current: pl.DataFrame, rate: Decimal | None
) -> dict[str, Any]:
    runs = _snapshot_times(network, hour - lookback - _TOLERANCE, hour - lookback + _TOLERANCE)
    at = find_baseline(runs, at=hour, lookback=lookback, tolerance=_TOLERANCE)
    baseline = _snapshot(network, at) if at else current.clear()
    # A token that only one of the two snapshots has read would look like it was bought or sold.
    now, then = common_assets(current, baseline) if at else (current, baseline)
    result = accumulation_score(now, then, steth_rate=rate)
    complete = _coverage(current) >= _LEAST_COVERAGE
    status = "no_baseline" if at is None else "ok" if complete else "low_coverage"
    return {
        **_as_text(result),
        "network": network,
        "snapshot_timestamp": hour,
        "lookback_hours": int(lookback / timedelta(hours=1)),
        "tags": tags(result, now, then, complete=complete) if at else [],
        "status": status,
        "baseline_timestamp": at,
        "elapsed_seconds": _elapsed_seconds(current, baseline),
        "run_id": "",
    }


def _snapshot(network: str, hour: datetime) -> pl.DataFrame:
    """The rows of one hour of what counts as ether; other tokens are kept for their own sake."""
    wanted = (pl.col("network") == network) & pl.col("asset").is_in(ETHER_ASSETS)
    return scan(_SNAPSHOTS, hour, hour + timedelta(hours=1), predicate=wanted).collect()


def _steth_rate(network: str, hour: datetime) -> Decimal | None:
    """The rate at the hour's pinned block; None where it is not known."""
    rows = scan(_RATES, hour, hour + timedelta(hours=1), predicate=pl.col("network") == network).collect()
    rate = rows.item(0, "rate") if rows.height else None
    return None if rate is None else Decimal(rate)


def _snapshot_times(network: str, start: datetime, end: datetime) -> list[datetime]:
    times = scan(
        _SNAPSHOTS,
        start,
        end + timedelta(microseconds=1),
        predicate=pl.col("network") == network,
        columns=["snapshot_timestamp"],
    )
    return times.unique().collect().get_column("snapshot_timestamp").to_list()


def _coverage(current: pl.DataFrame) -> float:
    return 1 - current.get_column("balance").null_count() / max(1, current.height)


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
