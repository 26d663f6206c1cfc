"""Brings the rows of a day into the lake in the form that they are to have there, without removing them.

What belongs here: copy, and merge with the parts that it corrects; the same for both modes. What does not: the
removal and the manifest entry.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.lake_store import lake_store
from tracker_pipeline.storage.part_copy import Copied, Step, Work, copy_rows
from tracker_pipeline.storage.part_merge import merged_with_cold
from tracker_pipeline.storage.same_keys import Collisions, find_collisions


@dataclass(frozen=True)
class Transfer:
    """A published part that no manifest has yet, and the rows in Postgres that it stands for."""

    work: Work
    copied: Copied
    collisions: Collisions


def transfer(connection: Connection, snapshot: str, work: Work, step: Step) -> Transfer | None:
    """Copy the rows of `work`; None where there is none that the lake does not have.

    Args:
        connection: in the transaction that exported `snapshot`.
        snapshot: which rows there are.
        work: which of them.
        step: told the name of each step.
    """
    collisions = find_collisions(connection, snapshot, work)
    work = replace(work, condition=f"{work.condition}{collisions.exclusion}")
    if collisions.repeated and not _any_left(connection, work):
        return None
    copied = copy_rows(connection, snapshot, work, step)
    if collisions.corrected:
        try:
            copied = merged_with_cold(copied, collisions.cold, collisions.keys, work)
        except BaseException:
            lake_store().delete(copied.part.path)
            raise
    return Transfer(work, copied, collisions)


def discard(transfers: Iterable[Transfer]) -> None:
    """Remove parts that did not make it into the manifest; nobody has seen them."""
    for done in transfers:
        lake_store().delete(done.copied.part.path)


def _any_left(connection: Connection, work: Work) -> bool:
    row = connection.execute(
        f"SELECT EXISTS (SELECT FROM {work.source} WHERE {work.condition})"  # noqa: S608
    ).fetchone()
    return bool(row and row[0])
