"""One symbol's bars in explicit windows, page by page, until the end of the window is reached.

What belongs here: how pages are asked for and when an answer is believed. What does not: frames, closedness,
several symbols (`exchange.py`).
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.resources.bar_source import EPOCH
from tracker_pipeline.resources.ccxt_session import CcxtSession
from tracker_pipeline.resources.errors import TransientError

DEFAULT_PAGE_BARS: Final = 300  # bars a page where ccxt does not know: the least that a big venue serves
_BELIEF_TRIES: Final = 3


class BarPages:
    """Walks a window of one symbol's bars page by page.

    Venues cut pages at either end, repeat them, and some ignore bounds, so a page proves only what lies between
    its first and last bar: what is left of the window on both sides is asked for again. Each such request reaches
    over to the bar that is known beside it. An answer that holds that bar and nothing more proves that nothing
    more exists; one that lacks it is a wrong answer, and never taken for an empty one. Where no bar is known yet,
    an empty answer counts when it is given twice.

    Attributes:
        done_to: end of what has been answered for so far.
        out_of_reach_to: end of what the venue does not serve, seen from its answering with later bars only.
    """

    def __init__(self, session: CcxtSession, symbol: str, timeframe: str) -> None:
        self._session = session
        self._symbol = symbol
        self._timeframe = timeframe
        self._step = duration(timeframe) // timedelta(milliseconds=1)
        self._known: dict[int, list[Any]] = {}
        self._longest_page = 0
        self.done_to = EPOCH
        self.out_of_reach_to = EPOCH

    def windows(self, first: datetime, stop: datetime) -> Iterator[list[list[Any]]]:
        """The rows [ms, open, high, low, close, volume] that open in [first, stop), window after window.

        Raises:
            TransientError: a page could not be had now.
            PermanentError: a page cannot be had.
        """
        page_bars = self._session.page_size(self._symbol, DEFAULT_PAGE_BARS)
        end = _ms(stop)
        length = max(1, page_bars - 1) * self._step  # one bar of each page overlaps the page before
        for left in range(_ms(first), end, length):
            right = min(left + length, end)
            self._walk(left, right, page_bars)
            yield [self._known[ms] for ms in sorted(self._known) if left <= ms < right]
            self._known = {ms: row for ms, row in self._known.items() if ms == max(self._known)}
            self.done_to = moment_of(right)

    def _walk(self, first: int, stop: int, page_bars: int) -> None:
        pending = [(first, stop)]
        while pending:
            left, right = pending.pop()
            inside = self._ask(left, right, page_bars)
            if not inside:
                continue
            self._known |= {row[0]: row for row in inside}
            rest = [(left, inside[0][0]), (inside[-1][0] + self._step, right)]
            pending.extend((begin, end) for begin, end in rest if begin < end)

    def _ask(self, left: int, right: int, page_bars: int) -> list[list[Any]]:
        """The rows of one answer in [left, right), ascending; none means that it is proven to have none.

        Raises:
            TransientError: its answers contradict each other.
        """
        beside = self._beside(left, right, page_bars)
        begin, end = min(beside | {left}), max(beside | {right - self._step}) + self._step
        empty = 0
        for attempt in range(_BELIEF_TRIES):
            page = self._page(begin, end, page_bars)
            inside = self._inside(page, left, right)
            # A venue that serves one bar at a time shows its neighbour alone and would hide the rest.
            if not inside and beside and self._longest_page <= 1:
                inside = self._inside(self._page(left, right, page_bars), left, right)
                if not inside:
                    return []
            if inside:
                return inside
            empty += not page
            proven = empty > 1 if not beside else beside <= {row[0] for row in page}
            if proven or (attempt and self._starts_later(page, right)):
                self._extend_reach(left, right)
                return []
        raise TransientError(
            f"{self._session.place} answered three times for {self._what(left, right)} without a bar that it has"
            " or with bars of another time; try again later"
        )

    def _beside(self, left: int, right: int, page_bars: int) -> set[int]:
        """The known bars next to [left, right) on either side, if one answer can span them."""
        found = {right} & self._known.keys()
        before = max((ms for ms in self._known if ms < left), default=None)
        last = max(found | {right - self._step})
        if before is not None and last - before < page_bars * self._step:
            found.add(before)
        return found

    def _starts_later(self, page: list[list[Any]], right: int) -> bool:
        """Whether later bars alone, with nothing earlier ever seen, show that the venue reaches back less far."""
        if not page or page[0][0] < right or any(ms < right for ms in self._known):
            return False
        self.out_of_reach_to = max(self.out_of_reach_to, moment_of(right))
        return True

    def _extend_reach(self, left: int, right: int) -> None:
        """What is empty right behind the out-of-reach part belongs to it."""
        if self.out_of_reach_to == moment_of(left):
            self.out_of_reach_to = moment_of(right)

    def _inside(self, page: list[list[Any]], left: int, right: int) -> list[list[Any]]:
        return [row for row in page if left <= row[0] < right]

    def _page(self, left: int, right: int, page_bars: int) -> list[list[Any]]:
        """One answer, ascending."""

        def fetch(client: Any) -> list[list[Any]]:
            # Some venues charge by the size asked for; but ccxt cuts answers to it, repeated rows included.
            limit = min(page_bars, 2 * (right - left) // self._step + 8)
            rows = client.fetch_ohlcv(self._symbol, self._timeframe, left, limit, {"until": right - 1})
            # ccxt takes an answer without any list of bars for one with an empty list.
            if not rows and not _holds_list(client.last_json_response):
                raise ValueError("no list of bars")
            return sorted(rows, key=lambda row: row[0])

        page = self._session.call(self._what(left, right), fetch)
        self._longest_page = max(self._longest_page, len(page))
        return page

    def _what(self, left: int, right: int) -> str:
        period = f"{moment_of(left):%Y-%m-%d %H:%M} to {moment_of(right):%Y-%m-%d %H:%M}"
        return f"{self._timeframe} bars of {self._symbol} from {period}"


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
