"""Sends a message to each channel at most once, and records what came of it.

The record is committed before the message leaves. Where the process dies in between, the record says `sending` and
nobody sends it again: a report that is missing once is better than one that comes twice.

What belongs here: the record around a send. What does not: channels (`resources.notifications`), what is said.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from tracker_pipeline.resources.notifications import Channel
from tracker_pipeline.storage.database import Connection

MOST_ATTEMPTS: Final = 5
UNSET: Final = "none"

_CLAIM: Final = """
INSERT INTO operations.deliveries AS d (message, channel, title, body, status, attempts, at)
VALUES (%(message)s, %(channel)s, %(title)s, %(body)s, 'sending', 1, %(now)s)
ON CONFLICT (message, channel) DO UPDATE SET status = 'sending', attempts = d.attempts + 1, at = excluded.at
WHERE d.status = 'failed' AND d.attempts < %(most)s
RETURNING attempts
"""


def deliver(
    connection: Connection,
    channels: Sequence[Channel],
    *,
    message: str,
    title: str,
    body: str,
    now: datetime,
    unset_reason: str = "",
) -> dict[str, str]:
    """Send to every channel that has not had the message yet.

    Args:
        connection: outside of any transaction: each record is committed by itself.
        channels: where to; where there is none the message is recorded as skipped, with `unset_reason`.
        message: identity of the message.
        title: one line.
        body: Markdown.
        now: recorded.
        unset_reason: why there is no channel.

    Returns:
        Channel name to `sent`, `failed`, `skipped`, or `before` where it had been sent earlier.
    """
    if not channels:
        record_skipped(connection, message=message, title=title, now=now, reason=unset_reason)
        return {UNSET: "skipped"}
    outcomes = {}
    for channel in channels:
        values = {"message": message, "channel": channel.name, "title": title, "body": body, "now": now}
        claimed = connection.execute(_CLAIM, {**values, "most": MOST_ATTEMPTS}).fetchone()
        connection.commit()
        if claimed is None:
            outcomes[channel.name] = "before"
            continue
        status, reason = _send(channel, title, body)
        connection.execute(
            "UPDATE operations.deliveries SET status = %s, reason = %s WHERE message = %s AND channel = %s",
            [status, reason, message, channel.name],
        )
        connection.commit()
        outcomes[channel.name] = status
    return outcomes


def record_skipped(connection: Connection, *, message: str, title: str, now: datetime, reason: str) -> None:
    """Record that a message was not sent, once."""
    connection.execute(
        "INSERT INTO operations.deliveries (message, channel, title, status, attempts, at, reason)"
        " VALUES (%s, %s, %s, 'skipped', 0, %s, %s) ON CONFLICT DO NOTHING",
        [message, UNSET, title, now, reason],
    )
    connection.commit()


def _send(channel: Channel, title: str, body: str) -> tuple[str, str | None]:
    try:
        taken = channel.send(title, body)
    except Exception as error:  # whatever a channel's library raises, the record has to be finished
        return "failed", type(error).__name__
    return ("sent", None) if taken else ("failed", "the channel did not take it")
