"""Names: venues' own symbols to ccxt's unified ones, and what the name of a bar file tells.

What belongs here: rules on text. What does not: reading files (`bar_files.py`).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

MarketType = Literal["spot", "linear"]

# Longer ones before their own endings: FDUSD must not be taken for USD.
_QUOTES: Final = (
    *("FDUSD", "USDT", "USDC", "BUSD", "TUSD", "USDP", "USDE", "DAI", "USD"),
    *("EUR", "GBP", "TRY", "BRL", "JPY", "AUD", "UAH", "PLN", "RUB"),
    *("BTC", "ETH", "BNB"),
)
# The ccxt ids that a word of a file name is taken for; any other venue is named by an option or a column.
_VENUES: Final = frozenset(
    (
        *("binance", "bingx", "bitfinex", "bitget", "bitmart", "bitmex", "bitstamp", "bybit", "coinbase"),
        *("cryptocom", "deribit", "gate", "gemini", "htx", "hyperliquid", "kraken", "kucoin", "mexc", "okx"),
        *("phemex", "poloniex", "upbit", "whitebit"),
    )
)
_MARKETS: Final[dict[str, MarketType]] = {
    "spot": "spot",
    "um": "linear",
    "linear": "linear",
    "perp": "linear",
    "swap": "linear",
    "futures": "linear",
}
# Series that look like bars and are not trades.
_OTHER_SERIES: Final = frozenset({"mark", "index", "premiumIndex", "premium_index", "funding_rate"})

_SUFFIXES: Final = frozenset({".csv", ".gz", ".zip", ".parquet", ".feather", ".arrow", ".ipc"})
_TIMEFRAME: Final = re.compile(r"\d+(?:s|m|h|d|w|mo|M)")
_DUMP_NAME: Final = re.compile(
    rf"(?P<symbol>.+?)-(?P<timeframe>{_TIMEFRAME.pattern})-\d{{4}}-\d{{2}}(-\d{{2}})?"
)
_PAIR_NAME: Final = re.compile(rf"(?P<symbol>[^-]+)-(?P<timeframe>{_TIMEFRAME.pattern})(-(?P<kind>\w+))?")


@dataclass(frozen=True)
class NameFacts:
    """What a file's name and folder tell; None where they do not.

    Attributes:
        venue: ccxt exchange id.
        market_type: spot or linear.
        symbol: as the name spells it.
        timeframe: as the name spells it, ours or not.
        is_dump: whether it is named as Binance names its public dumps, such as BTCUSDT-1h-2024-11.
        other_series: what the file holds in place of traded prices, such as mark.
    """

    venue: str | None = None
    market_type: MarketType | None = None
    symbol: str | None = None
    timeframe: str | None = None
    is_dump: bool = False
    other_series: str | None = None


def unified_symbol(native: str, market_type: MarketType | None) -> str | None:
    """Return ccxt's unified symbol, or None where the text does not tell the pair or the market.

    BTCUSDT is BTC/USDT on spot and BTC/USDT:USDT on linear; BTC_USDT and BTC-USDT likewise; BTC_USDT_USDT is a
    perpetual in itself, and unified symbols stay as they are. Multipliers such as 1000PEPE stay in the base.
    """
    text = native.strip().upper()
    if ":" in text:
        return text if market_type != "spot" else None
    parts = re.split(r"[/_-]", text)
    if len(parts) == 3 and parts[1] == parts[2]:
        market_type, parts = "linear", parts[:2]
    elif len(parts) == 2:
        market_type = market_type or "spot"
    elif len(parts) == 1:
        quote = next((q for q in _QUOTES if text.endswith(q) and text != q), None)
        parts = [] if quote is None else [text.removesuffix(quote), quote]
    if len(parts) != 2 or not all(parts) or market_type is None or parts[1] not in _QUOTES:
        return None
    base, quote = parts
    return f"{base}/{quote}" if market_type == "spot" else f"{base}/{quote}:{quote}"


def native_symbol(symbol: str) -> str:
    """Binance's own name of a unified symbol: BTCUSDT for BTC/USDT and BTC/USDT:USDT."""
    return symbol.split(":", maxsplit=1)[0].replace("/", "")


def facts_of_name(path: Path) -> NameFacts:
    """Read the name of a bar file: Binance's dumps, freqtrade's PAIR-timeframe, and words between _ and -."""
    name = path.name
    while Path(name).suffix.lower() in _SUFFIXES:
        name = Path(name).stem
    words = re.split(r"[_\-. ]", name)
    folders = [word for folder in path.parts[:-1] for word in re.split(r"[_\-. ]", folder)]
    dump = _DUMP_NAME.fullmatch(name)
    if dump is not None:
        market = next((_MARKETS[word] for word in reversed(folders) if word in _MARKETS), None)
        return NameFacts("binance", market, dump["symbol"], dump["timeframe"], is_dump=True)
    venue = next((word.lower() for word in words if word.lower() in _VENUES), None)
    market_type = next((_MARKETS[word.lower()] for word in words if word.lower() in _MARKETS), None)
    pair = _PAIR_NAME.fullmatch(name)
    if pair is not None and unified_symbol(pair["symbol"], "spot") is not None:
        other = pair["kind"] if pair["kind"] in _OTHER_SERIES else None
        return NameFacts(venue, market_type, pair["symbol"], pair["timeframe"], other_series=other)
    timeframe = next((word for word in words if _TIMEFRAME.fullmatch(word)), None)
    symbol = next((word for word in words if unified_symbol(word, "spot") is not None), None)
    return NameFacts(venue, market_type, symbol, timeframe)
