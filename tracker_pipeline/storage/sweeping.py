"""Removes files of the lake that no reader can need: those that were replaced, and those that never became live.

A lake may be read by several deployments but swept by one: the first to sweep leaves its mark there. A file that the
manifest does not know may belong to a database that was set back to an older backup, so it stays for a week. Files
that are not named like parts are somebody else's and stay.

What belongs here: what may go and when. What does not: what is wrong with the lake (`audit`).
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import manifest
from tracker_pipeline.storage.archive_locks import only_runner
from tracker_pipeline.storage.archive_policy import get_policies
from tracker_pipeline.storage.database import Connection, connect
from tracker_pipeline.storage.lake_store import UNFINISHED, LakeStore, lake_store

# A reader may still be at a file that was replaced after it had looked the file up; a day is longer than any query.
GRACE: Final = timedelta(days=1)
ORPHAN_GRACE: Final = timedelta(days=7)
MARKER: Final = "swept-by"
# A file may be months old when it is replaced: its grace runs from then on.
_KNOWN: Final = "SELECT path, state = 'live' OR ended_at > %s FROM archive.batches"


@dataclass(frozen=True)
class Swept:
    """What was removed, or would be.

    Attributes:
        replaced: files of parts that other parts took the place of, that were restored, or that expired.
        leftover: files that never became live.
        bytes: that all of them took.
    """

    replaced: tuple[str, ...]
    leftover: tuple[str, ...]
    bytes: int


def sweep(*, dry_run: bool = False) -> Swept:
    """Remove the files that no reader can need any more.

    Raises:
        PermanentError: another deployment sweeps this lake.
        TransientError: the database or the lake does not answer.
    """
    now, store = datetime.now(UTC), lake_store()
    # The list comes first: what is published after it is not in it, whatever the manifest says by then.
    files = list(store.list())
    with connect() as connection:
        needed = dict(connection.execute(_KNOWN, [now - GRACE]).fetchall())
        if files:
            _refuse_foreign_lake(connection, store, mark=not dry_run)
    replaced = [file for file in files if needed.get(file.path) is False]
    leftover = [
        file
        for file in files
        if file.path not in needed
        and manifest.is_part_path(file.path)
        and now - file.modified > (GRACE if file.path.endswith(UNFINISHED) else ORPHAN_GRACE)
    ]
    for file in [] if dry_run else [*replaced, *leftover]:
        store.delete(file.path)
    return Swept(
        tuple(file.path for file in replaced),
        tuple(file.path for file in leftover),
        sum(file.bytes for file in (*replaced, *leftover)),
    )


def _refuse_foreign_lake(connection: Connection, store: LakeStore, *, mark: bool) -> None:
    row = connection.execute("SELECT deployment_id::text FROM archive.deployment").fetchone()
    own = str(row[0]) if row else ""
    if store.size(MARKER) is None:
        if mark:
            with store.stage(MARKER) as staged:
                staged.file.write_text(own, encoding="utf-8")
                staged.publish()
        return
    with store.open(MARKER) as source:
        marked = source.read().decode("utf-8").strip()
    if marked != own:
        raise PermanentError(
            f"the lake {store.name} is swept by another deployment ({marked}), so nothing was removed: give this one"
            f" a lake of its own by TRACKER_LAKE_URI, or delete the file {MARKER} if the other is gone"
        )


@dataclass(frozen=True)
class Expired:
    """Days of a table that cold retention let go, or would."""

    table: str
    first: date
    last: date
    rows: int
    parts: int


def expire(*, now: datetime | None = None, dry_run: bool = False) -> list[Expired]:
    """Take parts out of the manifest that are older than their table's `cold_retention`; by default nothing is.

    Their files are swept a day later. Until then a row of `archive.batches` and the file are all it takes to have
    them back.
    """
    done = []
    for name, policy in get_policies().archived.items():
        if policy.cold_retention is None:
            continue
        last = ((now or datetime.now(UTC)) - policy.cold_retention).date() - timedelta(days=1)
        with only_runner(name) as alone, connect() as connection:
            parts = manifest.live_batches_of(connection, name, date.min, last) if alone else []
            if not parts:
                continue
            if not dry_run:
                manifest.retire(connection, [part.batch_id for part in parts])
        days = [part.data_day for part in parts]
        done.append(Expired(name, min(days), max(days), sum(part.rows for part in parts), len(parts)))
    return done
