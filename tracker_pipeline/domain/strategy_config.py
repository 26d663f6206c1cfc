"""The typed configuration of a strategy: thresholds, exits, grid, tiers and costs (market.md §18.4, §18.8).

What belongs here: values, their validation, and the version that names them. What does not: rules that use them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Final

LARGE: Final = "large_cap"
MID: Final = "mid_cap"
SMALL: Final = "small_cap"
MEME: Final = "memecoin"
TIERS: Final = (LARGE, MID, SMALL, MEME)
MEMORY: Final = timedelta(days=7)  # how long an event is remembered (`setups.py`); nothing may reach further
_MEMORY_BARS: Final = MEMORY // timedelta(minutes=15)


def _by_tier(large: float, mid: float, small: float, meme: float) -> dict[str, float]:
    return dict(zip(TIERS, (large, mid, small, meme), strict=True))


def _plain(value: Any) -> Any:
    """Numbers as float throughout: -5 and -5.0 are one configuration."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@dataclass(frozen=True)
class Costs:
    """What a trade costs, on each side, in % of the amount traded.

    Attributes:
        fee_pct: taker fee.
        slippage_pct: distance of the price obtained from the price seen, by tier.
    """

    fee_pct: float = 0.30
    slippage_pct: Mapping[str, float] = field(default_factory=lambda: _by_tier(0.15, 0.25, 0.50, 0.75))

    def break_even_pct(self, tier: str) -> float:
        """The gross return that leaves nothing after both sides' costs, %."""
        fee, slippage = self.fee_pct / 100, self.slippage_pct[tier] / 100
        return 100 * ((1 + fee) * (1 + slippage) / ((1 - fee) * (1 - slippage)) - 1)

    def net_return_pct(self, tier: str, gross_return_pct: float) -> float:
        """Return on the capital committed, after fees and slippage of both sides, %.

        Each level of a grid pays the same rates, so the net return of a grid follows from its gross return too.
        """
        fee, slippage = self.fee_pct / 100, self.slippage_pct[tier] / 100
        bought = 1 / (1 + slippage)
        proceeds = bought * (1 + gross_return_pct / 100) * (1 - slippage)
        return 100 * (proceeds * (1 - fee) - 1 - fee)


@dataclass(frozen=True)
class Exits:
    """Take profit above and stop loss below the average entry, both positive, %."""

    tp_pct: float
    sl_pct: float


@dataclass(frozen=True)
class Grid:
    """Buy orders below the entry, of equal amounts.

    Attributes:
        levels: number of orders.
        spacing_pct: distance from one level to the next.
        start_frac: first level as a fraction of the entry.
    """

    levels: int = 5
    spacing_pct: float = 1.0
    start_frac: float = 0.995

    def prices(self, entry: float) -> list[float]:
        """The prices of the orders, highest first, for an entry at `entry`."""
        return [
            entry * self.start_frac * (1 - self.spacing_pct / 100) ** level for level in range(self.levels)
        ]


def _default_exits() -> dict[str, Exits]:
    return {LARGE: Exits(10, 8), MID: Exits(10, 8), SMALL: Exits(15, 10), MEME: Exits(15, 10)}


@dataclass(frozen=True)
class StrategyConfig:
    """Everything that decides setups and labels of the DCA strategy.

    Attributes:
        tiers: coin (base currency) to tier; a coin that is not listed is `default_tier`.
        default_tier: tier of every other coin.
        drop_pct: a setup needs the close this far below the highest high of `drop_bars`, negative, %.
        drop_pct_by_tier: the same by tier, used instead where `use_tier_drops`.
        use_tier_drops: whether the drop depends on the tier; off, as tier values are not calibrated.
        drop_bars: 15m bars of the high, signal bar included.
        min_drop_bars: how many of them must exist.
        cool_down_bars: fewest 15m bars from one event of a symbol to the next.
        exits: take profit and stop loss by tier.
        horizon_hours: longest holding time.
        grid: the orders.
        break_even_band_pct: a timed exit within this net return of 0 is BREAKEVEN.
        costs: fees and slippage.

    Raises:
        ValueError: a value contradicts itself; the text names the field.
    """

    tiers: Mapping[str, str] = field(default_factory=dict)
    default_tier: str = SMALL
    drop_pct: float = -5.0
    drop_pct_by_tier: Mapping[str, float] = field(default_factory=lambda: _by_tier(-3, -4, -5, -6))
    use_tier_drops: bool = False
    drop_bars: int = 16
    min_drop_bars: int = 14
    cool_down_bars: int = 60
    exits: Mapping[str, Exits] = field(default_factory=_default_exits)
    horizon_hours: int = 72
    grid: Grid = field(default_factory=Grid)
    break_even_band_pct: float = 2.0
    costs: Costs = field(default_factory=Costs)

    def __post_init__(self) -> None:
        """Refuse values that contradict themselves."""
        problems = [*self._tier_problems(), *self._rule_problems()]
        if not problems:
            problems = self._exit_problems()
        if problems:
            raise ValueError("strategy configuration: " + "; ".join(problems))

    def _tier_problems(self) -> list[str]:
        unknown = sorted({*self.tiers.values(), self.default_tier} - set(TIERS))
        found = [f"unknown tiers {unknown}, known are {', '.join(TIERS)}"] if unknown else []
        tables: tuple[tuple[str, Mapping[str, object]], ...] = (
            ("exits", self.exits),
            ("drop_pct_by_tier", self.drop_pct_by_tier),
            ("costs.slippage_pct", self.costs.slippage_pct),
        )
        wrong = [name for name, table in tables if set(table) != set(TIERS)]
        found += [f"{name} must name exactly the tiers {', '.join(TIERS)}" for name in wrong]
        return found

    def _rule_problems(self) -> list[str]:
        rules = {
            "drop_pct must be between -100 and 0": -100 < self.drop_pct < 0,
            "drop_pct_by_tier must be between -100 and 0": all(
                -100 < drop < 0 for drop in self.drop_pct_by_tier.values()
            ),
            "min_drop_bars must be between 1 and drop_bars": 1 <= self.min_drop_bars <= self.drop_bars,
            "drop_bars must be at most 96": self.drop_bars <= 96,
            "cool_down_bars must not be negative": self.cool_down_bars >= 0,
            "cool_down_bars must be at most 7 days": self.cool_down_bars <= _MEMORY_BARS,
            "horizon_hours must be positive and at most 7 days": 0 < 4 * self.horizon_hours <= _MEMORY_BARS,
            "grid.levels must be positive": self.grid.levels > 0,
            "grid.start_frac must be above 0 and at most 1": 0 < self.grid.start_frac <= 1,
            "grid.spacing_pct must be between 0 and 100": 0 < self.grid.spacing_pct < 100,
            "break_even_band_pct must not be negative": self.break_even_band_pct >= 0,
            "costs must be between 0 and 100": all(
                0 <= cost < 100 for cost in (self.costs.fee_pct, *self.costs.slippage_pct.values())
            ),
        }
        return [problem for problem, holds in rules.items() if not holds]

    def _exit_problems(self) -> list[str]:
        found = []
        for tier, exits in self.exits.items():
            costs = self.costs.break_even_pct(tier)
            if exits.tp_pct <= costs:
                target = f"the {tier} target of {exits.tp_pct:g} %"
                found.append(
                    f"{target} is not above its costs of {costs:.2f} % (fees and slippage of both sides)"
                )
            if not 0 < exits.sl_pct < 100:
                found.append(f"the {tier} stop of {exits.sl_pct:g} % must be between 0 and 100")
        return found

    @property
    def config_version(self) -> str:
        """Short hash of the rules.

        Without `tiers`: the universe has its own version, and every setup carries its tier. Adding one coin would
        otherwise rename every setup of every other coin.
        """
        content = {name: value for name, value in asdict(self).items() if name != "tiers"}
        text = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def tier_of(self, base: str) -> str:
        """The tier of a coin."""
        return self.tiers.get(base, self.default_tier)

    def drop_of(self, tier: str) -> float:
        """The drop that a setup of this tier needs, negative, %."""
        return self.drop_pct_by_tier[tier] if self.use_tier_drops else self.drop_pct
