"""What the configurations of all strategies share: tiers, exits, costs, their validation, and their version.

What belongs here: values that every strategy has, and the checks on them. What does not: the parameters of one
strategy (`dca.py`, `swing.py`, `channel.py`) and rules that use them.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from math import inf
from typing import Any, ClassVar, Final, TypeVar

from tracker_pipeline.domain.timeframes import duration

LARGE: Final = "large_cap"
MID: Final = "mid_cap"
SMALL: Final = "small_cap"
MEME: Final = "memecoin"
TIERS: Final = (LARGE, MID, SMALL, MEME)
MEMORY: Final = timedelta(
    days=7
)  # how long an event is remembered (`setup_events.py`); nothing may reach further
# Whoever reads a configuration must refuse names that it does not have: a misspelled fee would leave the usual one.
STRICT: Final = {"extra": "forbid"}
_T = TypeVar("_T")


def by_tier(large: _T, mid: _T, small: _T, meme: _T) -> dict[str, _T]:
    """One value for each tier."""
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

    __pydantic_config__: ClassVar = STRICT

    fee_pct: float = 0.30
    slippage_pct: Mapping[str, float] = field(default_factory=lambda: by_tier(0.15, 0.25, 0.50, 0.75))

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
    """Take profit above and stop loss below the entry, both positive, %."""

    __pydantic_config__: ClassVar = STRICT

    tp_pct: float
    sl_pct: float


@dataclass(frozen=True)
class Band:
    """A range of allowed values, both ends included."""

    __pydantic_config__: ClassVar = STRICT

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class StrategyConfig(ABC):
    """What every strategy has; each has its own subclass.

    Attributes:
        strategy: its name.
        timeframe: of the bars that it judges.
        tiers: coin (base currency) to tier; a coin that is not listed is `default_tier`.
        default_tier: tier of every other coin.
        horizon_hours: longest holding time.
        cool_down_bars: fewest bars from one event of a symbol to the next.
        break_even_band_pct: a trade left by time within this net return of 0 is BREAKEVEN.
        costs: fees and slippage.

    Raises:
        ValueError: a value contradicts itself; the text names the field.
    """

    strategy: ClassVar[str]
    timeframe: ClassVar[str]

    tiers: Mapping[str, str] = field(default_factory=dict)
    default_tier: str = SMALL
    horizon_hours: int
    cool_down_bars: int
    break_even_band_pct: float = 2.0
    costs: Costs = field(default_factory=Costs)

    def __post_init__(self) -> None:
        """Refuse values that contradict themselves."""
        problems = [*self._tier_problems(), *self._common_problems()]
        if not problems:
            problems = [text for text, holds in self._rules().items() if not holds] + self._exit_problems()
        if problems:
            raise ValueError("strategy configuration: " + "; ".join(problems))

    @abstractmethod
    def _tables(self) -> Mapping[str, Mapping[str, object]]:
        """The fields that must have a value for each tier, by name."""

    @abstractmethod
    def _rules(self) -> Mapping[str, bool]:
        """What must hold of the strategy's own fields: sentence to whether it does."""

    @abstractmethod
    def _exits(self) -> Mapping[tuple[str, str], Exits]:
        """The exits whose targets must pay their costs: name and tier to exits, the smallest possible ones."""

    def _tier_problems(self) -> list[str]:
        unknown = sorted({*self.tiers.values(), self.default_tier} - set(TIERS))
        found = [f"unknown tiers {unknown}, known are {', '.join(TIERS)}"] if unknown else []
        tables = {**self._tables(), "costs.slippage_pct": self.costs.slippage_pct}
        wrong = [name for name, table in tables.items() if set(table) != set(TIERS)]
        return found + [f"{name} must name exactly the tiers {', '.join(TIERS)}" for name in wrong]

    def _common_problems(self) -> list[str]:
        cool_down = self.cool_down_bars * duration(self.timeframe)
        horizon = timedelta(hours=self.horizon_hours)
        rules = {
            "cool_down_bars must not be negative": self.cool_down_bars >= 0,
            "cool_down_bars must be at most 7 days": cool_down <= MEMORY,
            "horizon_hours must be positive and at most 7 days": timedelta(0) < horizon <= MEMORY,
            "break_even_band_pct must not be negative": self.break_even_band_pct >= 0,
            "costs must be between 0 and 100": all(
                0 <= cost < 100 for cost in (self.costs.fee_pct, *self.costs.slippage_pct.values())
            ),
        }
        return [text for text, holds in rules.items() if not holds]

    def _exit_problems(self) -> list[str]:
        found = []
        for (name, tier), exits in self._exits().items():
            costs = self.costs.break_even_pct(tier)
            if not costs < exits.tp_pct < inf:
                target = f"the {name} target of {exits.tp_pct:.4g} %"
                found.append(
                    f"{target} is not above its costs of {costs:.2f} % (fees and slippage of both sides)"
                )
            if not 0 < exits.sl_pct < 100:
                found.append(f"the {name} stop of {exits.sl_pct:g} % must be between 0 and 100")
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
