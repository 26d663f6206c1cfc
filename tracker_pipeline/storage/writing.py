"""Writes of one window of one Postgres table: by COPY, in one transaction, changing only what differs.

What belongs here: how rows get into a keyed table exactly once. What does not: which windows there are
(`io_managers`), finding out what differs (`stored_rows`), the lake.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pgpq
import polars as pl
from psycopg import sql
from psycopg.pq import TransactionStatus

from tracker_pipeline.domain.schemas import BAR_REVISIONS, Table
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage.database import Connection, identifier, lock_table, names
from tracker_pipeline.storage.hot_partitions import Partition, ensure_partitions_of
from tracker_pipeline.storage.invalidations import late_bars, record_invalidations
from tracker_pipeline.storage.stored_rows import Difference, Window, difference

# Below this the planner's guess for a table without statistics is good enough.
_ANALYZE_ROWS = 5_000


@dataclass(frozen=True)
class Written:
    """What a write changed, in rows."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0

    def __add__(self, other: "Written") -> "Written":
        """Sum of two writes."""
        return Written(
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.deleted + other.deleted,
            self.unchanged + other.unchanged,
        )


def write_window(
    connection: Connection, table: Table, frame: pl.DataFrame, window: Window | None, *, run_id: str
) -> Written:
    """Store `frame` as the content of `window`, in one transaction and idempotently.

    A table of the kind `replace` then holds in the window exactly the rows of `frame`; one of the kind `merge`
    holds them beside what it had. Rows equal to stored ones in all but provenance are left as they are. A changed
    row of a table with revisions gets the next revision, and its former values go to the table of revisions.

    Args:
        connection: to the database; must not be inside a transaction.
        table: the declaration.
        frame: rows in the declared schema.
        window: [start, end) that every row must lie in; None for a table without time.
        run_id: recorded beside superseded values.

    Raises:
        ValueError: a row lies outside the window, a key stands twice, or the connection is inside a transaction,
            whose rows the comparison would not see.
        PermanentError: rows that were archived would have to be removed.
    """
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        raise ValueError(f"{table.name}: the connection is inside a transaction; commit it before writing")
    rows = table.conform(frame)
    _refuse_bad_rows(table, rows, window)
    if rows.is_empty() and table.write == "merge":
        return Written()
    with connection.transaction():
        lock_table(connection, table)
        found = difference(connection, table, rows, window)
        written = _apply(connection, table, found, run_id)
    return Written(
        written.inserted, written.updated, written.deleted, rows.height - written.inserted - written.updated
    )


def _refuse_bad_rows(table: Table, rows: pl.DataFrame, window: Window | None) -> None:
    required = [column.name for column in table.columns if not column.nullable]
    nulls = [name for name in required if rows.get_column(name).null_count()]
    if nulls:
        raise ValueError(f"{table.name}: NULL in {', '.join(nulls)}, which must be known")
    # Sorted by key, so equal keys stand side by side.
    repeated = rows.select(pl.all_horizontal(pl.col(k) == pl.col(k).shift() for k in table.key).sum()).item()
    if repeated:
        raise ValueError(f"{table.name}: {repeated} rows share their key with another row")
    if window is None or table.time_column is None:
        return
    outside = rows.filter(~pl.col(table.time_column).is_between(*window, closed="left"))
    if outside.height:
        raise ValueError(
            f"{table.name}: {outside.height} rows lie outside the window {window[0]:%Y-%m-%d %H:%M} to"
            f" {window[1]:%Y-%m-%d %H:%M}, the first at {outside.item(0, table.time_column)}"
        )


def _apply(connection: Connection, table: Table, found: Difference, run_id: str) -> Written:
    if found.gone_cold:
        raise PermanentError(
            f"{table.name}: {found.gone_cold} archived rows of this window are not among the new ones:"
            " restore the day from the archive before replacing it"
        )
    if table.revisions:
        record_invalidations(connection, table, _stale(connection, table, found), run_id)
        _keep_archived_values(connection, table, found.former, run_id)
    return Written(
        inserted=_insert(connection, table, pl.concat([found.new, found.corrected])),
        updated=_update(connection, table, found.changed, run_id),
        deleted=_delete(connection, table, found.gone),
    )


def _stale(connection: Connection, table: Table, found: Difference) -> pl.DataFrame:
    """Key of every bar that differs from what others were made of, and whether it is revised rather than late."""
    parts = [(found.changed, True), (found.corrected, True), (late_bars(connection, table, found.new), False)]
    return pl.concat(
        [part.select(table.key).with_columns(revised=pl.lit(revised)) for part, revised in parts]
    )


def _insert(connection: Connection, table: Table, rows: pl.DataFrame) -> int:
    """Add rows whose keys are not stored; the lock that the caller holds makes sure that they stay so."""
    if rows.is_empty():
        return 0
    rest = _ensure_partitions(connection, table, rows)
    if _is_cast(table):
        with _staged(connection, table, rest) as stage:
            connection.execute(_insert_staged(table, stage))
    elif not rest.is_empty():
        _copy(connection, identifier(table), rest)
    return rows.height


def _ensure_partitions(connection: Connection, table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Make the partitions that rows need, fill those that are new, and return the rows that remain.

    A partition that is filled before it is attached gets its key as one sorted build rather than row by row.
    """
    if table.partition is None or table.time_column is None:
        return rows
    time = pl.col(table.time_column)

    def fill(partition: Partition) -> None:
        if not _is_cast(table):
            mine = rows.filter(time.is_between(partition.start, partition.end, closed="left"))
            _copy(connection, partition.identifier, mine)

    made = ensure_partitions_of(connection, table, rows.get_column(table.time_column), fill=fill)
    if _is_cast(table) or not made:
        return rows
    filled = pl.any_horizontal(time.is_between(p.start, p.end, closed="left") for p in made)
    return rows.filter(~filled)


def _copy(connection: Connection, target: sql.Composable, rows: pl.DataFrame) -> None:
    """Add rows to a table that has their columns, by binary COPY."""
    arrow = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
    encoder = pgpq.ArrowToPostgresBinaryEncoder(arrow.schema)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(target, names(rows.columns))
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(encoder.write_header())
        for batch in arrow.to_batches(max_chunksize=65_536):
            copy.write(encoder.write_batch(batch))
        copy.write(encoder.finish())


@contextmanager
def _staged(connection: Connection, table: Table, rows: pl.DataFrame) -> Iterator[sql.Identifier]:
    """A temporary table of these rows, with exact numbers and JSON as text."""
    stage = sql.Identifier("stage")
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(c.name), sql.SQL(c.type.staged))
        for c in table.columns
        if c.name in rows.columns
    )
    connection.execute(sql.SQL("CREATE TEMP TABLE {} ({}) ON COMMIT DROP").format(stage, columns))
    _copy(connection, stage, rows)
    if rows.height >= _ANALYZE_ROWS:
        connection.execute(sql.SQL("ANALYZE {}").format(stage))
    yield stage
    connection.execute(sql.SQL("DROP TABLE {}").format(stage))


def _is_cast(table: Table) -> bool:
    """Whether rows reach the table by way of text, which Postgres turns into exact numbers and JSON."""
    return any(column.type.staged != column.type.postgres for column in table.columns)


def _same_key(table: Table, rows: pl.DataFrame) -> sql.Composed:
    """The key of the stored row `t` is that of the staged row `s`; with bounds, so that few partitions are read."""
    conditions = [sql.SQL("t.{0} = s.{0}").format(sql.Identifier(name)) for name in table.key]
    if table.time_column in table.key:
        times = rows.get_column(table.time_column)
        conditions.append(
            sql.SQL("t.{} BETWEEN {} AND {}").format(
                sql.Identifier(table.time_column), sql.Literal(times.min()), sql.Literal(times.max())
            )
        )
    return sql.SQL(" AND ").join(conditions)


def _differs(table: Table) -> sql.Composed:
    return sql.SQL("({}) IS DISTINCT FROM ({})").format(
        names(table.compared, "t"), sql.SQL(", ").join(_value(table, name) for name in table.compared)
    )


def _value(table: Table, name: str) -> sql.Composed:
    """A staged value in the type of its column."""
    column = table.column_by_name[name]
    cast = f"::{column.type.postgres}" if column.type.staged != column.type.postgres else ""
    return sql.SQL("s.{}{}").format(sql.Identifier(name), sql.SQL(cast))


def _update(connection: Connection, table: Table, rows: pl.DataFrame, run_id: str) -> int:
    """Give stored rows the values of these; their former values go to the table of revisions."""
    if rows.is_empty():
        return 0
    assigned = [
        sql.SQL("{} = {}").format(
            sql.Identifier(c.name),
            sql.SQL("greatest(t.revision + 1, s.revision)")
            if c.name == "revision"
            else _value(table, c.name),
        )
        for c in table.columns
        if c.name not in table.key
    ]
    with _staged(connection, table, rows) as stage:
        same_key = _same_key(table, rows)
        if table.revisions:
            _keep_former_values(connection, table, stage, same_key, run_id)
        statement = sql.SQL("UPDATE {} t SET {} FROM {} s WHERE {} AND {}").format(
            identifier(table), sql.SQL(", ").join(assigned), stage, same_key, _differs(table)
        )
        return connection.execute(statement).rowcount


def _insert_staged(table: Table, stage: sql.Identifier) -> sql.Composed:
    columns = tuple(table.column_by_name)
    return sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} s").format(
        identifier(table),
        names(columns),
        sql.SQL(", ").join(_value(table, name) for name in columns),
        stage,
    )


def _delete(connection: Connection, table: Table, keys: pl.DataFrame) -> int:
    if keys.is_empty():
        return 0
    with _staged(connection, table, keys) as stage:
        statement = sql.SQL("DELETE FROM {} t USING {} s WHERE {}")
        return connection.execute(statement.format(identifier(table), stage, _same_key(table, keys))).rowcount


_CARRIED = tuple(
    column.name
    for column in BAR_REVISIONS.columns
    if column.name not in ("timeframe", "replaced_at", "run_id")
)


def _keep_former_values(
    connection: Connection, table: Table, stage: sql.Identifier, same_key: sql.Composed, run_id: str
) -> None:
    """Copy the hot rows about to change to the table of revisions."""
    statement = sql.SQL(
        "INSERT INTO {} ({}, timeframe, replaced_at, run_id)"
        " SELECT {}, %s, %s, %s FROM {} t JOIN {} s ON {} WHERE {} ON CONFLICT DO NOTHING"
    ).format(
        identifier(BAR_REVISIONS),
        names(_CARRIED),
        names(_CARRIED, "t"),
        identifier(table),
        stage,
        same_key,
        _differs(table),
    )
    connection.execute(statement, [_timeframe(table), datetime.now(UTC), run_id])


def _keep_archived_values(connection: Connection, table: Table, corrected: pl.DataFrame, run_id: str) -> None:
    """Copy the archived rows that a hot row is about to stand before to the table of revisions."""
    if corrected.is_empty():
        return
    statement = sql.SQL(
        "INSERT INTO {} ({}, timeframe, replaced_at, run_id) VALUES ({}) ON CONFLICT DO NOTHING"
    ).format(
        identifier(BAR_REVISIONS),
        names(_CARRIED),
        sql.SQL(", ").join([sql.Placeholder()] * (len(_CARRIED) + 3)),
    )
    context = (_timeframe(table), datetime.now(UTC), run_id)
    with connection.cursor() as cursor:
        cursor.executemany(statement, [(*row, *context) for row in corrected.select(_CARRIED).iter_rows()])


def _timeframe(table: Table) -> str:
    return table.table.removeprefix("ohlc_")
