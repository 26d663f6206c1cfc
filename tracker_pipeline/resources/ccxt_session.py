"""A session with one exchange through ccxt: a few clients, paced together, every failure classified.

What belongs here: everything that knows ccxt's options, exceptions and threads. What does not: what is asked of
the exchange (`exchange.py`), and what processes know of its host together (`host_state.py`).
"""

import ipaddress
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from tracker_pipeline.resources.errors import PermanentError, PipelineError, TransientError
from tracker_pipeline.resources.host_state import LONGEST_WAIT_SECONDS, HostState, LeftAloneError
from tracker_pipeline.resources.limit_headers import retry_after, used_up_for
from tracker_pipeline.resources.retrying import attempts

Answer = TypeVar("Answer")

_DETAIL_LENGTH: Final = 200

# ccxt counts these among the failures that pass; a refused address and a wrong path do not.
_REFUSED: Final = re.compile(r" (401|403|407|451) ")
_WRONG_PATH: Final = re.compile(r" (404|405|410) ")
_ADDRESS: Final = re.compile(r"\w+://\S+")


class CcxtSession:
    """One exchange as seen through ccxt.

    ccxt's clients cannot be used by two threads at once, so each call borrows one that is idle; the markets are
    loaded once for all of them, and the venue's request limit holds for them together.

    Args:
        venue: ccxt exchange id.
        market_type: `spot` or `linear`.
        url: scheme and host that replace the venue's own; the paths stay. On this machine nothing is paced.
        timeout: of one request.
        hosts: folder in which processes share what they know of hosts; without one, this session is alone.

    Raises:
        PermanentError: ccxt knows no such exchange.
    """

    def __init__(
        self, venue: str, market_type: str, url: str | None, timeout: timedelta, hosts: Path | None = None
    ) -> None:
        import ccxt

        if venue not in ccxt.exchanges:
            raise PermanentError(f"{venue} is not an exchange that ccxt knows; correct the venue")
        self._venue = venue
        self._market_type = market_type
        self._url = url
        self._timeout = timeout
        self.place = f"{venue} at {urlsplit(url).hostname}:{urlsplit(url).port}" if url else venue
        self._host = HostState(self.place, hosts)
        self._idle: deque[Any] = deque()
        self._loading = threading.Lock()
        self._loaded: Any = None

    def call(self, what: str, function: Callable[[Any], Answer]) -> Answer:
        """Ask the exchange, with a few tries where another may help.

        Args:
            what: what is asked for, for messages.
            function: takes the ccxt client of this thread and returns the answer.

        Raises:
            TransientError: it failed and may work later.
            PermanentError: it would fail again.
        """
        for attempt in attempts():
            with attempt:
                return self._try_once(what, function)
        raise AssertionError("there is at least one attempt")

    def markets(self, *, reload: bool = False) -> dict[str, dict[str, Any]]:
        """The venue's markets by unified symbol, as ccxt describes them; loaded once unless told otherwise.

        Raises:
            TransientError: they could not be loaded now.
            PermanentError: they cannot be loaded.
        """
        with self._loading:
            if self._loaded is None or reload:
                self._loaded = self.call("the list of markets", _load_markets)
            return dict(self._loaded.markets)

    def page_size(self, symbol: str | None, default: int) -> int:
        """Bars that the venue serves at once, of this symbol or in general; `default` where ccxt does not know.

        Raises:
            PermanentError: the symbol is not listed.
        """
        if symbol is not None and symbol not in self.markets():
            raise PermanentError(
                f"{self._venue} does not list {symbol}; correct the symbol or the market type"
            )
        kind = ("spot", None) if self._market_type == "spot" else ("swap", "linear")
        with self._borrowed() as client:
            size = client.feature_value_by_type(*kind, "fetchOHLCV", "limit", default)
        return int(size or default)

    @property
    def requests_per_second(self) -> float | None:
        """What the venue allows, of requests of cost 1; None where nothing is paced."""
        with self._borrowed() as client:
            return 1000 / client.rateLimit if client.enableRateLimit else None

    def _try_once(self, what: str, function: Callable[[Any], Answer]) -> Answer:
        import ccxt

        self._host.admit()
        with self._borrowed() as client:
            client.last_json_response = client.last_response_headers = None
            try:
                answer = function(client)
            except ccxt.BaseError as error:
                # The cause is left out on purpose: its text holds the URL, which may hold a password.
                raise self._classified(error, what, client) from None
            except (TypeError, KeyError, ValueError, IndexError, AttributeError) as error:
                raise self._unreadable(what, type(error).__name__) from None
            # ccxt turns a page of HTML or half a JSON document into an empty answer.
            if client.last_json_response is None:
                raise self._unreadable(what, "not JSON")
            self._host.succeeded()
            headers = client.last_response_headers or {}
            self._host.pause(used_up_for(headers, self._market_type, datetime.now(UTC)))
            return answer

    @contextmanager
    def _borrowed(self) -> Iterator[Any]:
        try:
            client = self._idle.pop()
        except IndexError:
            client = self._build()
        if self._loaded is not None and client.markets is not self._loaded.markets:
            client.set_markets_from_exchange(self._loaded)
        try:
            yield client
        finally:
            self._idle.append(client)

    def _build(self) -> Any:
        import ccxt

        linear = self._market_type == "linear"
        client = getattr(ccxt, self._venue)(
            {
                "timeout": int(self._timeout.total_seconds() * 1000),
                "enableLastJsonResponse": True,
                "enableLastResponseHeaders": True,
                "options": {
                    "defaultType": "swap" if linear else "spot",
                    "defaultSubType": "linear" if linear else None,
                },
            }
        )
        client.has["fetchCurrencies"] = False  # deposit networks and the like, on some venues behind a key
        _load_only(client, self._market_type)
        if self._url is not None:
            client.urls["api"] = _redirected(client.urls["api"], self._url.rstrip("/"))
            client.enableRateLimit = not _is_this_machine(self._url)
        client.throttle = partial(self._take_turn, client.rateLimit / 1000)
        return client

    def _take_turn(self, seconds: float, cost: float | None = None) -> None:
        """Space the requests of all of us by the venue's own costs; ccxt calls it before each request."""
        self._host.take_turn(seconds * (1 if cost is None else cost))

    def _classified(self, error: Exception, what: str, client: Any) -> PipelineError:
        import ccxt

        text = str(error)
        detail = " ".join(_ADDRESS.sub("", text).split())[:_DETAIL_LENGTH]
        if isinstance(error, ccxt.RequestTimeout):
            detail = f"timed out after {self._timeout.total_seconds():g} s"
        said = f"{self.place} did not answer for {what} ({type(error).__name__}: {detail})"
        if isinstance(error, ccxt.AuthenticationError | ccxt.RestrictedLocation) or _REFUSED.search(text):
            return PermanentError(f"{said}: access is refused; use an address or a venue that serves you")
        if isinstance(error, ccxt.BadSymbol):
            return PermanentError(f"{said}: it is not listed there; correct the symbol")
        if _WRONG_PATH.search(text):
            return PermanentError(f"{said}: there is no such service at this address; correct the URL")
        if isinstance(error, ccxt.DDoSProtection | ccxt.RateLimitExceeded):
            return self._throttled(said, client)
        # ExchangeError itself, not one of its subclasses, is a code that ccxt does not know, such as Bybit's
        # 10016 "System error. Please try again later."
        if isinstance(error, ccxt.OperationFailed) or type(error) is ccxt.ExchangeError:
            self._host.failed()
            return TransientError(f"{said}; try again later")
        return PermanentError(f"{said}: asking again would give the same answer; correct the request")

    def _throttled(self, said: str, client: Any) -> TransientError:
        wait = self._host.refused(retry_after(client.last_response_headers or {}, datetime.now(UTC)))
        if wait <= LONGEST_WAIT_SECONDS:
            return TransientError(f"{said}; try again later")
        return LeftAloneError(f"{said}: it asks to be left alone for {wait:.0f} s; try again later")

    def _unreadable(self, what: str, reason: str) -> TransientError:
        self._host.failed()
        return TransientError(
            f"{self.place} answered for {what} in a form that cannot be read ({reason}); try again later"
        )


def _load_markets(client: Any) -> Any:
    client.load_markets(reload=True)
    return client


def _load_only(client: Any, market_type: str) -> None:
    """Keep ccxt from loading futures and options where a venue lets one choose."""
    options = client.options.get("fetchMarkets")
    if not isinstance(options, dict) or not isinstance(options.get("types"), list):
        return
    wanted = {"spot"} if market_type == "spot" else {"linear", "swap"}
    options["types"] = [name for name in options["types"] if name in wanted] or options["types"]


def _redirected(urls: Any, base: str) -> Any:
    """The tree of addresses with another scheme and host, paths kept."""
    if isinstance(urls, dict):
        return {name: _redirected(branch, base) for name, branch in urls.items()}
    return base + urlsplit(urls).path if isinstance(urls, str) else urls


def _is_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
