"""What the universe asks for, joined with what the venue lists, and how that changed since the last look."""

from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl
from pydantic import Field

from tracker_pipeline.assets.declaration import table_asset
from tracker_pipeline.configuration import PipelineConfig
from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.instruments import Coin, after_a_look, left_the_list, tracked, unexplored
from tracker_pipeline.domain.timeframes import TIMEFRAMES
from tracker_pipeline.resources.clients import ExchangeResource
from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.resources.listing_probe import first_bars
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage import scan

_DAY: Final = timedelta(days=1)
_NEWEST_SEEN_IN: Final = ("1d", "15m")  # timeframes whose newest bar proves that a symbol was still listed


class InstrumentsConfig(dg.Config):
    """How much of the universe is tracked."""

    symbols: int | None = Field(
        default=None,
        gt=0,
        description="Track this many coins, taken from the groups of the universe in turn; all if not given.",
    )


@table_asset(
    schemas.INSTRUMENTS,
    kinds={"polars"},
    pool="exchange",
    docs="sources.md",
    description="The coins of the universe that the exchange lists or once listed, with tier and listing intervals."
    " Every other market asset takes its symbols from here.",
)
def instruments(
    context: dg.AssetExecutionContext, config: InstrumentsConfig, exchange: ExchangeResource
) -> pl.DataFrame:
    """Ask the exchange what it lists, keep what the universe names, and date what came, left or returned."""
    with classified():
        found = listed_instruments(exchange, config.symbols)
    wanted = {coin.name for coin in _coins(get_config(), exchange.venue, config.symbols)}
    open_now = found.filter(pl.col("listed_to").is_null())
    absent = sorted(wanted - set(open_now["coin"]))
    left = found.filter(pl.col("listed_to").is_not_null())["symbol"].to_list()
    context.add_output_metadata(
        {
            "version of the universe": get_config().universe.version,
            "coins wanted": len(wanted),
            "coins listed": len(wanted) - len(absent),
            "coins not listed": ", ".join(absent) or "none",
            "symbols that left": ", ".join(left) or "none",
        }
    )
    return found


def listed_instruments(exchange: ExchangeResource, count: int | None) -> pl.DataFrame:
    """The instruments after a look at the exchange's list, in the columns of the table.

    Args:
        exchange: which is asked.
        count: how many coins of the universe are wanted; None wants all.

    Raises:
        TransientError: the exchange did not answer, or so many symbols are gone that its list is not believed.
        PermanentError: it refuses to.
    """
    source, config = exchange.client(), get_config()
    listed = source.instruments()
    at = datetime.now(UTC)
    coins = _coins(config, exchange.venue, count)
    found = tracked(listed, coins, quote=config.market.quote)
    own = (pl.col("venue") == exchange.venue) & (pl.col("market_type") == exchange.market_type)
    known = scan(schemas.INSTRUMENTS.name).filter(own).collect()
    everything = listed["symbol"].to_list()
    new = unexplored(known, found)
    opened: dict[str, datetime | None] = {}
    for since in {since for _, since in new}:
        symbols = [symbol for symbol, left in new if left == since]
        if since is None:
            opened |= first_bars(source, symbols, config.history_start_time, at)
        elif (start := _day_of(since) + _DAY) < at:
            # Bars from the day after it left show that it had never left.
            back = first_bars(source, symbols, start, at)
            opened |= {symbol: first or start for symbol, first in back.items()}
    try:
        return after_a_look(
            known,
            found,
            everything,
            at=at,
            first_bars=opened,
            last_bars=_last_bar_ends(exchange.venue, left_the_list(known, everything), at),
        )
    except ValueError as error:
        raise TransientError(f"{exchange.venue}: {error}; try again later") from None


def unlisted_coins(exchange: ExchangeResource) -> list[str]:
    """Coins of the universe that the exchange does not list now."""
    config = get_config()
    coins = _coins(config, exchange.venue, None)
    found = tracked(exchange.client().instruments(), coins, quote=config.market.quote)
    return sorted({coin.name for coin in coins} - set(found.filter(pl.col("alias_of").is_null())["coin"]))


def _coins(config: PipelineConfig, venue: str, count: int | None) -> list[Coin]:
    return [
        Coin(symbol.base, symbol.tier, symbol.venues.get(venue), symbol.formerly, symbol.since)
        for symbol in config.universe.spread(count)
    ]


def _last_bar_ends(venue: str, symbols: list[str], at: datetime) -> dict[str, datetime]:
    """End of the newest stored bar of each symbol, of the last 90 days."""
    ends: dict[str, datetime] = {}
    for timeframe in _NEWEST_SEEN_IN if symbols else ():
        chosen = (pl.col("venue") == venue) & pl.col("symbol").is_in(symbols)
        bars = scan(schemas.BARS[timeframe].name, at - 90 * _DAY, at, columns=["venue", "symbol", "ts"])
        newest = bars.filter(chosen).group_by("symbol").agg(pl.col("ts").max() + TIMEFRAMES[timeframe])
        for symbol, end in newest.collect().iter_rows():
            ends[symbol] = max(end, ends.get(symbol, end))
    return ends


def _day_of(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
