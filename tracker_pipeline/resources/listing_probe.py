"""Since when a source serves a symbol, found out from its bars where the source does not tell.

What belongs here: the search. What does not: what is made of the answer (`domain.instruments`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from tracker_pipeline.resources.bar_source import BarSource, Fetched, Outcome

_FIRST_LOOK: Final = timedelta(days=7)
_DAY: Final = timedelta(days=1)
_FINEST: Final = "15m"


def first_bars(
    source: BarSource, symbols: Sequence[str], since: datetime, now: datetime
) -> dict[str, datetime | None]:
    """The open of each symbol's first bar at or after `since`; None where there are bars from `since` on.

    A symbol that could not be asked about, or has no bar at all, is left out: it is looked for again next time.

    Args:
        source: which is asked.
        symbols: unified symbols.
        since: start of the search, aware; a day's beginning.
        now: its end.
    """
    found: dict[str, datetime | None] = {}
    later: list[str] = []
    for symbol, fetched in source.bars_many(symbols, "1d", since, min(since + _FIRST_LOOK, now)).items():
        first = _first_open(fetched)
        if first is not None and first <= since:
            found[symbol] = None
        elif not fetched.failed:
            later.append(symbol)
    days = _first_opens(source.bars_many(later, "1d", since, now)) if later else {}
    for symbol, day in days.items():
        exact = source.bars_many([symbol], _FINEST, day, day + _DAY)[symbol]
        found[symbol] = _first_open(exact) or day
    return found


def _first_opens(answers: Mapping[str, Fetched]) -> dict[str, datetime]:
    opens = {symbol: _first_open(fetched) for symbol, fetched in answers.items()}
    return {symbol: opened for symbol, opened in opens.items() if opened is not None}


def _first_open(fetched: Fetched) -> datetime | None:
    if fetched.outcome is not Outcome.OK:
        return None
    opened = fetched.frame["ts"].min()
    return opened if isinstance(opened, datetime) else None
