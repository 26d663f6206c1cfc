"""What an exchange server serves: listings, bars and trades by symbol and moment.

What belongs here: the interface between a market and the server that speaks for it, and the simulated market.
What does not: its arithmetic (`prices.py`), recorded bars (`replay.py`), wire formats (`exchange.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tracker_pipeline.sandbox import prices
from tracker_pipeline.sandbox.series import DAY_MS, MINUTE_MS, Bars, Trades, join

QUOTE: Final = "USDT"

# The first coin is listed on 2020-01-01, each further one 15 days later, and none after 2023-09-11, so that
# listings differ and yet all of them are older than the pipeline's default history.
_FIRST_LISTING_MS: Final = 1_577_836_800_000
_LISTING_STEP_MS: Final = 15 * DAY_MS
_LAST_LISTING_MS: Final = _FIRST_LISTING_MS + 90 * _LISTING_STEP_MS

_WEEK_MINUTES: Final = 7 * 1440
_MONDAY_MS: Final = 4 * DAY_MS  # the epoch was a Thursday


@dataclass(frozen=True)
class Listing:
    """One symbol that the market trades.

    Attributes:
        name: the venue's own name, such as BTCUSDT.
        base: the base coin.
        listed_ms: first moment with bars, epoch ms.
        price_decimals: decimals of a price.
        amount_decimals: decimals of an amount in base currency.
    """

    name: str
    base: str
    listed_ms: int
    price_decimals: int
    amount_decimals: int


class Market(Protocol):
    """Listings by name in the order of importance, and what has traded of them."""

    @property
    def listings(self) -> Mapping[str, Listing]:
        """What is listed, by native name."""

    def finest_minutes(self, name: str) -> int:
        """Length of the shortest bars of a symbol, minutes."""

    def bars(self, name: str, step_minutes: int, start_ms: int, end_ms: int, now_ms: int) -> Bars:
        """Bars that opened in [start_ms, end_ms) and not after `now_ms`; the last may still be running."""

    def trades(self, name: str, start_ms: int, end_ms: int) -> Trades:
        """Trades of [start_ms, end_ms)."""


class SimulatedMarket:
    """The market of `prices.py` for a list of base coins, all quoted in USDT.

    Args:
        symbols: base coins in the order of their size, each once.
        seed: another seed is another history.
    """

    def __init__(self, symbols: Sequence[str], seed: int) -> None:
        coins = prices.make_coins(symbols, seed)
        self._coins = {coin.name + QUOTE: coin for coin in coins}
        self._listings = {
            coin.name + QUOTE: Listing(
                name=coin.name + QUOTE,
                base=coin.name,
                listed_ms=min(_FIRST_LISTING_MS + rank * _LISTING_STEP_MS, _LAST_LISTING_MS),
                price_decimals=coin.price_decimals,
                amount_decimals=coin.amount_decimals,
            )
            for rank, coin in enumerate(coins)
        }

    @property
    def listings(self) -> Mapping[str, Listing]:
        """What is listed, by native name."""
        return self._listings

    def finest_minutes(self, name: str) -> int:
        """Minutes of the shortest bars; the same for every symbol."""
        del name
        return 1

    def bars(self, name: str, step_minutes: int, start_ms: int, end_ms: int, now_ms: int) -> Bars:
        """Bars that opened in [start_ms, end_ms) and not after `now_ms`; the last may still be running."""
        coin, step_ms, offset_ms = self._coins[name], step_minutes * MINUTE_MS, grid_offset_ms(step_minutes)
        start_ms = max(start_ms, self._listings[name].listed_ms)
        running_ms = (now_ms - offset_ms) // step_ms * step_ms + offset_ms
        finished = prices.bars(coin, step_minutes, start_ms, min(end_ms, running_ms), offset_ms=offset_ms)
        if not start_ms <= running_ms < end_ms:
            return finished
        return join([finished, prices.running_bar(coin, running_ms, now_ms)])

    def trades(self, name: str, start_ms: int, end_ms: int) -> Trades:
        """Trades of [start_ms, end_ms)."""
        return prices.trades(self._coins[name], max(start_ms, self._listings[name].listed_ms), end_ms)


def grid_offset_ms(step_minutes: int) -> int:
    """Where the grid of bars of this length starts, epoch ms: weeks on a Monday, all others at the epoch."""
    return _MONDAY_MS if step_minutes % _WEEK_MINUTES == 0 else 0
