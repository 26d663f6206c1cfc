"""Keeps the record of what is wrong, and says what is to be said of it.

The daemon's sensor and the health service both come by here; a lock of the database lets one at a time in, and the
record tells the second that all is said.

What belongs here: the record of alerts and their messages. What does not: the rules (`domain.alerting`), causes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tracker_pipeline.domain import alerting
from tracker_pipeline.domain.alerting import Alert, Cause, Kind
from tracker_pipeline.operations import causes, delivery, freshness
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.resources.notifications import ALERT_VARIABLE, Channel, channels
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage.database import Connection

_LOCK: Final = "tracker:operations.alerts"
_RETRY_FOR: Final = timedelta(hours=1)
_HEADINGS: Final = {"opened": "🔴", "worse": "🔴 worse:", "reminder": "🔴 still:", "resolved": "🟢 over:"}

_NEWEST: Final = """
SELECT DISTINCT ON (cause) cause, opened_at, severity, title, text, last_seen_at, resolved_at, notified_at,
       notifications
FROM operations.alerts ORDER BY cause, opened_at DESC
"""
_UPSERT: Final = """
INSERT INTO operations.alerts
    (cause, opened_at, severity, title, text, last_seen_at, resolved_at, notified_at, notifications)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (cause, opened_at) DO UPDATE SET
    severity = excluded.severity, title = excluded.title, text = excluded.text,
    last_seen_at = excluded.last_seen_at, resolved_at = excluded.resolved_at,
    notified_at = excluded.notified_at, notifications = excluded.notifications
"""


@dataclass(frozen=True)
class Message:
    """One thing to say."""

    key: str
    title: str
    body: str


def watch(connection: Connection, now: datetime) -> list[Message]:
    """Check freshness, find what is wrong, keep the record, and say what is new; returns what was said.

    Args:
        connection: outside of any transaction.
        now: by the clock of the exchange.
    """
    checked = freshness.check(connection, now)
    found = causes.find(connection, now, checked)
    connection.commit()
    messages = update(connection, found, now)
    send(connection, messages, now)
    return messages


def update(connection: Connection, found: Sequence[Cause], now: datetime) -> list[Message]:
    """Bring the record up to what was found; returns what is to be said."""
    settings = get_config().operations
    rules = alerting.Rules(
        reminder=timedelta(hours=settings.reminder_hours),
        settle=timedelta(minutes=settings.settle_minutes),
        cooldown=timedelta(minutes=settings.cooldown_minutes),
    )
    by_key = {cause.key: cause for cause in found}
    messages = []
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [_LOCK])
        newest = _newest(connection)
        for key in sorted({*by_key, *(k for k, alert in newest.items() if alert.resolved_at is None)}):
            cause = by_key.get(key)
            alert, kind = (
                alerting.seen(newest.get(key), cause, now, rules)
                if cause
                else alerting.unseen(newest[key], now, rules)
            )
            _store(connection, alert)
            if kind:
                messages.append(_message(alert, kind))
    return messages


def send(connection: Connection, messages: Sequence[Message], now: datetime) -> None:
    """Send messages, and once more those of the last hour that no channel took."""
    if not messages and not _has_failed(connection, now):
        return
    try:
        targets: list[Channel] = channels(ALERT_VARIABLE)
        unset = f"{ALERT_VARIABLE} is not set"
    except PermanentError as error:
        targets, unset = [], str(error)
    for message in messages:
        delivery.deliver(
            connection,
            targets,
            message=message.key,
            title=message.title,
            body=message.body,
            now=now,
            unset_reason=unset,
        )
    for key, title, body in _failed(connection, now):
        delivery.deliver(connection, targets, message=key, title=title, body=body, now=now)


def open_alerts(connection: Connection) -> list[Alert]:
    """Alerts whose cause is there, the oldest first."""
    found = [alert for alert in _newest(connection).values() if alert.resolved_at is None]
    return sorted(found, key=lambda alert: alert.opened_at)


def _newest(connection: Connection) -> dict[str, Alert]:
    rows = connection.execute(_NEWEST).fetchall()
    return {
        cause: Alert(Cause(cause, severity, title, text), opened, seen, resolved, notified, count)
        for cause, opened, severity, title, text, seen, resolved, notified, count in rows
    }


def _store(connection: Connection, alert: Alert) -> None:
    cause = alert.cause
    connection.execute(
        _UPSERT,
        [
            cause.key, alert.opened_at, cause.severity, cause.title, cause.text, alert.last_seen_at,
            alert.resolved_at, alert.notified_at, alert.notifications,
        ],
    )  # fmt: skip


def _message(alert: Alert, kind: Kind) -> Message:
    since = f"since {alert.opened_at:%Y-%m-%d %H:%M} UTC"
    body = f"It is over. It lasted {since}." if kind == "resolved" else f"{alert.cause.text}\n\nOpen {since}."
    key = f"alert/{alert.cause.key}/{alert.opened_at:%Y-%m-%dT%H:%M:%S}/{alert.notifications}"
    return Message(key, f"{_HEADINGS[kind]} {alert.cause.title}", body)


def _has_failed(connection: Connection, now: datetime) -> bool:
    return bool(_failed(connection, now))


def _failed(connection: Connection, now: datetime) -> list[tuple[str, str, str]]:
    """Messages of the last hour that a channel refused and that have tries left."""
    rows = connection.execute(
        "SELECT DISTINCT message, title, coalesce(body, 'Its text was not kept.') FROM operations.deliveries"
        " WHERE status = 'failed' AND attempts < %s AND at BETWEEN %s AND %s AND message LIKE 'alert/%%'",
        [delivery.MOST_ATTEMPTS, now - _RETRY_FOR, now - timedelta(seconds=50)],
    ).fetchall()
    connection.commit()
    return [(message, title, body) for message, title, body in rows]
