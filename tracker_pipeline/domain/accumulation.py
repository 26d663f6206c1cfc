"""Whether watched addresses gained or lost ether between two snapshots, in exact arithmetic.

What belongs here: the score with all figures of `onchain.accumulation_scores`, the bands, the choice of the snapshot
to compare with. What does not: frames to integers and valuation (`holdings`), tags (`accumulation_tags`).

All sums, ratios and medians are integers or fractions; a percentage is rounded once, half-even to ten decimals, when
it leaves this module.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import polars as pl

from tracker_pipeline.domain.holdings import Cohort, Pair, match, neutral_limit, usable_rate

_DECIMALS: Final = 10
_DRIFT_PARTS: Final = 10  # a snapshot that is a tenth of the look-back off would measure another period
_LEAST_THRESHOLD: Final = Fraction(1)  # point; most addresses rest, and any move is far from a MAD of 0
_MAD_MULTIPLE: Final = 3
_FULL_TREND_PCT: Final = 5  # a change by this much counts fully in the trend
_BANDS: Final = (
    (Fraction(2), "strong accumulation"),
    (Fraction(1, 2), "accumulation"),
    (Fraction(-1, 2), "neutral"),
    (Fraction(-2), "distribution"),
)
_LOWEST_BAND: Final = "strong distribution"


@dataclass(frozen=True)
class _Wealth:
    """Worth of one address on both sides, in wei."""

    address: str
    then: int
    now: int

    @property
    def change(self) -> int:
        return self.now - self.then

    @property
    def larger(self) -> int:
        return max(self.then, self.now)

    @property
    def side(self) -> int:
        """1 gained, -1 lost, 0 neither."""
        if abs(self.change) <= neutral_limit(self.then, self.now):
            return 0
        return 1 if self.change > 0 else -1


def accumulation_score(
    current: pl.DataFrame, baseline: pl.DataFrame, *, steth_rate: Decimal | None
) -> dict[str, Any]:
    """Compare two snapshots over the matched cohort: the addresses known on both sides.

    An address is known in a snapshot if it has rows there and none of them is null: with any asset unknown its
    wealth is unknown, and the address is left out of every sum, native ones included, so that all figures speak of
    the same addresses. A stored 0 is known. Of a token without a row a known address holds nothing
    (`holdings.common_assets` drops tokens that only one snapshot has read).

    Wealth is ETH + WETH + stETH × rate, with one rate on both sides, so that staking or wrapping is no change.
    Without a rate, or with one outside 0.90 to 1.10, `lst_score_pct` and `lst_change_wei` are None, and addresses
    that hold stETH, whose wealth cannot be told, are left out of breadth, outliers, trend and Gini; the native score
    stays.

    Args:
        current: frame with whale_address in any spelling, asset (`ETH`, `WETH`, `STETH`) and balance (decimal text
            of wei, null for unknown).
        baseline: likewise, the earlier snapshot.
        steth_rate: ether for one stETH.

    Returns:
        The columns of `onchain.accumulation_scores` from `score_pct` to `band`, in that order: Decimal or int for
        exact figures, None for what is unknown.

    Raises:
        ValueError: rows contradict each other, a balance is negative or no integer, an asset is none of the three, or
            the rate is not positive.
    """
    return score_of(match(current, baseline), steth_rate=steth_rate)


def score_of(cohort: Cohort, *, steth_rate: Decimal | None) -> dict[str, Any]:
    """`accumulation_score` of two snapshots that were put side by side already."""
    rate_micro = usable_rate(steth_rate)
    wealths = [_wealth(pair, rate_micro or 0) for pair in cohort.pairs if rate_micro or not pair.holds_steth]
    native = _relative_change(sum(p.then.eth for p in cohort.pairs), sum(p.now.eth for p in cohort.pairs))
    lst_known = rate_micro is not None and bool(cohort.pairs)
    lst = _relative_change(sum(w.then for w in wealths), sum(w.now for w in wealths)) if lst_known else None
    return {
        "score_pct": _rounded(native),
        "lst_score_pct": _rounded(lst),
        "trend_score": _rounded(_trend(wealths)),
        "change_wei": sum(p.now.eth - p.then.eth for p in cohort.pairs) if cohort.pairs else None,
        "lst_change_wei": sum(w.change for w in wealths) if lst_known else None,
        **_counts(cohort),
        "accumulators": sum(w.side > 0 for w in wealths),
        "distributors": sum(w.side < 0 for w in wealths),
        "neutral": sum(w.side == 0 for w in wealths),
        **_spread(wealths),
        "gini": _rounded(gini([w.now for w in wealths])),
        "steth_rate": steth_rate,
        "band": band(native),
    }


def find_baseline(
    run_timestamps: Iterable[datetime], *, at: datetime, lookback: timedelta, tolerance: timedelta
) -> datetime | None:
    """Return the snapshot to compare the one of `at` with, None where none is near enough.

    It is the one nearest to `at - lookback`, at most `tolerance` away (inclusive) and less than a tenth of the
    look-back; of two equally near ones the earlier.

    Args:
        run_timestamps: times of existing snapshots, aware, in any order.
        at: time of the current snapshot, aware.
        lookback: wanted distance, positive.
        tolerance: largest distance from the ideal time.

    Raises:
        ValueError: a time is not aware, or the look-back is not positive.
    """
    runs = list(run_timestamps)
    if any(moment.tzinfo is None for moment in (at, *runs)):
        raise ValueError("times of snapshots must be aware")
    if lookback <= timedelta(0):
        raise ValueError(f"a look-back of {lookback} is not positive")
    target = at - lookback
    distances = ((abs(run - target), run) for run in runs)
    near = [
        (drift, run) for drift, run in distances if drift <= tolerance and drift * _DRIFT_PARTS < lookback
    ]
    return min(near)[1] if near else None


def band(score_pct: Fraction | Decimal | None) -> str | None:
    """Return the verdict on a native score in per cent, from `strong accumulation` to `strong distribution`."""
    if score_pct is None:
        return None
    return next((name for limit, name in _BANDS if score_pct > limit), _LOWEST_BAND)


def gini(wealths: Sequence[int]) -> Fraction | None:
    """Return the concentration of the positive ones, 0 (equal) to 1; None where there is none."""
    ascending = sorted(wealth for wealth in wealths if wealth > 0)
    if not ascending:
        return None
    size = len(ascending)
    weighted = sum(place * wealth for place, wealth in enumerate(ascending, start=1))
    return Fraction(2 * weighted, size * sum(ascending)) - Fraction(size + 1, size)


def _wealth(pair: Pair, rate_micro: int) -> _Wealth:
    return _Wealth(pair.address, pair.then.wealth(rate_micro), pair.now.wealth(rate_micro))


def _relative_change(then: int, now: int) -> Fraction | None:
    """Change in per cent, None from nothing."""
    return Fraction(100 * (now - then), then) if then else None


def _trend(wealths: Sequence[_Wealth]) -> Fraction | None:
    """0 (all lost) to 1 (all gained), each address weighted by its larger side."""
    total = sum(w.larger for w in wealths)
    if not total:
        return None
    # s × w of one address is clamp(100 Δ / larger / 5, -1, 1) × larger, an integer before the division by the total.
    steepness = 100 // _FULL_TREND_PCT
    pushes = (max(-w.larger, min(w.larger, steepness * w.change)) for w in wealths)
    return (1 + Fraction(sum(pushes), total)) / 2


def _counts(cohort: Cohort) -> dict[str, int]:
    return {
        "universe": cohort.universe,
        "matched": len(cohort.pairs),
        "missing_current": cohort.missing_current,
        "missing_historical": cohort.missing_historical,
        "entrants": cohort.entrants,
        "leavers": cohort.leavers,
    }


def _spread(wealths: Sequence[_Wealth]) -> Mapping[str, Any]:
    """Median and outliers of the changes, in per cent, of addresses that had something before."""
    changes = [(Fraction(100 * w.change, w.then), w) for w in wealths if w.then > 0]
    median = _median([change for change, _ in changes])
    if median is None:
        threshold, mad, outliers = None, None, []
    else:
        mad = _median([abs(change - median) for change, _ in changes]) or Fraction(0)
        threshold = max(_MAD_MULTIPLE * mad, _LEAST_THRESHOLD)
        outliers = [w for change, w in changes if abs(change - median) > threshold]
    # Of two equally large ones the lower address, so that the answer does not depend on the order of rows.
    driver = min(outliers, key=lambda w: (-abs(w.change), w.address), default=None)
    movement = sum(abs(w.change) for w in wealths)
    return {
        "median_change_pct": _rounded(median),
        "mad_pct": _rounded(mad),
        "outlier_threshold_pct": _rounded(threshold),
        "outliers": len(outliers),
        "driver": driver.address if driver else None,
        "is_anomaly": driver is not None and 2 * abs(driver.change) >= movement,
    }


def _median(values: Sequence[Fraction]) -> Fraction | None:
    if not values:
        return None
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _rounded(value: Fraction | None) -> Decimal | None:
    """Half-even to ten decimals; made from text, because arithmetic on Decimal rounds beyond 28 digits."""
    return None if value is None else Decimal(f"{round(value * 10**_DECIMALS)}E-{_DECIMALS}")
