"""Row mode: one transaction copies the rows of a day as its snapshot has them, and deletes exactly those.

Rows inserted later are not in the snapshot and stay for the next run. A row that changed or went meanwhile makes the
transaction fail, and with it the move.

What belongs here: that transaction. What does not: the file and its proof (`part_copy`), keys that the lake already
has (`same_keys`).
"""

from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.storage import manifest
from tracker_pipeline.storage.catalogue import delete_triggers, dependent_tables
from tracker_pipeline.storage.column_forms import quoted_name
from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.part_copy import Step, Work
from tracker_pipeline.storage.snapshot_reader import begin_exact
from tracker_pipeline.storage.transfer import Transfer, discard, transfer


def move_rows(connection: Connection, work: Work, step: Step) -> list[Transfer]:
    """Copy and delete the rows of `work` and enter the file in the manifest, all in the transaction that is open.

    Args:
        connection: in a REPEATABLE READ transaction that has read nothing yet.
        work: which rows.
        step: told the name of each step.

    Returns:
        What was moved; nothing where all rows are archived already.

    Raises:
        PermanentError: the delete would reach further than these rows.
        TransientError: nothing was moved, for the reason it says.
    """
    snapshot = begin_exact(connection)
    _refuse_reaching_further(connection, work)
    done = transfer(connection, snapshot, work, step)
    if done is None:
        return []
    try:
        _delete(connection, done)
        manifest.add_part(connection, done.copied.part, supersedes=done.collisions.superseded)
    except BaseException:
        discard([done])
        raise
    return [done]


def _delete(connection: Connection, done: Transfer) -> None:
    work, copied = done.work, done.copied.rows_moved
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
