"""What stands out in an accumulation score, as a few words each.

What belongs here: the rules of the tags. What does not: the score itself (`accumulation`).
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import polars as pl

from tracker_pipeline.domain.holdings import MICRO, WEI_PER_ETH, Pair, match, neutral_limit, usable_rate

INCOMPLETE: Final = "Incomplete Data"
INSUFFICIENT: Final = "Insufficient Data"
ORGANIC: Final = "Organic Accumulation"
CONCENTRATED: Final = "Concentrated Signal"
DIVERGENCE: Final = "Bullish Divergence"
MIGRATION: Final = "LST Migration"
CONVICTION: Final = "High Conviction"
TECHNICAL: Final = "Technical Activity"
DEPEG: Final = "Depeg Risk"
ANOMALY: Final = "Anomaly Alert"

_LEAST_MATCHED: Final = Decimal("0.70")
_ORGANIC_SHARE: Final = Decimal("0.25")
_CONCENTRATED_GINI: Final = Decimal("0.85")
_FALLING_PRICE_PCT: Final = Decimal("-2")
_RISING_SCORE_PCT: Final = Decimal("0.2")
_LOOPER_WEI: Final = 100 * WEI_PER_ETH
_LOOPER_SHARE: Final = Decimal("0.10")
_DEPEG_RATE: Final = Decimal("0.98")


def tags(
    score: Mapping[str, Any],
    current: pl.DataFrame,
    baseline: pl.DataFrame,
    *,
    complete: bool = True,
    price_change_48h_pct: Decimal | None = None,
) -> list[str]:
    """Return the tags of a score, in the order in which they are judged.

    How the rules are meant:

    - *Insufficient Data* compares with 70 % of the universe exactly, not with a truncated number of addresses.
    - *Organic Accumulation* counts addresses that gained more than gas and rebases, not those that gained a wei, and
      is a share of the matched addresses, which are the ones that were judged.
    - *LST Migration* needs an address whose ETH, WETH and stETH moved in opposite directions, each by more than gas
      and rebases explain, while its wealth stayed the same within those and the difference between par and the market
      rate on what moved: contracts convert at par, markets at the rate. A mere spending on gas is none.
    - *High Conviction* compares the LST score with the outlier threshold once; the threshold is already three MADs.
    - *Technical Activity* in its place compares what moved in stETH, not all stETH that is held, with the native
      change. Addresses that look like leverage loops hold more than 100 ether in WETH and stETH, and more in them
      than in ETH, so that a large holder is not one for being large.
    - *Depeg Risk* stands at any rate below 0.98, also one too low for the LST score.

    Args:
        score: from `accumulation_score` of the same snapshots.
        current: the snapshot that was scored.
        baseline: the one that it was compared with.
        complete: enough snapshots were stored of the hours in between; if not, that is the only tag.
        price_change_48h_pct: of ether in US dollars, None where not known.
    """
    cohort = match(current, baseline)
    return tags_of(score, cohort.pairs, complete=complete, price_change_48h_pct=price_change_48h_pct)


def tags_of(
    score: Mapping[str, Any],
    pairs: tuple[Pair, ...],
    *,
    complete: bool,
    price_change_48h_pct: Decimal | None,
) -> list[str]:
    """`tags` of a score whose snapshots were put side by side already."""
    if not complete:
        return [INCOMPLETE]
    if score["matched"] < _LEAST_MATCHED * score["universe"] or not score["matched"]:
        return [INSUFFICIENT]
    rate = score["steth_rate"]
    rate_micro = usable_rate(rate) or MICRO  # par, where there is no rate to trust
    depegged = rate is not None and rate < _DEPEG_RATE
    convinced = _above(score["lst_score_pct"], score["outlier_threshold_pct"]) and not score["is_anomaly"]
    technical = convinced and _mostly_steth(pairs, rate_micro, score["change_wei"])
    loopers = sum(_looks_like_loop(pair, rate_micro) for pair in pairs)
    judged = {
        ORGANIC: score["accumulators"] > _ORGANIC_SHARE * score["matched"],
        CONCENTRATED: _above(score["gini"], _CONCENTRATED_GINI),
        DIVERGENCE: _above(_FALLING_PRICE_PCT, price_change_48h_pct)
        and _above(score["score_pct"], _RISING_SCORE_PCT),
        MIGRATION: any(_migrated(pair, rate_micro) for pair in pairs),
        CONVICTION: convinced and not technical and not depegged,
        TECHNICAL: technical or loopers > _LOOPER_SHARE * score["matched"],
        DEPEG: depegged,
        ANOMALY: score["is_anomaly"],
    }
    return [tag for tag, stands in judged.items() if stands]


def _above(value: Decimal | None, limit: Decimal | None) -> bool:
    """Whether both are known and the first is larger."""
    return value is not None and limit is not None and value > limit


def _legs(pair: Pair, rate_micro: int) -> tuple[int, int, int]:
    """Change of ETH, WETH and stETH, each in wei of ether."""
    steth = (pair.now.steth - pair.then.steth) * rate_micro // MICRO
    return pair.now.eth - pair.then.eth, pair.now.weth - pair.then.weth, steth


def _migrated(pair: Pair, rate_micro: int) -> bool:
    legs = _legs(pair, rate_micro)
    gained = sum(leg for leg in legs if leg > 0)
    lost = -sum(leg for leg in legs if leg < 0)
    limit = neutral_limit(pair.then.wealth(rate_micro), pair.now.wealth(rate_micro))
    slack = limit + max(gained, lost) * abs(MICRO - rate_micro) // MICRO
    return min(gained, lost) > limit and abs(gained - lost) <= slack


def _mostly_steth(pairs: tuple[Pair, ...], rate_micro: int, native_change: int) -> bool:
    steth_change = sum(_legs(pair, rate_micro)[2] for pair in pairs)
    return 10 * abs(steth_change) > 7 * abs(native_change)  # more than 70 %, in integers


def _looks_like_loop(pair: Pair, rate_micro: int) -> bool:
    in_tokens = pair.now.wealth(rate_micro) - pair.now.eth
    return in_tokens > max(_LOOPER_WEI, pair.now.eth)
