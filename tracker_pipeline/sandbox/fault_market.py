"""A market with something wrong with it: outages, delistings, bars that settle late or are corrected.

What belongs here: what the faults of the market do to listings, bars and trades. What does not: which of them hold
(`faults.py`) and faults of the wire (`fault_answers.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from tracker_pipeline.sandbox.faults import Fault, Faults
from tracker_pipeline.sandbox.market import Listing, Market, grid_offset_ms
from tracker_pipeline.sandbox.series import MINUTE_MS, Bars, Trades, join, roll_up

_BEFORE_EVERYTHING = 0
_NEVER = 2**62


class FaultyMarket:
    """A market as it looks while faults hold; without any it is the market itself.

    Args:
        market: the true one.
        faults: those that hold.
        now_ms: the exchange's clock, epoch ms.
    """

    def __init__(self, market: Market, faults: Faults, now_ms: Callable[[], int]) -> None:
        self._market = market
        self._faults = faults
        self._now_ms = now_ms

    @property
    def listings(self) -> Mapping[str, Listing]:
        """What is listed now, by native name."""
        if not self._faults.of("delisting", "listing"):
            return self._market.listings
        now = self._now_ms()
        return {
            name: replace(listing, listed_ms=max(listing.listed_ms, self._listed_from(name)))
            for name, listing in self._market.listings.items()
            if not any(start <= now < end for start, end in self._unlisted(name))
        }

    def finest_minutes(self, name: str) -> int:
        """Length of the shortest bars of a symbol, minutes."""
        return self._market.finest_minutes(name)

    def bars(self, name: str, step_minutes: int, start_ms: int, end_ms: int, now_ms: int) -> Bars:
        """Bars that opened in [start_ms, end_ms) and not after `now_ms`, as they look with the faults."""
        found = self._market.bars(name, step_minutes, start_ms, end_ms, now_ms)
        for fault in self._faults.of("unfinished"):
            if fault.concerns(name):
                found = self._unfinished(found, name, step_minutes, fault.options["seconds"], now_ms)
        for fault in self._faults.of("correction"):
            if fault.concerns(name):
                found = _before_correction(found, now_ms - fault.options["minutes"] * MINUTE_MS)
        for start, end in (*self._outages(name), *self._unlisted(name)):
            found = self._without(found, name, step_minutes, (start, end), now_ms)
        return found

    def trades(self, name: str, start_ms: int, end_ms: int) -> Trades:
        """Trades of [start_ms, end_ms)."""
        found = self._market.trades(name, start_ms, end_ms)
        for start, end in (*self._outages(name), *self._unlisted(name)):
            found = found[(found.time_ms < start) | (found.time_ms >= end)]
        return found

    def _outages(self, name: str) -> list[tuple[int, int]]:
        return [_window(fault) for fault in self._faults.of("outage") if fault.concerns(name)]

    def _unlisted(self, name: str) -> list[tuple[int, int]]:
        kinds = self._faults.of("delisting", "listing")
        return [_window(fault) for fault in kinds if fault.concerns(name)]

    def _listed_from(self, name: str) -> int:
        held = (fault.options["at"] for fault in self._faults.of("listing") if fault.concerns(name))
        return max(held, default=_BEFORE_EVERYTHING)

    def _without(
        self, bars: Bars, name: str, step_minutes: int, window: tuple[int, int], now_ms: int
    ) -> Bars:
        """The bars with nothing traded in the window; a longer bar that it cuts is made of what is left."""
        step_ms, (start, end) = step_minutes * MINUTE_MS, window
        touched = (bars.open_ms < end) & (bars.open_ms + step_ms > start)
        whole = (bars.open_ms >= start) & (bars.open_ms + step_ms <= end)
        pieces = [_where(bars, ~touched)]
        for open_ms in bars.open_ms[touched & ~whole].tolist():
            fine_minutes = self._market.finest_minutes(name)
            fine = self._market.bars(name, fine_minutes, open_ms, open_ms + step_ms, now_ms)
            left = _where(fine, (fine.open_ms < start) | (fine.open_ms >= end))
            pieces.append(roll_up(left, step_ms, grid_offset_ms(step_minutes)))
        joined = join(pieces)
        return _where(joined, np.argsort(joined.open_ms, kind="stable"))

    def _unfinished(self, bars: Bars, name: str, step_minutes: int, seconds: float, now_ms: int) -> Bars:
        step_ms = step_minutes * MINUTE_MS
        ended = bars.open_ms + step_ms
        fresh = (ended <= now_ms) & (ended > now_ms - seconds * 1000)
        pieces = [_where(bars, ~fresh)]
        for open_ms in bars.open_ms[fresh].tolist():
            half = open_ms + step_ms // 2
            pieces.append(self._market.bars(name, step_minutes, open_ms, open_ms + 1, half))
        joined = join(pieces)
        return _where(joined, np.argsort(joined.open_ms, kind="stable"))


def _window(fault: Fault) -> tuple[int, int]:
    options = fault.options
    if fault.kind == "outage":
        return options["start"], options["end"]
    if fault.kind == "listing":
        return _BEFORE_EVERYTHING, options["at"]
    return options["at"], _NEVER if options["relisted"] is None else options["relisted"]


def _before_correction(bars: Bars, since_ms: int) -> Bars:
    """The bars from `since_ms` on with less volume, as when late trades are not counted yet."""
    share = np.where(bars.open_ms >= since_ms, 0.875, 1.0)
    return replace(bars, volume=bars.volume * share, turnover=bars.turnover * share)


def _where(bars: Bars, rows: np.ndarray) -> Bars:
    return Bars(*(column[rows] for column in bars.columns()))
