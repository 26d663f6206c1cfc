"""Row mode: one transaction copies the rows of a day as its snapshot has them, and deletes exactly those.

Rows inserted later are not in the snapshot and stay for the next run. A row that changed or went meanwhile makes the
transaction fail, and with it the move.

What belongs here: that transaction. What does not: the file and its proof (`part_copy`), keys that the lake already
has (`same_keys`).
"""

from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.storage import manifest
from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.delete_reach import refuse_reaching_further
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
    rows = f"SELECT * FROM {work.source} WHERE {work.condition}"  # noqa: S608
    refuse_reaching_further(connection, work.table, rows, advice="archive {child} first")
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
