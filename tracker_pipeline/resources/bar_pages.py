"""One symbol's bars in explicit windows, page by page, until the end of the window is reached.

What belongs here: how pages are asked for and when an answer is believed. What does not: frames, closedness,
several symbols (`exchange.py`).
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.resources.ccxt_session import CcxtSession

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_DEFAULT_PAGE: Final = 300  # bars a page where ccxt does not know: the least that a big venue serves


class BarPages:
    """Walks a window of one symbol's bars page by page.

    Venues cut pages at either end and some ignore bounds, so a page proves only what lies between its first
    and last bar: what is left of the window on both sides is asked for again, until the answer is empty. A
    window ends when its end has been reached, never because a page was short.

    Attributes:
        out_of_reach_to: end of what the venue does not serve, seen from its answering with later bars only.
    """

    def __init__(self, session: CcxtSession, symbol: str, timeframe: str) -> None:
        self._session = session
        self._symbol = symbol
        self._timeframe = timeframe
        self._step_ms = _ms(EPOCH + duration(timeframe))
        self.out_of_reach_to = EPOCH
        self._earliest_ms: int | None = None

    def rows(self, first: datetime, stop: datetime) -> Iterator[list[Any]]:
        """The rows [ms, open, high, low, close, volume] that open in [first, stop), page after page.

        Raises:
            TransientError: a page could not be had now.
            PermanentError: a page cannot be had.
        """
        size = self._session.page_size(self._symbol, _DEFAULT_PAGE)
        for left in range(_ms(first), _ms(stop), size * self._step_ms):
            yield from self._window(left, min(left + size * self._step_ms, _ms(stop)), size)

    def _window(self, first: int, stop: int, size: int) -> Iterator[list[Any]]:
        pending = [(first, stop)]
        while pending:
            left, right = pending.pop()
            page = self._page(left, right, size)
            inside = [row for row in page if left <= row[0] < right]
            if not inside:
                self._note_reach(right, page)
                continue
            yield from inside
            earliest, latest = min(row[0] for row in inside), max(row[0] for row in inside)
            self._earliest_ms = min(earliest, self._earliest_ms or earliest)
            rest = [(left, earliest), (latest + self._step_ms, right)]
            pending.extend((begin, end) for begin, end in rest if begin < end)

    def _note_reach(self, right: int, page: list[list[Any]]) -> None:
        """An answer with later bars alone, and nothing earlier seen, means that the venue starts later."""
        is_later = bool(page) and min(row[0] for row in page) >= right
        if is_later and (self._earliest_ms is None or self._earliest_ms >= right):
            self.out_of_reach_to = max(self.out_of_reach_to, moment_of(right))

    def _page(self, left: int, right: int, size: int) -> list[list[Any]]:
        def fetch(client: Any) -> list[list[Any]]:
            rows = client.fetch_ohlcv(self._symbol, self._timeframe, left, size, {"until": right - 1})
            # ccxt takes an answer without any list of bars for one with an empty list.
            if not rows and not _holds_list(client.last_json_response):
                raise ValueError("no list of bars")
            return list(rows)

        period = f"{moment_of(left):%Y-%m-%d %H:%M} to {moment_of(right):%Y-%m-%d %H:%M}"
        return self._session.call(f"{self._timeframe} bars of {self._symbol} from {period}", fetch)


def moment_of(ms: int) -> datetime:
    """Epoch milliseconds as a time."""
    return EPOCH + timedelta(milliseconds=ms)


def _ms(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _holds_list(document: Any) -> bool:
    """Whether there is a list of rows, or an empty one, anywhere in a JSON document."""
    if isinstance(document, dict):
        return any(_holds_list(value) for value in document.values())
    return isinstance(document, list) and all(isinstance(row, list | dict) for row in document)
