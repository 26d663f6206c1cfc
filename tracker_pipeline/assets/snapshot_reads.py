"""What scores and checks read of the stored snapshots: hot and archived rows as one, always within bounds.

What belongs here: reads of balances, rates, scores and the price of ether. What does not: what is made of them.
"""

from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Final

import polars as pl

from tracker_pipeline.assets.networks import HOUR
from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.holdings import ETHER_ASSETS
from tracker_pipeline.domain.score_view import Point
from tracker_pipeline.domain.snapshot_quality import HOURS, coverage
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage import scan

_SNAPSHOTS: Final = schemas.WHALE_BALANCE_SNAPSHOTS.name
_INSTANT: Final = timedelta(microseconds=1)
_PRICE_LOOKBACK: Final = timedelta(hours=48)


def ether_snapshot(network: str, hour: datetime) -> pl.DataFrame:
    """The rows of one hour of what counts as ether; other tokens are kept for their own sake."""
    wanted = (pl.col("network") == network) & pl.col("asset").is_in(ETHER_ASSETS)
    return scan(_SNAPSHOTS, hour, hour + HOUR, predicate=wanted).collect()


def snapshot_times(network: str, start: datetime, end: datetime) -> list[datetime]:
    """Hours in [start, end] that have a snapshot."""
    times = scan(
        _SNAPSHOTS,
        start,
        end + _INSTANT,
        predicate=pl.col("network") == network,
        columns=["snapshot_timestamp"],
    )
    return times.unique().collect().get_column("snapshot_timestamp").to_list()


def steth_rate(network: str, hour: datetime) -> Decimal | None:
    """The rate at the hour's pinned block; None where it is not known."""
    rows = scan(schemas.STETH_RATES.name, hour, hour + HOUR, predicate=pl.col("network") == network).collect()
    rate = rows.item(0, "rate") if rows.height else None
    return None if rate is None else Decimal(rate)


def stored_coverage(network: str, hour: datetime, *, hours: int = HOURS) -> Fraction:
    """Share of the addresses of an hour that have a native balance in each of the `hours` hours up to it."""
    native = (pl.col("network") == network) & (pl.col("asset") == "ETH")
    rows = scan(
        _SNAPSHOTS,
        hour - (hours - 1) * HOUR,
        hour + _INSTANT,
        predicate=native,
        columns=["whale_address", "snapshot_timestamp"],
    ).collect()
    watched = rows.filter(snapshot_timestamp=hour).get_column("whale_address")
    pairs = rows.filter(pl.col("whale_address").is_in(watched.implode()))
    return coverage(pairs.iter_rows(), addresses=watched.n_unique(), hours=hours)


def total_points(
    network: str, start: datetime, end: datetime, lookback_hours: int, last_score: str | None
) -> list[Point]:
    """Total native balance and score of each stored hour in [start, end].

    Args:
        network: whose.
        start: aware.
        end: aware; its score is given, as it is not stored yet.
        lookback_hours: of the scores.
        last_score: decimal text of the score of `end`, None where there is none.
    """
    native = (pl.col("network") == network) & (pl.col("asset") == "ETH")
    columns = ["snapshot_timestamp", "balance"]
    rows = scan(_SNAPSHOTS, start, end + _INSTANT, predicate=native, columns=columns).collect()
    totals: dict[datetime, int] = {}
    for at, balance in rows.iter_rows():
        totals[at] = totals.get(at, 0) + int(balance or 0)
    wanted = (pl.col("network") == network) & (pl.col("lookback_hours") == lookback_hours)
    scores = dict(
        scan(
            schemas.ACCUMULATION_SCORES.name,
            start,
            end,
            predicate=wanted,
            columns=["snapshot_timestamp", "score_pct"],
        )
        .collect()
        .iter_rows()
    )
    scores[end] = last_score
    return [
        Point(at, total, None if (score := scores.get(at)) is None else Decimal(score))
        for at, total in sorted(totals.items())
    ]


def price_change_48h_pct(hour: datetime) -> Decimal | None:
    """Change of the price of ether over 48 hours, in per cent to six decimals; None where bars are missing.

    Of the bars that closed an hour before the hour: those of the hour itself are fetched while its score is made, so
    that it would depend on which came first.
    """
    market = get_config().market
    wanted = (pl.col("venue") == market.venue) & (pl.col("symbol") == market.symbol("ETH"))
    now, then = hour - 2 * HOUR, hour - 2 * HOUR - _PRICE_LOOKBACK
    closes: dict[datetime, float] = {}
    for at in (then, now):
        bars = scan(
            schemas.BARS["1h"].name, at, at + HOUR, predicate=wanted, columns=["ts", "close"]
        ).collect()
        closes.update(bars.iter_rows())
    if now not in closes or not closes.get(then):
        return None
    new, old = (Fraction(str(closes[at])) for at in (now, then))
    millionths = round(100 * (new - old) / old * 10**6)
    return Decimal(millionths).scaleb(-6).quantize(Decimal("0.000001"), ROUND_HALF_EVEN)
