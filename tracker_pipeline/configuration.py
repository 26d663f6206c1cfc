"""The content of the YAML file, typed: every key, its type, its default and what it must agree with.

What belongs here: declarations and their validation. What does not: reading the file and the environment
(`settings`).
"""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# How venues list many of a cheap coin as one: 1000PEPE, SHIB1000, 1MBABYDOGE.
_MULTIPLES = ("1000", "10000", "100000", "1000000", "1M")


class UniverseSymbol(_Strict):
    """One coin of the universe.

    Attributes:
        base: the coin.
        group: one of the universe's groups.
        tier: sets thresholds, exits and slippage.
        formerly: names it had before.
        since: from when on its ticker means this coin and no other; bars before are another coin's.
        venues: what a venue calls it, where that is another name.
    """

    base: str = Field(min_length=1)
    group: str
    tier: Literal["large_cap", "mid_cap", "small_cap", "memecoin"]
    formerly: tuple[str, ...] = ()
    since: date | None = None
    venues: Mapping[str, str] = Field(default_factory=dict)


class Universe(_Strict):
    """The coins that are tracked, versioned.

    Attributes:
        version: raised with every change.
        groups: how many coins each group has.
        symbols: the coins.
    """

    version: int
    groups: Mapping[str, int] = Field(min_length=1)
    symbols: tuple[UniverseSymbol, ...] = Field(min_length=1)

    @field_validator("symbols")
    @classmethod
    def _unique(cls, symbols: tuple[UniverseSymbol, ...]) -> tuple[UniverseSymbol, ...]:
        names = Counter(name for s in symbols for name in (s.base, *s.formerly))
        repeated = [name for name, count in names.items() if count > 1]
        if repeated:
            raise ValueError(f"these coins are listed twice: {', '.join(repeated)}")
        return symbols

    @model_validator(mode="after")
    def _grouped(self) -> Self:
        counts = Counter(symbol.group for symbol in self.symbols)
        unknown = [symbol.base for symbol in self.symbols if symbol.group not in self.groups]
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: the group is not one of {', '.join(self.groups)}")
        wrong = [
            f"{name} has {counts[name]} coins, not {size}"
            for name, size in self.groups.items()
            if counts[name] != size
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def tiers(self) -> dict[str, str]:
        """Tier by every name that a coin goes by, multiples such as 1000PEPE included."""
        return {
            form: symbol.tier
            for symbol in self.symbols
            for name in (symbol.base, *symbol.formerly, *symbol.venues.values())
            for form in (name, *(f"{m}{name}" for m in _MULTIPLES), *(f"{name}{m}" for m in _MULTIPLES))
        }

    def spread(self, count: int | None) -> tuple[UniverseSymbol, ...]:
        """The first `count` symbols taken from the groups in turn, so that a sample has every kind."""
        groups: dict[str, list[UniverseSymbol]] = {}
        for symbol in self.symbols:
            groups.setdefault(symbol.group, []).append(symbol)
        longest = max(len(members) for members in groups.values())
        in_turn = [members[i] for i in range(longest) for members in groups.values() if i < len(members)]
        return tuple(in_turn[:count])


class ExchangeSource(_Strict):
    """Bars from the venue itself, through ccxt."""

    kind: Literal["exchange"]


class DumpsSource(_Strict):
    """Bars from the dump files that Binance publishes, in a folder or behind a URL."""

    kind: Literal["dumps"]
    location: str = "https://s3-ap-northeast-1.amazonaws.com/data.binance.vision"


class MassiveSource(_Strict):
    """Bars from Massive's (formerly Polygon's) aggregates; the key is in the variable that `api_key_env` names."""

    kind: Literal["massive"]
    url: str = "https://api.massive.com"
    api_key_env: str = "MASSIVE_API_KEY"
    requests_per_second: float | None = Field(default=None, gt=0)


class FilesSource(_Strict):
    """Bars from Parquet, CSV or Feather files."""

    kind: Literal["files"]
    paths: tuple[Path, ...] = Field(min_length=1)


SourceConfig = Annotated[
    ExchangeSource | DumpsSource | MassiveSource | FilesSource, Field(discriminator="kind")
]


class Market(_Strict):
    """Which exchange and which of its markets, and which of its bars are asked for.

    Attributes:
        venue: ccxt exchange id.
        market_type: spot or linear.
        quote: quote currency.
        reference: the coin that regimes are judged on.
        native_timeframes: those that the exchange is asked for; coarser ones are made of them.
    """

    venue: str
    market_type: Literal["spot", "linear"]
    quote: str
    reference: str
    source: SourceConfig
    native_timeframes: tuple[Literal["1m", "5m", "15m", "1h", "4h", "1d"], ...] = Field(min_length=1)

    def symbol(self, base: str) -> str:
        """The unified symbol of a coin on this market."""
        suffix = f":{self.quote}" if self.market_type == "linear" else ""
        return f"{base}/{self.quote}{suffix}"


class DiscoveryConfig(_Strict):
    """Which transfers make candidates, and how candidates become watched addresses.

    Attributes:
        least: asset to the smallest transfer that counts, in whole ether or tokens; an asset that is not named is
            not scanned.
        accept: `by_list`: candidates are proposals, and those wanted go into an address list. `automatic`: every
            account (no contract) that was found enters at the next materialization of the universe.
        blocks_per_request: blocks whose events are asked for at once.
    """

    least: Mapping[str, Annotated[float, Field(gt=0)]]
    accept: Literal["by_list", "automatic"]
    blocks_per_request: int = Field(gt=0)


class ChainConfig(_Strict):
    """Which network is read and how.

    Attributes:
        top: how many of the largest addresses of either snapshot a score speaks of; None for all.
        min_balance_eth: and how much an address must have held in either; ranks and floors apply after all were
            read.
    """

    network: str
    multicall3: str
    state_override: bool
    addresses_per_call: int = Field(gt=0)
    confirmations: int = Field(ge=0)
    lookback_hours: tuple[int, ...] = Field(min_length=1)
    max_unknown_frac: float = Field(ge=0, le=1)
    top: int | None = Field(gt=0)
    min_balance_eth: float = Field(ge=0)
    discovery: DiscoveryConfig


class ArchiveConfig(_Strict):
    """Which files say when the rows of a table move to the lake; see `storage.archive_policy`."""

    policies: tuple[str, ...] = Field(min_length=1)


class AutomationConfig(_Strict):
    """How much a tick may ask for."""

    catch_up_days: int = Field(ge=1)
    most_hours: int = Field(ge=1)
    most_days: int = Field(ge=1)

    @property
    def catch_up(self) -> timedelta:
        """How far before its own moment a tick looks for what is missing."""
        return timedelta(days=self.catch_up_days)


class OperationsConfig(_Strict):
    """What counts as healthy, how much is said about the rest, and how long Dagster's records are kept."""

    freshness_minutes: Mapping[str, Annotated[int, Field(ge=1)]]
    reminder_hours: float = Field(gt=0)
    settle_minutes: float = Field(ge=0)
    cooldown_minutes: float = Field(ge=0)
    least_free_disk_gib: float = Field(ge=0)
    most_instance_gib: float = Field(gt=0)
    keep_run_days: int = Field(ge=1)
    report_timezone: str

    @field_validator("report_timezone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{name} is no time zone such as Europe/Berlin") from error
        return name


class TokenConfig(_Strict):
    """An ERC-20 token whose balances are read beside the native ones."""

    address: str
    decimals: int = Field(default=18, ge=0, le=77)


class PriceFeedConfig(_Strict):
    """A contract that answers `latestRoundData()`, and how old its answer may be."""

    address: str
    decimals: int = Field(default=18, ge=0, le=77)
    max_age_hours: float = Field(default=25, gt=0)


class NetworkConfig(_Strict):
    """One network: where it is read, and what on it.

    Attributes:
        chain_id: what each endpoint must say it serves.
        rpc_urls: JSON-RPC endpoints in order of preference.
        rpc_urls_env: the variable that holds them, separated by commas, where they are secret.
        address_lists: files or URLs of addresses to watch.
        exclusion_lists: files or URLs of addresses not to watch, with the reason.
        tokens: ERC-20 tokens by name; null in the place of one takes a packaged one away.
        steth_feed: what says how much ether one stETH is worth.
        block_gap_seconds: the longest time that usually passes between two blocks, with those that were missed.
    """

    chain_id: int
    rpc_urls: tuple[str, ...] = ()
    rpc_urls_env: str | None = None
    address_lists: tuple[str, ...] = ()
    exclusion_lists: tuple[str, ...] = ()
    tokens: Mapping[str, TokenConfig] = Field(default_factory=dict)
    steth_feed: PriceFeedConfig | None = None
    block_gap_seconds: float = Field(default=60, gt=0)

    @field_validator("tokens", mode="before")
    @classmethod
    def _without_removed(cls, tokens: Any) -> Any:
        if not isinstance(tokens, Mapping):
            return tokens
        return {name: token for name, token in tokens.items() if token is not None}


class Endpoints(NetworkConfig):
    """Where data comes from in one setting.

    The fields of a network are those of `chain.network`; `networks` names others that are read beside it.
    """

    exchange_url: str | None = None
    networks: Mapping[str, NetworkConfig] = Field(default_factory=dict)


class PipelineConfig(_Strict):
    """The content of the YAML file."""

    history_start: date
    market: Market
    chain: ChainConfig
    archive: ArchiveConfig
    automation: AutomationConfig
    operations: OperationsConfig
    endpoints: Mapping[Literal["sandbox", "live"], Endpoints]
    strategies: Mapping[str, Mapping[str, Any]]
    universe: Universe

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.history_start > datetime.now(UTC).date():
            raise ValueError(f"history_start {self.history_start} lies in the future")
        if self.market.reference not in {symbol.base for symbol in self.universe.symbols}:
            raise ValueError(f"market.reference {self.market.reference} is not a coin of the universe")
        return self

    @property
    def history_start_time(self) -> datetime:
        """Start of history as an aware moment."""
        return datetime.combine(self.history_start, datetime.min.time(), UTC)
