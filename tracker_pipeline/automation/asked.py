"""What a sensor asked for that is not done yet.

A cursor that only says how far a record was read forgets what was asked for in vain: were the run to fail, its
days would stay stale for ever. So a request stays in the cursor until a run of its key has succeeded; where none has,
it is asked for again, at growing intervals.

What belongs here: the cursor, and what became of its requests. What does not: what is stale (`sensors`, `training`).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import compress
from typing import Any, Final

import dagster as dg

from tracker_pipeline.automation.backlog import range_request

# Crashed workers are retried by Dagster within minutes; what fails by itself is rarely cured sooner than an hour.
_FIRST_WAIT: Final = timedelta(minutes=15)
_LONGEST_WAIT: Final = timedelta(hours=6)
_RUN_KEY: Final = "dagster/run_key"
NOT_ENDED: Final = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        key: tells it from the others of the sensor.
        first: first partition.
        last: last partition.
        assets: what is to be made, schema and table separated by a slash.
        at: when it was asked for, ISO.
        tries: how often it was asked for before.
    """

    key: str
    first: str
    last: str
    assets: Sequence[str]
    at: str
    tries: int = 0

    @property
    def request(self) -> dg.RunRequest:
        """The run that does it."""
        key = f"{self.key}-try{self.tries}" if self.tries else self.key
        assets = [dg.AssetKey.from_user_string(asset) for asset in self.assets]
        return range_request(self.first, self.last, key, assets)

    def is_due(self, now: datetime) -> bool:
        """Whether it is time to ask again."""
        wait = min(_FIRST_WAIT * (1 << min(self.tries, 5)), _LONGEST_WAIT)
        return now - datetime.fromisoformat(self.at) >= wait


def ask(key: str, first: object, last: object, assets: Iterable[dg.AssetKey]) -> Asked:
    """A request of now."""
    names = [asset.to_user_string() for asset in assets]
    return Asked(key, f"{first}", f"{last}", names, datetime.now(UTC).isoformat())


@dataclass(frozen=True)
class Cursor:
    """How far a sensor has read, and what it asked for that is not done.

    Attributes:
        seen: how far it has read; None at the beginning.
        open: requests whose runs have not succeeded.
    """

    seen: Any = None
    open: Sequence[Asked] = ()

    @classmethod
    def of(cls, text: str | None) -> "Cursor":
        """Read a cursor, also one of before there were open requests, which is the bare position."""
        value = json.loads(text) if text else None
        if isinstance(value, dict) and "open" in value:
            return cls(value["seen"], [Asked(**one) for one in value["open"]])
        return cls(value)

    def tick(
        self, instance: dg.DagsterInstance, *, seen: Any, new: Sequence[Asked], nothing: str
    ) -> dg.SensorResult | dg.SkipReason:
        """The result of a tick: what is new, and what was asked for in vain.

        Args:
            instance: knows the runs.
            seen: how far the sensor has read by now.
            new: what it asks for now.
            nothing: why it asks for nothing, if nothing is open either.
        """
        now = datetime.now(UTC)
        left = [one for one in self.open if not _has_succeeded(instance, one)]
        vain = [one.is_due(now) and not _is_under_way(instance, one) for one in left]
        open_ = [
            replace(one, at=now.isoformat(), tries=one.tries + 1) if again else one
            for one, again in zip(left, vain, strict=True)
        ]
        requests = [one.request for one in (*compress(open_, vain), *new)]
        after = Cursor(seen, [*open_, *new])
        reason = f"{len(open_)} requests are under way" if open_ else nothing
        if after == Cursor(self.seen, list(self.open)):
            return dg.SkipReason(reason)
        return dg.SensorResult(
            run_requests=requests, skip_reason=None if requests else reason, cursor=json.dumps(asdict(after))
        )


def _has_succeeded(instance: dg.DagsterInstance, one: Asked) -> bool:
    return _has_run(instance, one, (dg.DagsterRunStatus.SUCCESS,))


def _is_under_way(instance: dg.DagsterInstance, one: Asked) -> bool:
    return _has_run(instance, one, NOT_ENDED)


def _has_run(instance: dg.DagsterInstance, one: Asked, statuses: Sequence[dg.DagsterRunStatus]) -> bool:
    """Whether the run, or one that Dagster started in its place, is in one of these states."""
    runs = dg.RunsFilter(tags={_RUN_KEY: one.request.run_key or ""}, statuses=list(statuses))
    return instance.get_runs_count(runs) > 0
