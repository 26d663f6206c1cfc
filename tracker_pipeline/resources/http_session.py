"""Plain HTTP to one host: few tries, paced with everybody, every failure classified and without secrets.

What belongs here: what any HTTP service has in common. What does not: what is asked for (`massive.py`,
`dump_archives.py`), and exchanges, which ccxt speaks to (`ccxt_session.py`).
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.resources.host_state import LONGEST_WAIT_SECONDS, HostState, LeftAloneError
from tracker_pipeline.resources.limit_headers import retry_after, used_up_for
from tracker_pipeline.resources.retrying import attempts

_REFUSED: Final = (401, 402, 403, 407, 451)
_THROTTLED: Final = (418, 429)


class NotFoundError(PermanentError):
    """There is nothing at this address."""


class HttpSession:
    """A session with one service.

    Args:
        name: of the service, for messages.
        url: its scheme and host, and a path that all others follow.
        hosts: folder in which processes share what they know of hosts; without one, this session is alone.
        timeout: of one request.
        headers: sent with each request and never shown: they may hold a key.
        requests_per_second: that all of us together may make; None for no limit.
        key_name: variable that holds the key, for the message when it is refused.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        hosts: Path | None = None,
        timeout: timedelta = timedelta(seconds=30),
        headers: Mapping[str, str] | None = None,
        requests_per_second: float | None = None,
        key_name: str | None = None,
    ) -> None:
        parts = urlsplit(url)
        self.place = f"{name} at {parts.hostname}" + (f":{parts.port}" if parts.port else "")
        self.requests_per_second = requests_per_second
        self._url = url.rstrip("/")
        self._key_name = key_name
        self._timeout = timeout
        self._host = HostState(self.place, hosts)
        self._client = httpx.Client(headers=dict(headers or {}), timeout=timeout.total_seconds())

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, what: str, path: str, params: Mapping[str, str | int] | None = None) -> httpx.Response:
        """One answer with status 200.

        Args:
            what: what is asked for, for messages.
            path: behind the service's URL, or an address that the service itself gave, on the same host.
            params: of the query.

        Raises:
            TransientError: it failed and may work later.
            NotFoundError: there is no such thing.
            PermanentError: it would fail again.
        """
        url = self._address(path)
        for attempt in attempts():
            with attempt:
                return self._try_once(what, url, params)
        raise AssertionError("there is at least one attempt")

    def get_json(self, what: str, path: str, params: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        """One answer that is a JSON object.

        Raises:
            TransientError: it failed and may work later, or is not JSON.
            PermanentError: it would fail again.
        """
        for attempt in attempts():
            with attempt:
                response = self._try_once(what, self._address(path), params)
                try:
                    document = response.json()
                except ValueError:
                    document = None
                if isinstance(document, dict):
                    return document
                self._host.failed()
                raise TransientError(
                    f"{self.place} answered for {what} in a form that cannot be read (not JSON); try again later"
                )
        raise AssertionError("there is at least one attempt")

    def _address(self, path: str) -> str:
        if "://" not in path:
            return self._url + path
        ours, given = urlsplit(self._url), urlsplit(path)
        if (given.scheme, given.netloc) != (ours.scheme, ours.netloc):  # it would be sent our key
            raise PermanentError(f"{self.place} points to another host for more; that is not followed")
        return path

    def _try_once(self, what: str, url: str, params: Mapping[str, str | int] | None) -> httpx.Response:
        self._host.admit()
        if self.requests_per_second is not None:
            self._host.take_turn(1 / self.requests_per_second)
        try:
            response = self._client.get(url, params=params)
        except httpx.TimeoutException:
            self._host.failed()
            raise self._passing(what, f"timed out after {self._timeout.total_seconds():g} s") from None
        except httpx.HTTPError as error:
            self._host.failed()
            raise self._passing(what, type(error).__name__) from None
        if response.status_code == httpx.codes.OK:
            self._host.succeeded()
            self._host.pause(used_up_for(response.headers, "spot", datetime.now(UTC)))
            return response
        raise self._classified(what, response)

    def _classified(self, what: str, response: httpx.Response) -> PermanentError | TransientError:
        status = response.status_code
        said = f"{self.place} did not answer for {what} (HTTP {status})"
        if status in _THROTTLED:
            wait = self._host.refused(retry_after(response.headers, datetime.now(UTC)))
            if wait > LONGEST_WAIT_SECONDS:
                return LeftAloneError(f"{said}: it asks to be left alone for {wait:.0f} s; try again later")
            return self._passing(what, f"HTTP {status}")
        if status >= 500 or status == httpx.codes.REQUEST_TIMEOUT:
            self._host.failed()
            return self._passing(what, f"HTTP {status}")
        self._host.succeeded()  # it works, and says no
        if status in _REFUSED:
            remedy = (
                f"check the key in {self._key_name} and what it is allowed"
                if self._key_name
                else "check the URL"
            )
            return PermanentError(f"{said}: access is refused; {remedy}")
        if status == httpx.codes.NOT_FOUND:
            return NotFoundError(f"{said}: there is no such thing; correct the URL or the symbol")
        return PermanentError(f"{said}: asking again would give the same answer; correct the request")

    def _passing(self, what: str, reason: str) -> TransientError:
        return TransientError(f"{self.place} did not answer for {what} ({reason}); try again later")
