"""What the universe asks for joined with what a venue lists, and how that changes from one look to the next.

What belongs here: names, multiples, aliases and listing intervals. What does not: asking the venue (`resources`) and
where the coins come from (`settings`).
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import polars as pl

from tracker_pipeline.domain.schemas import INSTRUMENTS

Row = dict[str, Any]

_MULTIPLE: Final = re.compile(r"(?P<before>1M|10{3,})?(?P<name>.+?)(?P<after>10{3,})?")
# A venue that lists so few of what it listed before has answered wrongly; real delistings come one by one.
_MOST_VANISHED_FRAC: Final = 0.2
_FEW: Final = 5
_SAME_LISTING: Final = timedelta(days=1)  # a symbol back on the list after less than this had never left


@dataclass(frozen=True)
class Coin:
    """What is asked for.

    Attributes:
        name: the coin.
        tier: its tier.
        venue_name: what the venue calls it, where that is another name.
        formerly: names it had before.
        since: from when on its ticker means this coin.
    """

    name: str
    tier: str
    venue_name: str | None = None
    formerly: tuple[str, ...] = ()
    since: date | None = None


def tracked(listed: pl.DataFrame, coins: Iterable[Coin], *, quote: str) -> pl.DataFrame:
    """The listed instruments of these coins.

    A coin is found under the venue's name for it, its own, or a multiple of it such as 1000PEPE; of several the
    smallest multiple is taken. Former names that are still listed are instruments of their own, aliases of today's.

    Args:
        listed: venue, symbol, base, quote, native_symbol, market_type, listed_from and listed_to.
        coins: what is asked for.
        quote: the quote currency.

    Returns:
        The columns of `listed` with coin, tier, multiplier and alias_of, sorted by symbol.
    """
    by_name: dict[str, list[tuple[int, Row]]] = {}
    for row in listed.filter(pl.col("quote") == quote).iter_rows(named=True):
        for multiplier, name in _readings(row["base"]):
            by_name.setdefault(name, []).append((multiplier, row))
    schema = pl.Schema(listed.schema)
    schema |= {"coin": pl.String(), "tier": pl.String(), "multiplier": pl.Int64(), "alias_of": pl.String()}
    rows = [row for coin in coins for row in _instruments_of(coin, by_name)]
    return pl.DataFrame(rows, schema=schema, orient="row").unique("symbol", keep="first").sort("symbol")


def after_a_look(
    known: pl.DataFrame,
    now_tracked: pl.DataFrame,
    listed: Sequence[str],
    *,
    at: datetime,
    first_bars: Mapping[str, datetime | None],
    last_bars: Mapping[str, datetime],
) -> pl.DataFrame:
    """The instruments of one venue and market after a look at its list.

    An instrument that left the list is closed at its last proof of life: the end of its newest bar, or the day it was
    last seen. One that came back gets another interval, unless its bars show that it had not been away.

    Args:
        known: rows of `market.instruments` of this venue and market.
        now_tracked: from `tracked`.
        listed: every symbol on the list, tracked or not.
        at: when the venue was asked.
        first_bars: of symbols that are new or back, the first bar that was found, None if there was one from the
            beginning on; one that is absent could not be looked for and is unexplored still.
        last_bars: of symbols that left, the end of the newest stored bar.

    Returns:
        The rows that there are to write, in the columns of `market.instruments`.

    Raises:
        ValueError: so many left at once that the list is not to be believed.
    """
    before = {row["symbol"]: row for row in known.iter_rows(named=True)}
    rows = [
        _seen(row, before.get(row["symbol"], {}), first_bars, at) for row in now_tracked.iter_rows(named=True)
    ]
    gone = left_the_list(known, listed)
    open_before = [row for row in before.values() if row["listed_to"] is None]
    if len(gone) > max(_FEW, _MOST_VANISHED_FRAC * len(open_before)):
        raise ValueError(
            f"{len(gone)} of {len(open_before)} instruments are no longer listed, such as {gone[0]};"
            " that many do not leave at once"
        )
    rows += [_closed(before[symbol], last_bars.get(symbol), at) for symbol in gone]
    return INSTRUMENTS.conform(pl.DataFrame(rows, schema=INSTRUMENTS.polars_schema))


def left_the_list(known: pl.DataFrame, listed: Iterable[str]) -> list[str]:
    """Symbols of open instruments that are no longer listed."""
    still = set(listed)
    open_now = known.filter(pl.col("listed_to").is_null(), pl.col("seen_on").is_not_null())
    return [symbol for symbol in open_now["symbol"].sort() if symbol not in still]


def unexplored(known: pl.DataFrame, now_tracked: pl.DataFrame) -> list[tuple[str, datetime | None]]:
    """Symbols whose first bar has to be looked for, and the end of their last listing, if they had one."""
    before = {row["symbol"]: row for row in known.iter_rows(named=True)}
    found: list[tuple[str, datetime | None]] = []
    for row in now_tracked.iter_rows(named=True):
        past = before.get(row["symbol"], {})
        if past.get("listed_to") is not None:
            found.append((row["symbol"], past["listed_to"]))
        elif row["listed_from"] is None and past.get("seen_on") is None:
            found.append((row["symbol"], None))
    return found


def listing_intervals(instruments: pl.DataFrame) -> pl.DataFrame:
    """One row for each time that an instrument was listed: venue, symbol, listed_from, listed_to; null is open."""
    rows = [
        (row["venue"], row["symbol"], start, end)
        for row in instruments.iter_rows(named=True)
        for start, end in _intervals(row)
    ]
    moment = pl.Datetime("us", "UTC")
    schema = pl.Schema(
        {"venue": pl.String(), "symbol": pl.String(), "listed_from": moment, "listed_to": moment}
    )
    return pl.DataFrame(rows, schema=schema, orient="row").sort("venue", "symbol", "listed_from")


def _readings(base: str) -> Iterable[tuple[int, str]]:
    """The multiples and names that a base currency can stand for."""
    yield 1, base
    match = _MULTIPLE.fullmatch(base)
    if match is not None and (match["before"] or match["after"]):
        for part in (match["before"], match["after"]):
            if part is not None:
                name = base.removeprefix(part) if part == match["before"] else base.removesuffix(part)
                yield (10**6 if part == "1M" else int(part)), name


def _instruments_of(coin: Coin, by_name: Mapping[str, list[tuple[int, Row]]]) -> Iterable[Row]:
    names = (coin.venue_name or coin.name, coin.name)
    own = [by_name[name] for name in names if name in by_name]
    current: str | None = None
    if own:
        multiplier, row = min(own[0], key=lambda found: found[0])
        current = row["symbol"]
        since = None if coin.since is None else datetime.combine(coin.since, datetime.min.time(), UTC)
        listed_from = max((m for m in (row["listed_from"], since) if m is not None), default=None)
        yield {
            **row,
            "coin": coin.name,
            "tier": coin.tier,
            "multiplier": multiplier,
            "alias_of": None,
            "listed_from": listed_from,
        }
    for name in coin.formerly:
        for multiplier, row in by_name.get(name, []):
            named = {"coin": coin.name, "tier": coin.tier, "multiplier": multiplier, "alias_of": current}
            yield {**row, **named}


def _seen(row: Row, past: Row, first_bars: Mapping[str, datetime | None], at: datetime) -> Row:
    """A listed instrument: a new one, one that is still there, or one that came back."""
    first_bar = first_bars.get(row["symbol"])
    explored = row["listed_from"] or past.get("seen_on") or row["symbol"] in first_bars
    intervals = _intervals(past) if past else []
    started = max((m for m in (row["listed_from"], first_bar) if m is not None), default=None)
    if not intervals:
        intervals = [(started, row["listed_to"])]
    elif intervals[-1][1] is not None:
        left = intervals[-1][1]
        back = started if started is not None and started > left else at
        if back - left <= _SAME_LISTING:
            intervals[-1] = (intervals[-1][0], row["listed_to"])
        else:
            intervals.append((back, row["listed_to"]))
    else:
        intervals[-1] = (started if intervals[-1][0] is None else intervals[-1][0], row["listed_to"])
    return {
        **row,
        "liquidity_class": past.get("liquidity_class"),
        **_listing(intervals),
        "seen_on": at.date() if explored else None,
    }


def _closed(past: Row, last_bar_end: datetime | None, at: datetime) -> Row:
    seen = datetime.combine(past["seen_on"], datetime.min.time(), UTC)
    ended = min(at, max(moment for moment in (seen, last_bar_end) if moment is not None))
    intervals = _intervals(past)
    intervals[-1] = (intervals[-1][0], ended)
    return {**past, **_listing(intervals)}


def _intervals(row: Row) -> list[tuple[datetime | None, datetime | None]]:
    if row.get("listings") is None:
        return [(row.get("listed_from"), row.get("listed_to"))]
    return [(_moment(one["from"]), _moment(one["to"])) for one in json.loads(row["listings"])]


def _listing(intervals: Sequence[tuple[datetime | None, datetime | None]]) -> Row:
    texts = [{"from": _text(start), "to": _text(end)} for start, end in intervals]
    return {
        "listed_from": intervals[0][0],
        "listed_to": intervals[-1][1],
        "listings": json.dumps(texts, separators=(", ", ": ")),
    }


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()
