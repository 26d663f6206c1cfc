"""When something is said about what is wrong: once when it begins, again when it gets worse, a reminder, and its end.

What belongs here: causes, and the decision for one cause at one moment. What does not: finding causes, records and
sending (`operations`).
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

Severity = Literal["warning", "critical"]
Kind = Literal["opened", "worse", "reminder", "resolved"]

_RANK: Final = {"warning": 0, "critical": 1}


@dataclass(frozen=True)
class Cause:
    """Something that is wrong now, whatever number of rows, runs or symbols it shows in."""

    key: str
    severity: Severity
    title: str
    text: str


@dataclass(frozen=True)
class Alert:
    """A cause from when it was first seen to when it was gone."""

    cause: Cause
    opened_at: datetime
    last_seen_at: datetime
    resolved_at: datetime | None = None
    notified_at: datetime | None = None
    notifications: int = 0


@dataclass(frozen=True)
class Rules:
    """How much is said.

    Attributes:
        reminder: after so long without a message one is sent again while the cause lasts.
        settle: a cause has to be gone for so long before it counts as gone, so that flapping is one alert.
        cooldown: a cause that comes back within so long of its last message continues the old alert silently.
    """

    reminder: timedelta
    settle: timedelta
    cooldown: timedelta


def seen(alert: Alert | None, cause: Cause, now: datetime, rules: Rules) -> tuple[Alert, Kind | None]:
    """The alert of a cause that is there now, and what is to be said of it.

    Args:
        alert: the newest alert of the cause, open or resolved.
        cause: as found now.
        now: aware.
        rules: how much is said.
    """
    if alert is None or (alert.resolved_at and not _within(alert, now, rules.cooldown)):
        opened = Alert(cause, now, now)
        return _notified(opened, now), "opened"
    current = replace(alert, cause=cause, last_seen_at=now, resolved_at=None)
    if _RANK[cause.severity] > _RANK[alert.cause.severity]:
        return _notified(current, now), "worse"
    if alert.notified_at is None or now - alert.notified_at >= rules.reminder:
        return _notified(current, now), "reminder"
    return current, None


def unseen(alert: Alert, now: datetime, rules: Rules) -> tuple[Alert, Kind | None]:
    """An open alert whose cause is not there now."""
    if now - alert.last_seen_at < rules.settle:
        return alert, None
    return _notified(replace(alert, resolved_at=now), now), "resolved"


def _within(alert: Alert, now: datetime, cooldown: timedelta) -> bool:
    return alert.notified_at is not None and now - alert.notified_at < cooldown


def _notified(alert: Alert, now: datetime) -> Alert:
    return replace(alert, notified_at=now, notifications=alert.notifications + 1)
