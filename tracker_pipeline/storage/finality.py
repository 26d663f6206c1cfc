"""Which hours' pinned blocks are not known to be final yet, and which scores rest on an hour.

What belongs here: the questions to the database. What does not: asking the chain (`assets.snapshot_rechecks`).
"""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from tracker_pipeline.storage.database import Connection, connect


class PinnedHour(NamedTuple):
    """An hour with the block that its stored balances are of, and how its last re-check ended.

    Attributes:
        hour: the hour.
        block_hash: of the stored balances.
        state: `pending` or `reorganised`; None where it was never looked at.
        replaced_hash: what the last repair replaced.
        repairs: how often it was read again.
    """

    hour: datetime
    block_hash: str
    state: str | None
    replaced_hash: str | None
    repairs: int


# An hour that a repair broke off in stays in it however old it is; others become final within the reach.
_UNFINAL: Final = """
WITH newest AS (
    SELECT max(snapshot_timestamp) AS hour FROM onchain.whale_balance_snapshots WHERE network = %(network)s
), pinned AS (
    SELECT DISTINCT s.network, s.snapshot_timestamp, s.block_hash
    FROM onchain.whale_balance_snapshots s, newest
    WHERE s.network = %(network)s AND s.asset = 'ETH'
      AND (s.snapshot_timestamp > newest.hour - %(reach)s
           OR s.snapshot_timestamp IN (SELECT r.snapshot_timestamp FROM onchain.snapshot_rechecks r
                                       WHERE r.network = %(network)s AND r.state = 'reorganised'))
)
SELECT p.snapshot_timestamp, p.block_hash, r.state, r.replaced_hash, coalesce(r.repairs, 0)
FROM pinned p LEFT JOIN onchain.snapshot_rechecks r USING (network, snapshot_timestamp)
WHERE r.state IS DISTINCT FROM 'final' OR r.block_hash <> p.block_hash
ORDER BY 1
"""


def unfinal_hours(connection: Connection, network: str, reach: timedelta) -> list[PinnedHour]:
    """Hours of the last `reach` whose block is not known to be final, and those whose repair broke off; in order."""
    rows = connection.execute(_UNFINAL, {"network": network, "reach": reach}).fetchall()
    return [PinnedHour(*row) for row in rows]


def hours_resting_on(connection: Connection, network: str, hour: datetime) -> list[datetime]:
    """Hours with a score that compares with the snapshot of `hour`, in order."""
    rows = connection.execute(
        "SELECT DISTINCT snapshot_timestamp FROM onchain.accumulation_scores"
        " WHERE network = %s AND baseline_timestamp = %s ORDER BY 1",
        [network, hour],
    ).fetchall()
    return [row[0] for row in rows]


def first_snapshot_hour(network: str) -> datetime | None:
    """The earliest hour with balances, hot or archived; None before the first."""
    with connect() as connection:
        row = connection.execute(
            "SELECT least((SELECT min(snapshot_timestamp) FROM onchain.whale_balance_snapshots WHERE network = %s),"
            " (SELECT min(min_ts) FROM archive.batches"
            "  WHERE table_name = 'onchain.whale_balance_snapshots' AND state = 'live'))",
            [network],
        ).fetchone()
    return row[0] if row else None
