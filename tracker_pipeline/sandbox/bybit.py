"""The shapes in which Bybit's v5 API words bars, trades, prices and listings: numbers as decimal text.

What belongs here: one function per shape. What does not: routes and parameters (`exchange.py`), topics
(`streams.py`).
"""

from typing import Any

from tracker_pipeline.sandbox.market import QUOTE, Listing, Market
from tracker_pipeline.sandbox.series import DAY_MS, MINUTE_MS, Bars, Trades

Json = dict[str, Any]


def ticker(market: Market, listing: Listing, category: str, now_ms: int) -> Json | None:
    """The rolling 24 hours of one symbol as Bybit words them, or None if nothing traded in them."""
    step = market.finest_minutes(listing.name)
    first_ms = now_ms - DAY_MS + step * MINUTE_MS
    day = market.bars(listing.name, step, first_ms, now_ms + 1, now_ms)
    if not len(day):
        return None
    price, amount = listing.price_decimals, listing.amount_decimals
    last, opened, tick = day.close[-1], day.open[0], 10.0**-price
    row = {
        "symbol": listing.name,
        "lastPrice": f"{last:.{price}f}",
        "prevPrice24h": f"{opened:.{price}f}",
        "price24hPcnt": f"{last / opened - 1:.6f}",
        "highPrice24h": f"{day.high.max():.{price}f}",
        "lowPrice24h": f"{day.low.min():.{price}f}",
        "volume24h": f"{day.volume.sum():.{amount}f}",
        "turnover24h": f"{day.turnover.sum():.4f}",
        "bid1Price": f"{last - tick:.{price}f}",
        "bid1Size": f"{day.volume[-1] + 10.0**-amount:.{amount}f}",
        "ask1Price": f"{last + tick:.{price}f}",
        "ask1Size": f"{day.volume[-1] + 10.0**-amount:.{amount}f}",
    }
    if category == "linear":
        row |= {"markPrice": row["lastPrice"], "indexPrice": row["lastPrice"], "openInterestValue": "0"}
    return row


def kline_rows(found: Bars, listing: Listing) -> list[list[str]]:
    """Bars newest first, each a list of texts: time in ms, open, high, low, close, volume, turnover."""
    price, amount = listing.price_decimals, listing.amount_decimals
    rows = zip(*(column.tolist() for column in found[::-1].columns()), strict=True)
    return [
        [str(ms), *(f"{p:.{price}f}" for p in (o, h, low, c)), f"{volume:.{amount}f}", f"{turnover:.4f}"]
        for ms, o, h, low, c, volume, turnover in rows
    ]


def spot_instrument(listing: Listing) -> Json:
    """A listing as the category spot describes it; without a launch time, as on Bybit."""
    step = f"{10.0**-listing.amount_decimals:.{listing.amount_decimals}f}"
    return {
        "symbol": listing.name,
        "baseCoin": listing.base,
        "quoteCoin": QUOTE,
        "innovation": "0",
        "status": "Trading",
        "marginTrading": "none",
        "lotSizeFilter": {
            "basePrecision": step,
            "quotePrecision": "0.00000001",
            "minOrderQty": step,
            "maxOrderQty": "1000000000000",
            "minOrderAmt": "1",
            "maxOrderAmt": "4000000",
        },
        "priceFilter": {"tickSize": f"{10.0**-listing.price_decimals:.{listing.price_decimals}f}"},
    }


def linear_instrument(listing: Listing) -> Json:
    """A listing as the category linear describes it."""
    tick = f"{10.0**-listing.price_decimals:.{listing.price_decimals}f}"
    step = f"{10.0**-listing.amount_decimals:.{listing.amount_decimals}f}"
    return {
        "symbol": listing.name,
        "contractType": "LinearPerpetual",
        "status": "Trading",
        "baseCoin": listing.base,
        "quoteCoin": QUOTE,
        "settleCoin": QUOTE,
        "launchTime": str(listing.listed_ms),
        "deliveryTime": "0",
        "deliveryFeeRate": "",
        "priceScale": str(listing.price_decimals),
        "leverageFilter": {"minLeverage": "1", "maxLeverage": "50.00", "leverageStep": "0.01"},
        "priceFilter": {"minPrice": tick, "maxPrice": "1999999.8", "tickSize": tick},
        "lotSizeFilter": {"minOrderQty": step, "maxOrderQty": "1000000000000", "qtyStep": step},
        "unifiedMarginTrade": True,
        "fundingInterval": 480,
        "isPreListing": False,
    }


def recent_trades(found: Trades, listing: Listing) -> list[Json]:
    """Trades as REST words them, in the order given."""
    return [
        {
            "execId": str(number),
            "symbol": listing.name,
            "price": f"{price:.{listing.price_decimals}f}",
            "size": f"{amount:.{listing.amount_decimals}f}",
            "side": "Buy" if is_buy else "Sell",
            "time": str(time_ms),
            "isBlockTrade": False,
        }
        for number, time_ms, price, amount, is_buy in zip(*found.columns(), strict=True)
    ]


def pushed_trades(found: Trades, listing: Listing) -> list[Json]:
    """Trades as the topic publicTrade words them, oldest first."""
    return [
        {
            "T": int(time_ms),
            "s": listing.name,
            "S": "Buy" if is_buy else "Sell",
            "v": f"{amount:.{listing.amount_decimals}f}",
            "p": f"{price:.{listing.price_decimals}f}",
            "i": str(number),
            "BT": False,
        }
        for number, time_ms, price, amount, is_buy in zip(*found.columns(), strict=True)
    ]


def pushed_bars(found: Bars, listing: Listing, interval: str, step_ms: int, now_ms: int) -> list[Json]:
    """Bars as the topic kline words them, oldest first; those that are over at `now_ms` are confirmed."""
    return [
        {
            "start": int(open_ms),
            "end": int(open_ms) + step_ms - 1,
            "interval": interval,
            "open": opened,
            "close": close,
            "high": high,
            "low": low,
            "volume": volume,
            "turnover": turnover,
            "confirm": int(open_ms) + step_ms <= now_ms,
            "timestamp": now_ms,
        }
        for open_ms, opened, high, low, close, volume, turnover in reversed(kline_rows(found, listing))
    ]
