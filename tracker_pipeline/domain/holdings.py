"""What each address held in two snapshots, as exact integers, and what it was worth in ether.

What belongs here: frames turned into integers, spelling, valuation. What does not: scores (`accumulation`), tags
(`accumulation_tags`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final, NamedTuple

import polars as pl

WEI_PER_ETH: Final = 10**18
MICRO: Final = 10**6  # stETH is valued at a rate of six decimals

ETHER_ASSETS: Final = ("ETH", "WETH", "STETH")  # what counts as ether
_RATE_DECIMALS: Final = Decimal("0.000001")
# Outside this range a rate is more likely a broken feed than a price: stETH never traded below 0.93.
_LOWEST_RATE, _HIGHEST_RATE = Decimal("0.90"), Decimal("1.10")


class Holding(NamedTuple):
    """What one address holds, in wei of each asset."""

    eth: int
    weth: int
    steth: int

    def wealth(self, rate_micro: int) -> int:
        """Value in wei at a rate in millionths of an ether for each stETH."""
        return self.eth + self.weth + self.steth * rate_micro // MICRO


Holdings = Mapping[str, Holding | None]


@dataclass(frozen=True)
class Pair:
    """One address known on both sides."""

    address: str
    then: Holding
    now: Holding

    @property
    def holds_steth(self) -> bool:
        """Whether it held any on either side."""
        return self.then.steth > 0 or self.now.steth > 0


@dataclass(frozen=True)
class Cohort:
    """Two snapshots side by side.

    Attributes:
        pairs: addresses known on both sides, sorted by address.
        universe: addresses with a row on either side.
        missing_current: of the universe, those unknown now.
        missing_historical: those unknown then.
        entrants: those with rows only now.
        leavers: those with rows only then.
    """

    pairs: tuple[Pair, ...]
    universe: int
    missing_current: int
    missing_historical: int
    entrants: int
    leavers: int


def match(current: pl.DataFrame, baseline: pl.DataFrame) -> Cohort:
    """Put two snapshots side by side.

    An address is known in a snapshot if it has rows there and none of them is null. Of an asset for which such an
    address has no row it holds nothing; to compare snapshots that did not read the same assets, pass them through
    `common_assets` first.

    Args:
        current: columns whale_address, asset and balance; others are passed over.
        baseline: likewise, the earlier snapshot.

    Raises:
        ValueError: two rows of one address and asset contradict each other, a balance is negative or no integer, or
            an asset is not ETH, WETH or STETH.
    """
    return match_holdings(holdings_of(current), holdings_of(baseline))


def match_holdings(now: Holdings, then: Holdings) -> Cohort:
    """`match` of what `holdings_of` made of two snapshots."""
    universe = now.keys() | then.keys()
    pairs = []
    for address in sorted(universe):
        held, held_before = now.get(address), then.get(address)
        if held is not None and held_before is not None:
            pairs.append(Pair(address, held_before, held))
    return Cohort(
        pairs=tuple(pairs),
        universe=len(universe),
        missing_current=sum(now.get(address) is None for address in universe),
        missing_historical=sum(then.get(address) is None for address in universe),
        entrants=len(now.keys() - then.keys()),
        leavers=len(then.keys() - now.keys()),
    )


def common_assets(current: pl.DataFrame, baseline: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return both snapshots without the assets that only one of them has read.

    A token that was not read yet a month ago must not look like one that was bought since.
    """
    common = pl.Series(
        sorted(set(current.get_column("asset")) & set(baseline.get_column("asset"))), dtype=pl.String
    ).implode()
    only_common = pl.col("asset").is_in(common)
    return current.filter(only_common), baseline.filter(only_common)


def largest(held: Holdings, *, rate_micro: int, top: int | None, least_wei: int = 0) -> frozenset[str]:
    """Return the `top` addresses of largest wealth among those that hold at least `least_wei`, ties by address.

    Wealth, not ether alone, so that who stakes does not seem to leave. What an address holds that could not be read
    nobody knows, so it is none of them.

    Args:
        held: a snapshot.
        rate_micro: ether for one stETH, in millionths.
        top: how many; None for all.
        least_wei: smallest wealth.
    """
    wealths = ((h.wealth(rate_micro), address) for address, h in held.items() if h is not None)
    ranked = sorted((-wealth, address) for wealth, address in wealths if wealth >= least_wei)
    return frozenset(address for _, address in ranked[:top])


def among_largest(
    now: Holdings, then: Holdings, *, rate_micro: int, top: int | None, least_wei: int = 0
) -> Cohort:
    """Put two snapshots side by side over the addresses that were among the largest in either.

    All addresses were read in both, so those that enter and leave the largest are compared like the others, and
    counted as entrants and leavers. An address that is unknown in one of the snapshots and not among the largest of
    the other may belong or not; it is left out, and counted where it was among the largest of the other.

    Args:
        now: the current snapshot.
        then: the earlier one.
        rate_micro: ether for one stETH, in millionths.
        top: how many of each; None for all.
        least_wei: smallest wealth in either.
    """
    if top is None and not least_wei:
        return match_holdings(now, then)
    leading = largest(now, rate_micro=rate_micro, top=top, least_wei=least_wei)
    led = largest(then, rate_micro=rate_micro, top=top, least_wei=least_wei)
    union = leading | led
    cohort = match_holdings(
        {address: held for address, held in now.items() if address in union},
        {address: held for address, held in then.items() if address in union},
    )
    return replace(cohort, entrants=len(leading - led), leavers=len(led - leading))


def usable_rate(rate: Decimal | None) -> int | None:
    """Return a rate in millionths, half-even; None where it is not known or outside 0.90 to 1.10.

    Raises:
        ValueError: it is no positive number.
    """
    if rate is None:
        return None
    if not rate.is_finite() or rate <= 0:
        raise ValueError(f"a stETH rate of {rate} is no positive number")
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        return None
    return int(rate.quantize(_RATE_DECIMALS, ROUND_HALF_EVEN) * MICRO)


def neutral_limit(then: int, now: int) -> int:
    """The largest change of wealth, in wei, that is no movement: 0.01 ether, or 2 basis points of the larger side.

    Gas and the daily growth of stETH (0.8 basis points) stay below it. Basis points are floored: a change is a whole
    number of wei, so it exceeds the limit and its floor alike.
    """
    return max(WEI_PER_ETH // 100, max(then, now) * 2 // 10_000)


def holdings_of(snapshot: pl.DataFrame) -> Holdings:
    """Return each address of a snapshot with what it holds, None where that is unknown.

    Args:
        snapshot: columns whale_address, asset and balance; others are passed over.

    Raises:
        ValueError: as `match`.
    """
    balances: dict[str, dict[str, int | None]] = {}
    rows = snapshot.select(
        pl.col("whale_address").str.to_lowercase(), "asset", pl.col("balance").cast(pl.String)
    )
    for address, asset, text in rows.iter_rows():
        balance = _balance(text, address)
        known = balances.setdefault(address, {})
        if known.setdefault(asset, balance) != balance:
            raise ValueError(
                f"{address} has two balances of {asset} in one snapshot: {known[asset]} and {balance}"
            )
    return {address: _holding(address, assets) for address, assets in balances.items()}


def _balance(text: str | None, address: str) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"the balance {text!r} of {address} is no whole number of wei")
    return int(text)


def _holding(address: str, assets: Mapping[str, int | None]) -> Holding | None:
    unknown = set(assets) - set(ETHER_ASSETS)
    if unknown:
        raise ValueError(
            f"{address} holds {', '.join(sorted(unknown))}; only {', '.join(ETHER_ASSETS)} count as ether"
        )
    held = [assets.get(asset, 0) for asset in ETHER_ASSETS]
    known = [balance for balance in held if balance is not None]
    return Holding(*known) if len(known) == len(held) else None
