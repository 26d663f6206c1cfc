"""How the faults of the wire spoil an answer of the local exchange.

What belongs here: from a true answer to a spoilt one. What does not: which faults hold (`faults.py`), and what is
wrong with the market itself rather than with an answer (`fault_market.py`).
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from tracker_pipeline.sandbox.faults import CONTROL_PATH, Fault, Faults

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Json = dict[str, Any]


class AnswerFaults:
    """A middleware that spoils answers while a fault of the wire holds.

    Args:
        faults: those that hold.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._served: dict[str, Json] = {}

    def middleware(self) -> Any:
        """For the application's list of middlewares."""

        @web.middleware
        async def spoil(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path == CONTROL_PATH:
                return await handler(request)
            taken = [fault for fault in self._faults.held() if fault.takes(request)]
            return await self._spoilt(request, handler, taken)

        return spoil

    async def _spoilt(self, request: web.Request, handler: Handler, taken: list[Fault]) -> web.StreamResponse:
        for fault in taken:
            if fault.kind == "timeout":
                await asyncio.sleep(fault.options["seconds"])
            elif fault.kind in _REFUSALS:
                return _REFUSALS[fault.kind](fault.options)
            elif fault.kind == "page_cap":
                asked = min(int(request.query.get("limit") or 200), fault.options["bars"])
                request = request.clone(rel_url=request.rel_url.update_query(limit=str(asked)))
        response = await handler(request)
        if not isinstance(response, web.Response) or response.content_type != "application/json":
            return response
        return self._edited(request, response, taken)

    def _edited(self, request: web.Request, response: web.Response, taken: list[Fault]) -> web.Response:
        answer = json.loads(response.body or b"{}")  # type: ignore[arg-type]
        key = f"{request.path} {request.query.get('symbol')} {request.query.get('interval')}"
        for fault in taken:
            if fault.kind == "repeat_page":
                answer = self._served.get(key, answer)
            elif fault.kind == "clock_skew":
                answer = _skewed(answer, fault.options["seconds"])
            elif fault.kind in _ROWS and isinstance(answer.get("result", {}).get("list"), list):
                rows = _ROWS[fault.kind](answer["result"]["list"], fault.options)
                answer = {**answer, "result": {**answer["result"], "list": rows}}
            elif fault.kind == "truncated":
                text = json.dumps(answer)
                return web.Response(text=text[: len(text) // 2], content_type="application/json")
        if answer.get("result", {}).get("list"):
            self._served[key] = answer
        return web.json_response(answer)


def _throttled(options: Json) -> web.Response:
    wait = options["retry_after"]
    headers = {} if wait is None else {"Retry-After": f"{wait:g}"}
    return web.Response(status=429, text="Too Many Requests", headers=headers)


_REFUSALS: Final[dict[str, Callable[[Json], web.Response]]] = {
    "throttle": _throttled,
    "server_error": lambda options: web.Response(status=options["status"], text="unavailable"),
    "html": lambda _: web.Response(
        text="<html><body>We are down for maintenance</body></html>", content_type="text/html"
    ),
    "api_error": lambda options: web.json_response(
        {"retCode": options["code"], "retMsg": "refused", "result": {}, "retExtInfo": {}, "time": 0}
    ),
}

_ROWS: Final[dict[str, Callable[[list[Any], Json], list[Any]]]] = {
    "short_page": lambda rows, options: (
        rows[: options["bars"]] if options["keep"] == "newest" else rows[-options["bars"] :]
    ),
    "reverse": lambda rows, _: rows[::-1],
    "duplicate_rows": lambda rows, _: [row for row in rows for _ in range(2)],
    "empty_page": lambda _rows, _options: [],
}


def _skewed(answer: Json, seconds: float) -> Json:
    told = int(answer["result"]["timeNano"]) + int(seconds * 1e9)
    result = {"timeSecond": str(told // 10**9), "timeNano": str(told)}
    return {**answer, "result": result, "time": told // 10**6}
