"""Brings archived days back to Postgres, exactly once, and holds them back from the archive for a while.

Where a partition is needed it is made first. Then one transaction a day puts the rows into the table, takes its parts
out of the manifest and sets the hold. Until it commits readers see the rows in the lake, after it in Postgres. The
files stay for another day, for readers that had looked them up.

What belongs here: restoring. What does not: reading a part back and proving it (`part_loading`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, Literal

import psycopg
from psycopg import sql

from tracker_pipeline.domain.schemas import TABLES
from tracker_pipeline.resources.errors import PermanentError, PipelineError, TransientError
from tracker_pipeline.storage import manifest
from tracker_pipeline.storage.archive_locks import among_writers, only_runner
from tracker_pipeline.storage.catalogue import LiveTable, live_table
from tracker_pipeline.storage.database import Connection, connect
from tracker_pipeline.storage.delete_reach import refuse_reaching_further
from tracker_pipeline.storage.holds import hold
from tracker_pipeline.storage.hot_partitions import ensure_partitions
from tracker_pipeline.storage.lake_store import Step, no_step
from tracker_pipeline.storage.manifest import Batch
from tracker_pipeline.storage.part_loading import LoadedPart, load_part

OnConflict = Literal["fail", "keep", "overwrite"]
HOLD: Final = timedelta(days=7)
DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class Restored:
    """What became of one day.

    Attributes:
        rows: that were in the lake.
        inserted: that are in Postgres now and were not before.
        identical: that Postgres had already, with the same content.
        conflicting: whose key Postgres had with other content.
        outcome: `restored`, `would restore`, `nothing` or `skipped`.
        note: what should be known besides.
    """

    table: str
    day: date
    rows: int
    inserted: int = 0
    identical: int = 0
    conflicting: int = 0
    outcome: str = "restored"
    note: str = ""


def restore_days(
    name: str,
    first: date,
    last: date,
    *,
    on_conflict: OnConflict = "fail",
    dry_run: bool = False,
    held_for: timedelta = HOLD,
    run_id: str,
    step: Step = no_step,
) -> list[Restored]:
    """Restore the archived days from `first` to `last`, both included; each is committed by itself.

    Restoring a day that is restored already does nothing.

    Args:
        name: schema and table.
        first: earliest day.
        last: latest day.
        on_conflict: what to do with a row whose key Postgres holds with other content. `fail` restores nothing of
            that day, `keep` leaves the row of Postgres and drops the archived one, `overwrite` the other way round.
            Rows that are identical are not conflicts.
        dry_run: only say what would be restored. Nothing is written anywhere.
        held_for: for how long the days are not archived again.
        run_id: recorded with the hold.
        step: told the name of each step as it is reached.

    Raises:
        PermanentError: the table does not exist or lives in the lake, a file is missing or altered, rows conflict, or
            the table would not hold them as they were archived.
        TransientError: the database or the lake does not answer, or what was read back is not what was archived.
    """
    if name in TABLES and TABLES[name].store == "lake":
        raise PermanentError(f"{name} lives in the lake, so there is nothing to restore it to")
    with connect() as connection:
        table = live_table(connection, name)
        days = sorted({part.data_day for part in manifest.live_batches_of(connection, name, first, last)})
        if dry_run:
            return [
                _planned(table, day, manifest.live_batches_of(connection, name, day, day)) for day in days
            ]
    with only_runner(name) as alone:
        if not alone:
            return [
                Restored(name, d, 0, outcome="skipped", note="another run is at this table") for d in days
            ]
        done: list[Restored] = []
        for day in days:
            try:
                done.append(_restore_day(name, day, on_conflict, held_for, run_id, step))
            except PipelineError as error:
                before = f"; {len(done)} earlier days were restored" if done else ""
                raise type(error)(f"{error}{before}") from error
        return done


def _planned(table: LiveTable, day: date, parts: Sequence[Batch]) -> Restored:
    return Restored(table.name, day, sum(part.rows for part in parts), outcome="would restore")


def _restore_day(
    name: str, day: date, on_conflict: OnConflict, held_for: timedelta, run_id: str, step: Step
) -> Restored:
    with connect() as connection, among_writers(connection, name):
        table = live_table(connection, name)
        parts = manifest.live_batches_of(connection, name, day, day)
        if not parts:
            return Restored(name, day, 0, outcome="nothing", note="no archived rows")
        connection.commit()  # else the block below would be a savepoint of the transaction that read the manifest
        try:
            with connection.transaction():  # by itself: reads wait from the attaching to its commit
                _make_room(connection, table, day)
            with connection.transaction():
                done = [_restore_part(connection, table, part, on_conflict) for part in parts]
                step("after insert")
                manifest.retire(connection, [part.batch_id for part in parts])
                until = datetime.now(UTC) + held_for
                hold(connection, name, [day], until=until, reason="restored", run_id=run_id)
                step("before commit")
        except psycopg.errors.IntegrityError as error:
            raise PermanentError(f"{name} of {day} cannot be restored: {_words(error)}") from error
        except psycopg.errors.DataError as error:
            raise PermanentError(
                f"{name} of {day} cannot be restored into the columns as they are now: {_words(error)}"
            ) from error
        except psycopg.OperationalError as error:
            raise TransientError(
                f"{name} of {day}: the database broke off ({_words(error)}); what was committed is known to the"
                " manifest: run it again"
            ) from error
        except psycopg.Error as error:
            raise PermanentError(f"{name} of {day} cannot be restored: {_words(error)}") from error
    inserted, identical, conflicting = (sum(column) for column in zip(*done, strict=True))
    rows = sum(part.rows for part in parts)
    return Restored(name, day, rows, inserted, identical, conflicting, note=f"held until {until:%Y-%m-%d}")


def _restore_part(
    connection: Connection, table: LiveTable, part: Batch, on_conflict: OnConflict
) -> tuple[int, int, int]:
    """Insert the rows of a part: how many were inserted, were there already, and conflicted."""
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


def _make_room(connection: Connection, table: LiveTable, day: date) -> None:
    """Make the native partition that the rows of a day go to, where there is none."""
    start = datetime.combine(day, time(), UTC)
    if table.name in TABLES:
        ensure_partitions(connection, TABLES[table.name], start, start + DAY)
        return
    if not table.is_partitioned or _has_partition(connection, table, start):
        return
    partition = sql.Identifier(table.schema, f"{table.table}_restored_{day:%Y_%m_%d}")
    connection.execute(  # a partition has the identity of its table, not one of its own
        sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING IDENTITY)").format(
            partition, table.identifier
        )
    )
    connection.execute(
        sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            table.identifier, partition, _edge(start), _edge(start + DAY)
        )
    )


def _edge(moment: datetime) -> sql.Composable:
    return sql.Literal(f"{moment:%Y-%m-%d %H:%M:%S}+00")


def _has_partition(connection: Connection, table: LiveTable, start: datetime) -> bool:
    """Whether some partition takes rows of that day, which a default one does as well."""
    bounds: list[tuple[Any, ...]] = connection.execute(
        "SELECT pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = %s AND NOT i.inhdetachpending",
        [table.oid],
    ).fetchall()
    for (text,) in bounds:
        if text == "DEFAULT":
            return True
        edges = connection.execute(
            "SELECT (m[1])::timestamptz <= %s AND %s < (m[2])::timestamptz"
            " FROM regexp_match(%s, 'FROM \\(''(.*)''\\) TO \\(''(.*)''\\)') m",
            [start, start, text],
        ).fetchone()
        if edges and edges[0]:
            return True
    return False


def _words(error: Exception) -> str:
    return " ".join(str(error).split())
