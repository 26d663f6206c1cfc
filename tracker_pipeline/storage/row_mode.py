"""Row mode: one transaction copies the rows of a day as its snapshot has them, and deletes exactly those.

Rows inserted later are not in the snapshot and stay for the next run. A row that changed or went meanwhile makes the
transaction fail, and with it the move.

What belongs here: that transaction. What does not: the file and its proof (`part_copy`), keys that the lake already
has (`same_keys`).
"""

from dataclasses import replace

from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.storage import manifest
from tracker_pipeline.storage.catalogue import delete_triggers, dependent_tables
from tracker_pipeline.storage.column_forms import quoted_name
from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.lake_store import lake_store
from tracker_pipeline.storage.part_copy import Copied, Step, Work, copy_rows
from tracker_pipeline.storage.part_merge import merged_with_cold
from tracker_pipeline.storage.same_keys import Collisions, find_collisions
from tracker_pipeline.storage.snapshot_reader import begin_exact


def move_rows(connection: Connection, work: Work, step: Step) -> tuple[Copied, Collisions]:
    """Copy and delete the rows of `work` and enter the file in the manifest, all in the transaction that is open.

    Args:
        connection: in a REPEATABLE READ transaction that has read nothing yet.
        work: which rows.
        step: told the name of each step.

    Raises:
        PermanentError: the delete would reach further than these rows.
        TransientError: nothing was moved, for the reason it says.
    """
    snapshot = begin_exact(connection)
    _refuse_reaching_further(connection, work)
    collisions = find_collisions(connection, snapshot, work)
    work = replace(work, condition=f"{work.condition}{collisions.exclusion}")
    copied = copy_rows(connection, snapshot, work, step)
    try:
        if collisions.corrected:
            copied = merged_with_cold(copied, collisions.cold, collisions.keys, work)
        _delete(connection, work, copied.rows_moved)
        manifest.add_part(connection, copied.part, supersedes=collisions.superseded)
    except BaseException:
        lake_store().delete(copied.part.path)  # nobody has seen it
        raise
    return copied, collisions


def _delete(connection: Connection, work: Work, copied: int) -> None:
    deleted = connection.execute(f"DELETE FROM {work.source} WHERE {work.condition}").rowcount  # noqa: S608
    if deleted != copied:
        raise TransientError(
            f"{work}: {copied} rows were copied and {deleted} would go, so nothing was moved"
        )


def _refuse_reaching_further(connection: Connection, work: Work) -> None:
    triggers = delete_triggers(connection, work.table)
    if triggers:
        raise PermanentError(
            f"{work.table.name} has triggers on DELETE ({', '.join(triggers)}), which would act on rows that only"
            " move: disable them or never archive the table"
        )
    for child, theirs, ours in dependent_tables(connection, work.table):
        same = " AND ".join(
            f"c.{quoted_name(a)} = t.{quoted_name(b)}" for a, b in zip(theirs, ours, strict=True)
        )
        rows = f"(SELECT * FROM {work.source} WHERE {work.condition})"  # noqa: S608
        row = connection.execute(
            f"SELECT count(*) FROM {child} c JOIN {rows} t ON {same}"  # noqa: S608
        ).fetchone()
        if row and row[0]:
            raise PermanentError(
                f"{work}: deleting its rows would remove or change {row[0]} rows of {child} by a foreign key:"
                f" archive {child} first"
            )
