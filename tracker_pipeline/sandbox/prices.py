"""A seeded market: prices, volumes and trades as a pure function of (seed, coin, time).

Nothing is stored and nothing advances: any process that asks for the same minute gets the same bar, in any
order. Coarser bars are the roll-up of the minutes, and a minute is the roll-up of its trades.

What belongs here: the arithmetic of the market. What does not: listings, wire formats, clocks (`exchange.py`)
and recorded bars (`replay.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from tracker_pipeline.sandbox.noise import (
    UNIT_STRENGTH,
    Floats,
    Hashes,
    gauss,
    hash_text,
    hashes,
    smooth,
    stream,
    walk,
)
from tracker_pipeline.sandbox.series import (
    DAY_MS,
    MINUTE_MS,
    NO_BARS,
    NO_TRADES,
    Bars,
    Ints,
    Trades,
    join,
    roll_up,
)

MINUTES_PER_DAY: Final = 1440
TRADES_PER_MINUTE: Final = 12

_MARKET_YEARLY_VOLATILITY: Final = 0.55
_FIRST_PRICE: Final = 60_000.0
_BLOCK_DAYS: Final = 64  # daily bars are computed and kept in blocks: 92,160 minutes, about 10 ms


@dataclass(frozen=True)
class Coin:
    """What makes one coin's market differ from another's.

    Attributes:
        name: the base coin, such as BTC.
        key: 64 hashed bits of (seed, name).
        market_key: the same for the market that all coins of a seed share.
        level: the price that the walk returns to over the years, in quote currency.
        beta: how much of the market's log price the coin follows.
        own_volatility: yearly standard deviation of what is its own, as a fraction.
        price_decimals: decimals of a price; the tick is one in the last of them.
        amount_decimals: decimals of an amount in base currency.
        amount_per_minute: typical amount traded in a minute, base currency.
    """

    name: str
    key: int
    market_key: int
    level: float
    beta: float
    own_volatility: float
    price_decimals: int
    amount_decimals: int
    amount_per_minute: float


def make_coins(symbols: Sequence[str], seed: int) -> list[Coin]:
    """Give each base coin its market; the earlier in the list, the bigger, calmer and dearer the coin is."""
    return [_make_coin(name, rank, seed) for rank, name in enumerate(symbols)]


def bars(coin: Coin, step_minutes: int, start_ms: int, end_ms: int, *, offset_ms: int = 0) -> Bars:
    """Return the finished bars whose open lies in [start_ms, end_ms).

    Args:
        coin: whose bars.
        step_minutes: length of a bar, in minutes.
        start_ms: earliest open, epoch ms.
        end_ms: end of the window, epoch ms; the caller sees to it that every bar in it is over.
        offset_ms: where the grid of bars starts, epoch ms; weeks start on Monday, four days after the epoch.
    """
    step_ms = step_minutes * MINUTE_MS
    first = -((offset_ms - start_ms) // step_ms)
    last = -((offset_ms - end_ms) // step_ms)
    begin, finish = first * step_ms + offset_ms, last * step_ms + offset_ms
    if finish <= begin:
        return NO_BARS
    if step_minutes % MINUTES_PER_DAY == 0:
        return roll_up(_days(coin, begin // DAY_MS, finish // DAY_MS), step_ms, offset_ms)
    return roll_up(_minutes(coin, begin // MINUTE_MS, finish // MINUTE_MS), step_ms, offset_ms)


def running_bar(coin: Coin, start_ms: int, now_ms: int) -> Bars:
    """Return the one bar that opened at `start_ms` as it stands at `now_ms`, from what has traded since."""
    today_ms, minute_ms = now_ms // DAY_MS * DAY_MS, now_ms // MINUTE_MS * MINUTE_MS
    pieces = [
        bars(coin, MINUTES_PER_DAY, start_ms, today_ms),
        bars(coin, 1, max(start_ms, today_ms), minute_ms),
        _bar_of(trades(coin, minute_ms, now_ms + 1), minute_ms, coin),
    ]
    return roll_up(join(pieces), now_ms + 1 - start_ms, start_ms)


def trades(coin: Coin, start_ms: int, end_ms: int) -> Trades:
    """Return the trades of [start_ms, end_ms), twelve a minute.

    Together they make exactly the prices and the volume of the minute's bar.
    """
    first, last = start_ms // MINUTE_MS, -(-end_ms // MINUTE_MS)
    if last <= first:
        return NO_TRADES
    minutes = _minutes(coin, first, last)
    count, per_minute = len(minutes), TRADES_PER_MINUTE
    ids = np.arange(first * per_minute, last * per_minute, dtype=np.int64)
    noise = hashes(stream(coin.key, "trades"), int(ids[0]), int(ids[-1])).reshape(count, per_minute)
    every = np.broadcast_to(np.arange(per_minute) * (MINUTE_MS // per_minute), (count, per_minute))
    jitter = (noise >> np.uint64(50)).astype(np.int64) % (MINUTE_MS // per_minute)
    jitter[:, 0] = 0  # the first trade opens the minute, so a running bar always has one
    found = Trades(
        id=ids,
        time_ms=(minutes.open_ms[:, None] + every + jitter).ravel(),
        price=_trade_prices(minutes, noise, coin.price_decimals).ravel(),
        amount=_trade_amounts(minutes, noise, coin.amount_decimals).ravel(),
        is_buy=(noise & np.uint64(1)).astype(bool).ravel(),
    )
    return found[(found.time_ms >= start_ms) & (found.time_ms < end_ms)]


def _make_coin(name: str, rank: int, seed: int) -> Coin:
    key = hash_text(f"{seed}/{name}")
    level = _FIRST_PRICE / (1 + rank) ** 5  # 60,000 and 1,875 and 247; rank 11 costs 0.24, rank 89 about 1e-5
    # The first coin moves 60 % a year; those behind it 80 to 160 %, each its own share.
    total = 0.60 if rank == 0 else 0.80 + 0.80 * (key % 1000) / 1000
    beta = 1.0 if rank == 0 else 1.1
    magnitude = int(np.floor(np.log10(level)))
    return Coin(
        name=name,
        key=key,
        market_key=hash_text(f"{seed}/the market itself"),
        level=level,
        beta=beta,
        own_volatility=float(np.sqrt(total**2 - (beta * _MARKET_YEARLY_VOLATILITY) ** 2)),
        price_decimals=max(1, 5 - magnitude),
        amount_decimals=min(6, max(0, magnitude + 1)),
        amount_per_minute=2e6 / (1 + rank) / level,  # 2 million a minute in the first coin's market
    )


@lru_cache(maxsize=2048)  # 90 coins × 20 blocks: 3.5 years of daily bars in 7 MB
def _day_block(coin: Coin, block: int) -> Bars:
    first = block * _BLOCK_DAYS * MINUTES_PER_DAY
    fine = _minutes(coin, first, first + _BLOCK_DAYS * MINUTES_PER_DAY)
    return roll_up(fine, DAY_MS)


def _days(coin: Coin, first: int, last: int) -> Bars:
    """The daily bars of the days [first, last), counted from the epoch."""
    blocks = range(first // _BLOCK_DAYS, -(-last // _BLOCK_DAYS))
    skip = first - blocks.start * _BLOCK_DAYS
    return join([_day_block(coin, block) for block in blocks])[skip : skip + last - first]


def _minutes(coin: Coin, first: int, last: int) -> Bars:
    """The 1-minute bars of the minutes [first, last), counted from the epoch."""
    market, market_activity = _market_walk(coin.market_key, first, last)
    own, own_activity = walk(stream(coin.key, "walk"), first, last)
    log_price = coin.beta * _MARKET_YEARLY_VOLATILITY * market + coin.own_volatility * own
    price = np.round(coin.level * np.exp(log_price), coin.price_decimals)
    open_, close = price[:-1], price[1:]

    activity = (market_activity * own_activity)[:-1]
    volatility = np.hypot(coin.beta * _MARKET_YEARLY_VOLATILITY, coin.own_volatility)
    reach = UNIT_STRENGTH * volatility * activity  # how far a minute's price strays beyond open and close
    wick_up, wick_down = (
        np.abs(gauss(stream(coin.key, name), first, last - 1)) for name in ("wick up", "wick down")
    )
    upper, lower = np.maximum(open_, close), np.minimum(open_, close)
    high = np.round(upper * (1 + reach * wick_up), coin.price_decimals)
    low = np.round(lower * (1 - reach * wick_down), coin.price_decimals)

    units = _volume_units(coin, np.abs(np.diff(log_price)) / reach, activity, first, last)
    volume = units / 10**coin.amount_decimals
    return Bars(
        open_ms=np.arange(first, last, dtype=np.int64) * MINUTE_MS,
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=volume,
        turnover=np.round(volume * (open_ + high + low + close) / 4, 4),
    )


def _volume_units(coin: Coin, move: Floats, activity: Floats, first: int, last: int) -> Ints:
    """Traded amount of each minute in units of the last decimal; big moves and busy hours trade more."""
    slow = smooth(stream(coin.key, "busy hours"), 6, first, last)[:-1]  # a lattice of 64 minutes
    fast = gauss(stream(coin.key, "volume"), first, last - 1)
    amount = coin.amount_per_minute * activity * np.exp(0.7 * slow + 0.4 * fast) * (0.3 + 0.5 * move)
    units: Ints = np.rint(amount * 10**coin.amount_decimals).astype(np.int64)
    units[units < TRADES_PER_MINUTE] = TRADES_PER_MINUTE  # every trade of the minute takes at least one unit
    return units


def _trade_prices(minutes: Bars, noise: Hashes, decimals: int) -> Floats:
    """Prices that open, reach the high and the low, and close where the minute's bar says."""
    count, per_minute = noise.shape
    share = (noise >> np.uint64(11)).astype(np.float64) / 2.0**53
    span = (minutes.high - minutes.low)[:, None]
    price = np.round(minutes.low[:, None] + share * span, decimals)
    price = np.clip(price, minutes.low[:, None], minutes.high[:, None])
    rows, half = np.arange(count), per_minute // 2
    price[rows, 1 + (noise[:, 0] >> np.uint64(8)) % np.uint64(half - 1)] = minutes.high
    price[rows, half + (noise[:, 0] >> np.uint64(20)) % np.uint64(half - 1)] = minutes.low
    price[:, 0], price[:, -1] = minutes.open, minutes.close
    return price


def _trade_amounts(minutes: Bars, noise: Hashes, decimals: int) -> Floats:
    """Amounts of at least one unit each that add up to the minute's volume."""
    units = np.rint(minutes.volume * 10**decimals).astype(np.int64)
    weight = 1.0 + (noise >> np.uint64(40)).astype(np.float64) / 2.0**21
    spare = (units - noise.shape[1])[:, None]
    parts = 1 + np.floor(spare * weight / weight.sum(axis=1, keepdims=True)).astype(np.int64)
    parts[:, -1] += units - parts.sum(axis=1)
    amounts: Floats = parts / 10**decimals
    return amounts


def _bar_of(found: Trades, open_ms: int, coin: Coin) -> Bars:
    """The bar that these trades make; there is at least the one that opened the minute."""
    single = {
        "open_ms": open_ms,
        "open": found.price[0],
        "high": found.price.max(),
        "low": found.price.min(),
        "close": found.price[-1],
        "volume": np.round(found.amount.sum(), coin.amount_decimals),
        "turnover": np.round((found.amount * found.price).sum(), 4),
    }
    return Bars(**{name: np.array([value]) for name, value in single.items()})


# Coins are asked for the same windows one after another, and all of them need the market's walk there.
@lru_cache(maxsize=16)
def _market_walk(key: int, first: int, last: int) -> tuple[Floats, Floats]:
    return walk(stream(key, "walk"), first, last)
