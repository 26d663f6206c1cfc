"""Puts the rows of a loaded part into its table as they were archived, or refuses.

The table may have changed since, and may hold some of the rows: they are compared in Postgres, by their text.

What belongs here: one part and its table. What does not: the day and its transaction (`restore`), reading the file
back and proving it (`part_loading`).
"""

from collections.abc import Sequence
from typing import Literal

import psycopg
from psycopg import sql

from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage.catalogue import LiveTable
from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.delete_reach import refuse_reaching_further
from tracker_pipeline.storage.manifest import Batch
from tracker_pipeline.storage.part_loading import LoadedPart, load_part

OnConflict = Literal["fail", "keep", "overwrite"]


def insert_part(
    connection: Connection, table: LiveTable, part: Batch, on_conflict: OnConflict
) -> tuple[int, int, int]:
    """Insert the rows of a part.

    Args:
        connection: in the transaction that takes the part out of the manifest.
        table: as the catalogue has it.
        part: live.
        on_conflict: what to do with a row whose key the table holds with other content.

    Returns:
        How many rows were inserted, were there already, and conflicted.

    Raises:
        PermanentError: the file is missing or altered, rows conflict, or the table would not hold them as they were.
        TransientError: the lake does not answer, or what was read back is not what was archived.
    """
    loaded = load_part(connection, table.name, part)
    names = _common_columns(connection, table, loaded, part)
    _refuse_changed_values(connection, table, loaded, names, part)
    identical, conflicting = _compare(connection, table, names)
    if conflicting and on_conflict == "fail":
        raise PermanentError(
            f"{table.name} of {part.data_day}: Postgres holds {conflicting} of the keys with other content, so"
            f" nothing of the day was restored (the first is {_first_conflict(connection, table, names)}): choose"
            " --on-conflict keep or overwrite"
        )
    if conflicting and on_conflict == "overwrite":
        rows = _compose(
            "SELECT t.* FROM {target} t JOIN pg_temp.part p ON {same_key} WHERE {differs}", table, names
        )
        advice = f"{part.data_day} cannot be restored by --on-conflict overwrite"
        refuse_reaching_further(connection, table, rows.as_string(connection), advice=advice)
        _execute(
            connection,
            "DELETE FROM {target} t USING pg_temp.part p WHERE {same_key} AND {differs}",
            table,
            names,
        )
    written = [c.name for c in table.columns if c.name in names and not c.generated]
    inserted = _execute(
        connection,
        "INSERT INTO {target} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM pg_temp.part p"
        " WHERE NOT EXISTS (SELECT FROM {target} t WHERE {same_key})",
        table,
        names,
        columns=_names(written),
        values=sql.SQL(", ").join(_cast(table, name) for name in written),
    )
    kept = conflicting if on_conflict == "keep" else 0
    as_archived = _compare(connection, table, written)[0] if _has_key(table, names) else inserted
    if as_archived < loaded.rows - kept:
        raise PermanentError(
            f"{table.name} of {part.data_day}: after the restore the table has {as_archived} of {loaded.rows - kept}"
            " rows as they were archived, so nothing of the day was restored: a trigger or a rule on INSERT changes"
            " or leaves out the others; disable it for the restore"
        )
    return inserted, identical, conflicting


def _refuse_changed_values(
    connection: Connection, table: LiveTable, loaded: LoadedPart, names: Sequence[str], part: Batch
) -> None:
    """Stop where a column has another type now that cannot hold what was archived, such as a shorter text."""
    for column in loaded.table.columns:
        now = table.column(column.name)
        if column.name not in names or now is None or now.type == column.type:
            continue
        value = sql.SQL("p.{}").format(sql.Identifier(column.name))
        try:
            with connection.transaction():
                row = connection.execute(
                    sql.SQL(
                        "SELECT count(*) FROM pg_temp.part p WHERE {0}::{1}::{2}::text <> {0}::text"
                    ).format(value, sql.SQL(now.type), sql.SQL(column.type))
                ).fetchone()
        except (psycopg.errors.CannotCoerce, psycopg.errors.UndefinedFunction):
            continue  # there is no way back from the type, so nobody can tell
        if row and row[0]:
            raise PermanentError(
                f"{part.path} has {row[0]} values of the column {column.name} that would change: they were"
                f" {column.type}, and {table.name} has {now.type} now; give the column a type that holds them, or"
                " read them with tracker sql"
            )


def _common_columns(connection: Connection, table: LiveTable, loaded: LoadedPart, part: Batch) -> list[str]:
    """Columns that part and table share; stop where the part has values for which there is no column."""
    gone = [column.name for column in loaded.table.columns if table.column(column.name) is None]
    for name in gone:
        row = connection.execute(
            sql.SQL("SELECT count({}) FROM pg_temp.part").format(sql.Identifier(name))
        ).fetchone()
        if row and row[0]:
            raise PermanentError(
                f"{part.path} has {row[0]} values of the column {name}, which {table.name} has no longer: add the"
                " column for them, or read them with tracker sql"
            )
    return [column.name for column in loaded.table.columns if column.name not in gone]


def _compare(connection: Connection, table: LiveTable, names: Sequence[str]) -> tuple[int, int]:
    """How many rows Postgres holds already, with the same and with other content."""
    if not _has_key(table, names):
        return 0, 0
    row = connection.execute(
        _compose(
            "SELECT count(*) FILTER (WHERE NOT {differs}), count(*) FILTER (WHERE {differs})"
            " FROM {target} t JOIN pg_temp.part p ON {same_key}",
            table,
            names,
        )
    ).fetchone()
    return (row[0], row[1]) if row else (0, 0)


def _has_key(table: LiveTable, names: Sequence[str]) -> bool:
    """Whether rows can be told apart by what a part has; one from before a column of the key came cannot."""
    return bool(table.key) and set(table.key) <= set(names)


def _first_conflict(connection: Connection, table: LiveTable, names: Sequence[str]) -> str:
    key = sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in table.key)
    row = connection.execute(
        _compose(
            "SELECT ROW({key})::text FROM {target} t JOIN pg_temp.part p ON {same_key} WHERE {differs}"
            " ORDER BY 1 LIMIT 1",
            table,
            names,
            key=key,
        )
    ).fetchone()
    return str(row[0]) if row else ""


def _execute(
    connection: Connection, text: str, table: LiveTable, names: Sequence[str], **more: sql.Composable
) -> int:
    return connection.execute(_compose(text, table, names, **more)).rowcount


def _compose(text: str, table: LiveTable, names: Sequence[str], **more: sql.Composable) -> sql.Composed:
    same: list[sql.Composable] = [
        sql.SQL("t.{0} = {1}").format(sql.Identifier(name), _cast(table, name))
        for name in (table.key if _has_key(table, names) else ())
    ]
    ours = sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in names)
    theirs = sql.SQL(", ").join(_cast(table, name) for name in names)
    return sql.SQL(text).format(  # texts of ours
        target=table.identifier,
        same_key=sql.SQL(" AND ").join(same or [sql.SQL("false")]),
        # Text tells 1.10 from 1.1 and -0 from 0, and compares types that have no equality.
        differs=sql.SQL("(ROW({})::text <> ROW({})::text)").format(ours, theirs),
        **more,
    )


def _cast(table: LiveTable, name: str) -> sql.Composable:
    column = table.column(name)
    assert column is not None  # noqa: S101  # of the table's own columns
    return sql.SQL("p.{}::{}").format(sql.Identifier(name), sql.SQL(column.type))


def _names(names: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)
