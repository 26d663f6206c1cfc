"""What can be wrong with the local exchange, switched on by option or, while it runs, over HTTP.

What belongs here: the list of faults, how they are written, and which of them hold now. What does not: how an
answer is spoilt (`fault_answers.py`) and how the market itself is (`fault_market.py`).

A fault is written `kind` or `kind:name=value,name=value`, such as `throttle:retry_after=2,every=3`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

CONTROL_PATH: Final = "/sandbox/faults"

_HTTP: Final = ("path", "every", "times", "symbols")
_Parser = Callable[[str], Any]


def _whole(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError("a whole number from 1 on")
    return int(text)


def _number(text: str) -> float:
    return float(text)


def _moment_ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split("+"))


_PARSERS: Final[dict[str, _Parser]] = {
    "path": str,
    "keep": str,
    "every": _whole,
    "times": _whole,
    "bars": _whole,
    "status": _whole,
    "code": _whole,
    "minutes": _whole,
    "retry_after": _number,
    "seconds": _number,
    "symbols": _names,
    "start": _moment_ms,
    "end": _moment_ms,
    "at": _moment_ms,
    "relisted": _moment_ms,
}
# By kind: the options it needs, those it may have with their defaults, and what it does.
KINDS: Final[dict[str, tuple[tuple[str, ...], dict[str, Any], str]]] = {
    "short_page": ((), {"bars": 7, "keep": "newest"}, "a page holds only the newest or oldest few bars"),
    "page_cap": ((), {"bars": 50}, "no page is longer than this, whatever limit is asked for"),
    "repeat_page": ((), {}, "the previous page of the symbol is served again"),
    "reverse": ((), {}, "pages come oldest first"),
    "duplicate_rows": ((), {}, "each row of a page comes twice"),
    "empty_page": ((), {}, "a page comes without bars though there are some"),
    "throttle": ((), {"retry_after": None}, "HTTP 429, with Retry-After where given"),
    "api_error": ((), {"code": 10016}, "HTTP 200 with an error code of the API; 10006 is its rate limit"),
    "server_error": ((), {"status": 503}, "a 5xx status"),
    "timeout": ((), {"seconds": 60.0}, "the answer takes this long"),
    "html": ((), {}, "a page of HTML with status 200"),
    "truncated": ((), {}, "half a JSON document"),
    "clock_skew": (("seconds",), {}, "the clock that it tells is off; its data are not"),
    "unfinished": ((), {"seconds": 45.0}, "a bar keeps unfinished values this long after its end"),
    "correction": (
        (),
        {"minutes": 240},
        "the newest bars have wrong values, which are corrected once the fault ends",
    ),
    "outage": (("start", "end"), {}, "nothing trades in [start, end)"),
    "delisting": (
        ("symbols", "at"),
        {"relisted": None},
        "symbols leave the list at a moment, and may come back",
    ),
    "listing": (("symbols", "at"), {}, "symbols are listed from a moment on only"),
}
_MARKET: Final = frozenset({"unfinished", "correction", "outage", "delisting", "listing"})


class FaultError(ValueError):
    """A fault is written wrongly; the text says how."""


@dataclass
class Fault:
    """One thing that is wrong.

    Attributes:
        kind: one of `KINDS`.
        options: its options, parsed; times are epoch ms.
        text: as it was written.
    """

    kind: str
    options: dict[str, Any]
    text: str
    _seen: int = field(default=0)
    _done: int = field(default=0)

    def concerns(self, symbol: str) -> bool:
        """Whether this symbol is among those it is for."""
        return self.options.get("symbols") is None or symbol in self.options["symbols"]

    def takes(self, request: web.Request) -> bool:
        """Whether this request is to be spoilt; counts it."""
        path = "time" if self.kind == "clock_skew" else self.options.get("path", "kline")
        if path not in ("all", request.path.rsplit("/", 1)[-1]) or not self.concerns(
            request.query.get("symbol", "")
        ):
            return False
        self._seen += 1
        limit = self.options.get("times")
        due = self._seen % self.options.get("every", 1) == 0 and (limit is None or self._done < limit)
        self._done += due
        return due


def parse_fault(text: str) -> Fault:
    """Read one fault.

    Raises:
        FaultError: the kind or an option is unknown, missing or has a value that is not allowed.
    """
    kind, _, rest = text.strip().partition(":")
    if kind not in KINDS:
        raise FaultError(f"there is no fault {kind!r}; there are {', '.join(KINDS)}")
    needed, defaults, _ = KINDS[kind]
    known = {*needed, *defaults, *(("symbols",) if kind in _MARKET else _HTTP)}
    options = dict(defaults)
    for pair in filter(None, rest.split(",")):
        name, _, value = pair.partition("=")
        if name not in known:
            raise FaultError(f"{kind} has no option {name!r}; it has {', '.join(sorted(known))}")
        try:
            options[name] = _PARSERS[name](value)
        except ValueError as error:
            raise FaultError(f"{kind}: {name}={value} is wrong ({error})") from None
    absent = [name for name in needed if name not in options]
    if absent:
        raise FaultError(f"{kind} needs {', '.join(absent)}")
    return Fault(kind, options, text.strip())


class Faults:
    """The faults that hold now.

    Args:
        texts: those to begin with.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._held = [parse_fault(text) for text in texts]

    def of(self, *kinds: str) -> list[Fault]:
        """Those of these kinds, in the order they were given."""
        return [fault for fault in self._held if fault.kind in kinds]

    def held(self) -> list[Fault]:
        """All of them."""
        return list(self._held)

    def route(self, app: web.Application) -> None:
        """Let them be read and changed over HTTP: GET lists, PUT replaces, POST adds, DELETE ends all.

        A body is text, one fault a line.
        """
        app.router.add_get(CONTROL_PATH, self._answer)
        app.router.add_delete(CONTROL_PATH, self._answer)
        app.router.add_put(CONTROL_PATH, self._answer)
        app.router.add_post(CONTROL_PATH, self._answer)

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            given = [parse_fault(line) for line in (await request.text()).splitlines() if line.strip()]
        except FaultError as error:
            return web.json_response({"error": str(error)}, status=400)
        if request.method in ("PUT", "DELETE"):
            self._held = given if request.method == "PUT" else []
        elif request.method == "POST":
            self._held += given
        return web.json_response({"faults": [fault.text for fault in self._held]})
