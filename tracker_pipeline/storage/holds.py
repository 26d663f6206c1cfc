"""Days that the archive leaves in Postgres for a while, because somebody has just restored them.

What belongs here: reading and setting holds. What does not: restoring (`restore`), archiving (`archive`).
"""

from collections.abc import Iterable
from datetime import date, datetime

from tracker_pipeline.storage.database import Connection


def held_days(connection: Connection, table_name: str) -> set[date]:
    """The days of a table that must not be archived now."""
    rows = connection.execute(
        "SELECT data_day FROM archive.holds WHERE table_name = %s AND held_until > now()", [table_name]
    ).fetchall()
    return {row[0] for row in rows}


def hold(
    connection: Connection,
    table_name: str,
    days: Iterable[date],
    *,
    until: datetime,
    reason: str,
    run_id: str,
) -> None:
    """Hold days back until a moment, within the caller's transaction; a hold that lasts longer stays."""
    connection.execute("DELETE FROM archive.holds WHERE held_until < now()")
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO archive.holds (table_name, data_day, held_until, reason, run_id)"
            " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (table_name, data_day) DO UPDATE"
            " SET held_until = greatest(holds.held_until, excluded.held_until),"
            " reason = excluded.reason, run_id = excluded.run_id",
            [(table_name, day, until, reason, run_id) for day in days],
        )
