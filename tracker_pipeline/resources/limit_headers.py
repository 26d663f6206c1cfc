"""What the headers of an answer say about limits: how long to wait, and whether our share is used up.

What belongs here: headers to seconds. What does not: waiting (`host_state.py`).
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

# Weight a minute that Binance allows an address, by the venue's ccxt id and kind of market.
_BINANCE_WEIGHT: Final = {"spot": 6000, "linear": 2400}
_USED_UP_FRAC: Final = 0.9  # leaves room for requests that are under way in other processes


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds of Retry-After, given as a number or as a date; None where there is none that can be read."""
    text = _lower(headers).get("retry-after", "").strip()
    with suppress(ValueError):
        return max(0.0, float(text))
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    return None


def used_up_for(headers: Mapping[str, str], market_type: str, now: datetime) -> float:
    """Seconds until our share of requests is renewed if it is used up, else 0.

    Reads Binance's used weight, Bybit's remaining requests, and the RateLimit headers of the IETF draft.
    """
    held = _lower(headers)
    used = _number(held.get("x-mbx-used-weight-1m"))
    if used is not None and used >= _USED_UP_FRAC * _BINANCE_WEIGHT.get(market_type, 2400):
        return 60.0 - now.timestamp() % 60
    if _number(held.get("x-bapi-limit-status")) == 0:
        reset = _number(held.get("x-bapi-limit-reset-timestamp"))
        return 0.0 if reset is None else max(0.0, reset / 1000 - now.timestamp())
    for prefix in ("ratelimit", "x-ratelimit"):
        if _number(held.get(f"{prefix}-remaining")) == 0:
            reset = _number(held.get(f"{prefix}-reset")) or 0.0
            is_epoch = reset > 10**9  # some give the moment, others the distance
            return max(0.0, reset - datetime.now(UTC).timestamp() if is_epoch else reset)
    return 0.0


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
