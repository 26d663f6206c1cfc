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
_PROVEN: Final = 6


class BarPages:
    """Walks a window of one symbol's bars page by page.

    Venues cut pages at either end, repeat them, and some ignore bounds, so a page proves only what lies between
    its first and last bar: what is left of the window on both sides is asked for again. Each such request reaches
    over to the bar that is known beside it. An answer that holds that bar and nothing more proves that nothing
    more exists; one that lacks it, or holds bars from before what was asked for, is a wrong answer and never taken
    for an empty one. Where no page was ever seen to span that much, and where the venue answers with later bars as
    well, it takes two such answers, to two different questions; where no bar is known yet, three empty ones.

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
        self._longest_span = 0  # ms from the first to the end of the last bar of any answer
        self._is_cut = False
        # The last question that brought rows, and they.
        self._answered: tuple[tuple[int, int | None], set[str]] = ((0, 0), set())
        self._repeated = False
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
            if self._is_cut and right - left > self._longest_span:
                pending.append((left + self._longest_span, right))
                right = left + self._longest_span
            inside = self._ask(left, right, page_bars)
            if not inside:
                continue
            # What was left over of an answer holds bars: this venue's pages are shorter than was asked for.
            self._is_cut |= (left, right) != (first, stop)
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
        proof = later = 0
        for attempt in range(_BELIEF_TRIES):
            page = self._page(begin, end, page_bars, bounded=attempt != 1)
            inside = [row for row in page if left <= row[0] < right]
            if inside:
                return inside
            # Asked without an end, a venue shows what comes next, and so that nothing comes before.
            shows_next = attempt == 1 and not self._repeated and bool(page) and page[0][0] >= right
            if beside:
                proof += self._weight(page, beside, begin, end)
            elif not page or shows_next:
                proof += _PROVEN // 3
            later += bool(page) and page[0][0] >= right
            if proof >= _PROVEN or (later == _BELIEF_TRIES and self._starts_later(right)):
                self._extend_reach(left, right)
                return []
        raise TransientError(
            f"{self._session.place} answered three times for {self._what(left, right)} without a bar that it has"
            " or with bars of another time; try again later"
        )

    def _weight(self, page: list[list[Any]], beside: set[int], begin: int, end: int) -> int:
        """How much an answer with nothing but what stands beside the window says, of `_PROVEN`."""
        if self._repeated or not beside <= {row[0] for row in page} or page[0][0] < begin:
            return 0
        is_plain = page[-1][0] < end and end - begin <= self._longest_span
        return _PROVEN if is_plain else _PROVEN // 2

    def _beside(self, left: int, right: int, page_bars: int) -> set[int]:
        """The known bars next to [left, right) on either side, if one answer can span them."""
        found = {right} & self._known.keys()
        before = max((ms for ms in self._known if ms < left), default=None)
        last = max(found | {right - self._step})
        if before is not None and last - before < page_bars * self._step:
            found.add(before)
        return found

    def _starts_later(self, right: int) -> bool:
        """Take it that the venue reaches back no further than `right`, unless something earlier was seen."""
        if any(ms < right for ms in self._known):
            return False
        self.out_of_reach_to = max(self.out_of_reach_to, moment_of(right))
        return True

    def _extend_reach(self, left: int, right: int) -> None:
        """What is empty right behind the out-of-reach part belongs to it."""
        if self.out_of_reach_to == moment_of(left):
            self.out_of_reach_to = moment_of(right)

    def _page(self, left: int, right: int, page_bars: int, *, bounded: bool) -> list[list[Any]]:
        """One answer, ascending; without its end bounded, the venue may answer with whatever comes next."""

        def fetch(client: Any) -> list[list[Any]]:
            # Some venues charge by the size asked for; but ccxt cuts answers to it, repeated rows included.
            limit = min(page_bars, 2 * (right - left) // self._step + 8)
            until = right - 1 if bounded else None
            params = {} if until is None else {"until": until}
            rows = client.fetch_ohlcv(self._symbol, self._timeframe, left, limit, params)
            # ccxt takes an answer without any list of bars for one with an empty list.
            raw = _longest_list(client.last_json_response)
            content = {str(row) for row in raw or ()}
            if not rows and raw is None:
                raise ValueError("no list of bars")
            # ccxt leaves out rows from before what was asked for, so a page that is served again looks short.
            question, before = self._answered
            self._repeated = len(content) > len(rows) and content == before and question != (left, until)
            if content:
                self._answered = ((left, until), content)
            return sorted(rows, key=lambda row: row[0])

        page = self._session.call(self._what(left, right), fetch)
        if page:
            self._longest_span = max(self._longest_span, page[-1][0] - page[0][0] + self._step)
        return page

    def _what(self, left: int, right: int) -> str:
        period = f"{moment_of(left):%Y-%m-%d %H:%M} to {moment_of(right):%Y-%m-%d %H:%M}"
        return f"{self._timeframe} bars of {self._symbol} from {period}"


def moment_of(ms: int) -> datetime:
    """Epoch milliseconds as a time."""
    return EPOCH + timedelta(milliseconds=ms)


def _ms(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _longest_list(document: Any) -> list[Any] | None:
    """The longest list of rows anywhere in a JSON document, which may be empty; None where there is no list."""
    if isinstance(document, dict):
        lists = [found for found in map(_longest_list, document.values()) if found is not None]
        return max(lists, key=len, default=None)
    is_rows = isinstance(document, list) and all(isinstance(row, list | dict) for row in document)
    return document if is_rows else None
