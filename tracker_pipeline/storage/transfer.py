"""Brings the rows of a day into the lake in the form that they are to have there, without removing them.

What belongs here: copy, and merge with the parts that it corrects; the same for both modes. What does not: the
removal and the manifest entry.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.lake_store import lake_store
from tracker_pipeline.storage.part_copy import Copied, Draft, Step, Work, copy_rows
from tracker_pipeline.storage.part_merge import merged_with_cold
from tracker_pipeline.storage.same_keys import Collisions, find_collisions


@dataclass(frozen=True)
class Transfer:
    """A published part that no manifest has yet, and the rows in Postgres that it stands for."""

    work: Work
    copied: Copied
    collisions: Collisions


def transfer(
    connection: Connection, snapshot: str, work: Work, step: Step, draft: Draft | None = None
) -> Transfer | None:
    """Copy the rows of `work`; None where there is none that the lake does not have.

    Args:
        connection: in the transaction that exported `snapshot`.
        snapshot: which rows there are.
        work: which of them.
        step: told the name of each step.
        draft: a file of these rows, written before.
    """
    collisions = find_collisions(connection, snapshot, work)
    work = replace(work, condition=f"{work.condition}{collisions.exclusion}")
    if collisions.repeated and not _any_left(connection, work):
        return None
    copied = copy_rows(connection, snapshot, work, step, draft if _is_of(draft, work) else None)
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


def _is_of(draft: Draft | None, work: Work) -> bool:
    """Whether a draft was meant to hold these rows, in the columns that they have now."""
    if draft is None:
        return False
    meant = draft.work
    return (meant.table, meant.day, meant.source, meant.condition) == (
        work.table, work.day, work.source, work.condition,
    )  # fmt: skip


def _any_left(connection: Connection, work: Work) -> bool:
    row = connection.execute(
        f"SELECT EXISTS (SELECT FROM {work.source} WHERE {work.condition})"  # noqa: S608
    ).fetchone()
    return bool(row and row[0])
