"""One JSON-RPC endpoint over HTTP: requests, retries, and which kind of failure each one is.

What belongs here: everything that knows HTTP and how nodes word their errors. What does not: what is asked and which
endpoint is asked next (`chain.py`).

URLs carry keys. No message holds more of one than scheme, host and port.
"""

import logging
import re
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import orjson
import stamina

from tracker_pipeline.resources.errors import PermanentError, PipelineError, TransientError

# httpx logs the whole URL of each request at INFO, key included.
logging.getLogger("httpx").setLevel(logging.WARNING)

Json = Any

_HEADERS: Final = {"Content-Type": "application/json"}
_TRIES: Final = 3
_FIRST_WAIT: Final = timedelta(seconds=0.25)
_LONGEST_WAIT: Final = timedelta(seconds=5)
_LONGEST_RETRY_AFTER: Final = 60.0  # seconds; an endpoint that asks for more is left to the next one or run
_DETAIL_LENGTH: Final = 200

_THROTTLED_CODES: Final = (-32005, -32029, 429)
_PERMANENT_CODES: Final = (3, -32600, -32601, -32602, -32700)
_URL: Final = re.compile(r"\w+://\S+")
# How nodes say that they keep no state of that block: geth, erigon, nethermind, besu and hosted ones.
_NO_STATE: Final = re.compile(
    r"missing trie node|header not found|header for hash not found|unknown block|block not found"
    r"|state (is |histories )?(not available|unavailable|missing)|historical state|no state available"
    r"|required historical|pruned|archive",
    re.IGNORECASE,
)
_TOO_MUCH: Final = re.compile(
    r"out ?of ?gas|OOG\b|gas limit|intrinsic gas|gas required exceeds|gas cap"
    r"|too large|response size|timed? ?out|deadline exceeded",
    re.IGNORECASE,
)
# How nodes say that events are too many or of too many blocks; some with the code of a throttled request.
_TOO_MANY_EVENTS: Final = re.compile(
    r"more than \d+|block range|range .*(too|exceed|limit)|too many (results|logs|blocks)|exceeds? max|max results"
    r"|limited to|response size|too large|timed? ?out|deadline exceeded",
    re.IGNORECASE,
)
_THROTTLED: Final = re.compile(r"rate limit|too many requests|request limit|capacity exceeded", re.IGNORECASE)


class MissingStateError(PermanentError):
    """The endpoint does not have the block, or no longer its state; another endpoint may."""


class RefusedError(PermanentError):
    """The endpoint does not serve us; another endpoint may."""


class TooMuchError(TransientError):
    """One request asked for more than the endpoint does at once: gas, bytes or time. A smaller one may pass."""


class ServerError(TransientError):
    """The endpoint answered with an error of its own, which may pass or may be how it says that it cannot."""


class _ThrottledError(TransientError):
    """The endpoint asks to wait; `retry_after` is in seconds, None where it does not say how long."""

    def __init__(self, text: str, retry_after: float | None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Endpoint:
    """One URL that speaks JSON-RPC, with connections that stay open. Safe to share between threads.

    Args:
        url: http or https; may hold a key.
        timeout: of one request.

    Attributes:
        name: scheme, host and port, fit for messages.

    Raises:
        PermanentError: the URL is not one of http or https.
    """

    def __init__(self, url: str, timeout: timedelta) -> None:
        self.name = shown(url)
        self._url = url
        self._http = httpx.Client(timeout=timeout.total_seconds())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, method: str, *params: Json) -> Json:
        """Return the result of one method, with a few tries where another may help.

        Raises:
            TooMuchError: the request should be made smaller. An `eth_call` that times out is one such.
            TransientError: it failed and may work later.
            MissingStateError: the block or its state is not there.
            RefusedError: the endpoint refuses us or is no such service.
            PermanentError: it would fail again.
        """
        for attempt in stamina.retry_context(
            on=_wait_before_retry,
            attempts=_TRIES,
            timeout=None,
            wait_initial=_FIRST_WAIT,
            wait_max=_LONGEST_WAIT,
        ):
            with attempt:
                return self._try_once(method, params)
        raise AssertionError("stamina gives at least one attempt")

    def _try_once(self, method: str, params: tuple[Json, ...]) -> Json:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        # The causes are left out on purpose: their texts may hold the URL.
        try:
            response = self._http.post(self._url, content=orjson.dumps(request), headers=_HEADERS)
        except (httpx.ReadTimeout, httpx.WriteTimeout):
            kind = TooMuchError if method in ("eth_call", "eth_getLogs") else TransientError
            raise kind(f"{self.name} did not answer {method} in time; try again later") from None
        except httpx.HTTPError as error:
            raise TransientError(
                f"{self.name} cannot be reached for {method} ({type(error).__name__}); check that it is up"
            ) from None
        answer = _object(response)
        if "error" in answer:
            raise self._rpc_error(method, answer["error"])
        if response.is_success and "result" in answer:
            return answer["result"]
        raise self._http_error(method, response)

    def _rpc_error(self, method: str, error: Json) -> PipelineError:
        code = error.get("code") if isinstance(error, dict) else None
        text = str(error.get("message", "") if isinstance(error, dict) else error)
        detail = " ".join(_URL.sub("", text).split())[:_DETAIL_LENGTH]
        said = f"{self.name} answered {method} with {detail!r} ({code})"
        if method == "eth_getLogs" and _TOO_MANY_EVENTS.search(text):
            return TooMuchError(f"{said}; lower blocks_per_request")
        if code in _THROTTLED_CODES or _THROTTLED.search(text):
            return _ThrottledError(f"{said}; ask it less often or later", None)
        if _NO_STATE.search(text):
            return MissingStateError(
                f"{said}: the node has pruned the state of that block; an archive endpoint is needed"
            )
        # A revert of the outer call is no sign of its size: the inner calls may all fail without it.
        reverted = "execution reverted" in text
        if method == "eth_call" and not reverted and _TOO_MUCH.search(text):
            return TooMuchError(f"{said}; lower addresses_per_call")
        if reverted or code in _PERMANENT_CODES:
            return PermanentError(f"{said}: asking again would give the same answer")
        return ServerError(f"{said}; try again later")

    def _http_error(self, method: str, response: httpx.Response) -> PipelineError:
        status = response.status_code
        said = f"{self.name} answered {method} with HTTP status {status}"
        if response.is_success:
            return TransientError(
                f"{self.name} answered {method} with something other than JSON-RPC; try again later"
            )
        if status == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            return TooMuchError(f"{said}; lower addresses_per_call")
        if status == httpx.codes.TOO_MANY_REQUESTS:
            return _ThrottledError(f"{said}; ask it less often or later", _retry_after(response))
        if response.is_server_error or status == httpx.codes.REQUEST_TIMEOUT:
            return TransientError(f"{said}; try again later")
        return RefusedError(f"{said}: it does not serve us; check its URL and key")


def shown(url: str) -> str:
    """Return scheme, host and port of a URL: what may be shown of it.

    Raises:
        PermanentError: it is not a URL of http or https.
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise PermanentError("a URL has a port that is no number; correct it") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PermanentError(f"a URL of http or https is needed, not one of {parts.scheme or 'no scheme'!r}")
    return f"{parts.scheme}://{parts.hostname}{port}"


def _object(response: httpx.Response) -> dict[str, Json]:
    """The JSON object of an answer, empty where it is something else, such as a page of HTML."""
    try:
        answer = orjson.loads(response.content)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdigit() and float(text) <= _LONGEST_RETRY_AFTER else None


def _wait_before_retry(error: Exception) -> bool | float:
    """Whether another try of the same request may help, or the seconds to wait before it."""
    if isinstance(error, _ThrottledError) and error.retry_after is not None:
        return error.retry_after
    return isinstance(error, TransientError) and not isinstance(error, TooMuchError)
