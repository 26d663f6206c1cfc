"""What tests of the on-chain assets share: times, keys, and how a result is looked at."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg

from tracker_pipeline import keys

START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = START + timedelta(hours=30)
HOURS = ("2026-03-01-03:00", "2026-03-02-03:00")
WHALES = 60
ONCHAIN = [keys.WHALE_UNIVERSE, keys.WHALE_BALANCE_SNAPSHOTS, keys.STETH_RATES, keys.ACCUMULATION_SCORES]
WETH = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
STETH = "0xae7ab96520DE3A18E5e111B5EaAb095312D7fE84"
FEED = "0x86392dC19c0b719886221c78AB11eb8Cf5c52812"

Configure = Callable[..., None]
Run = Callable[..., dg.ExecuteInProcessResult]


def hour(key: str) -> tuple[datetime, datetime]:
    """The window of an hourly partition."""
    start = datetime.strptime(key, "%Y-%m-%d-%H:%M").replace(tzinfo=UTC)
    return start, start + timedelta(hours=1)


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """What the first step that failed said."""
    failure = next(event for event in result.all_events if event.is_step_failure)
    return str(failure.event_specific_data.error)
