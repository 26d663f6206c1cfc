"""Removes files of the lake that no reader can need: those that were replaced, and those that never became live.

What belongs here: what may go and when. What does not: what is wrong with the lake (`audit`).
"""

from datetime import UTC, datetime, timedelta

from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.lake_store import lake_store

# A reader may still be at a file that was replaced after it had looked the file up; a day is longer than any query.
GRACE = timedelta(days=1)
# A file may be months old when it is replaced: its grace runs from then on.
_NEEDED = "SELECT path FROM archive.batches WHERE state = 'live' OR ended_at > %s"


def sweep() -> int:
    """Remove the files that have not been live for longer than the grace period.

    Returns:
        How many were removed.
    """
    old = datetime.now(UTC) - GRACE
    with connect() as connection:
        rows = connection.execute(_NEEDED, [old]).fetchall()
    needed = {row[0] for row in rows}
    store = lake_store()
    leftovers = [found.path for found in store.list() if found.path not in needed and found.modified < old]
    for path in leftovers:
        store.delete(path)
    return len(leftovers)
