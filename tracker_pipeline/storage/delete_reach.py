"""What a delete of rows that only move would do beyond them: fire triggers, take rows of other tables along.

What belongs here: refusing such a delete. What does not: the delete.
"""

from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage.catalogue import LiveTable, delete_triggers, dependent_tables
from tracker_pipeline.storage.column_forms import quoted_name
from tracker_pipeline.storage.database import Connection


def refuse_reaching_further(connection: Connection, table: LiveTable, rows: str, *, advice: str) -> None:
    """Refuse to delete rows of a table where that would act on others.

    Args:
        connection: in the transaction that is to delete.
        table: as the catalogue has it.
        rows: SELECT of the rows, all columns.
        advice: what to do about rows of another table, `{child}`.

    Raises:
        PermanentError: it would.
    """
    triggers = delete_triggers(connection, table)
    if triggers:
        raise PermanentError(
            f"{table.name} has triggers on DELETE ({', '.join(triggers)}), which would act on rows that only move:"
            " disable them or never archive the table"
        )
    for child, theirs, ours in dependent_tables(connection, table):
        same = " AND ".join(
            f"c.{quoted_name(a)} = t.{quoted_name(b)}" for a, b in zip(theirs, ours, strict=True)
        )
        row = connection.execute(
            f"SELECT count(*) FROM {child} c JOIN ({rows}) t ON {same}"  # noqa: S608
        ).fetchone()
        if row and row[0]:
            raise PermanentError(
                f"{table.name}: deleting its rows would remove or change {row[0]} rows of {child} by a foreign key:"
                f" {advice.format(child=child)}"
            )
