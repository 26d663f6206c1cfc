"""Writes of one window of one Postgres table: by COPY, in one transaction, changing only what differs.

What belongs here: how rows get into a keyed table exactly once. What does not: which windows there are
(`io_managers`), the lake.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pgpq
import polars as pl
from psycopg import sql

from tracker_pipeline.domain.schemas import BAR_REVISIONS, Table
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import lake, manifest
from tracker_pipeline.storage.database import Connection, identifier, lock_table, names
from tracker_pipeline.storage.hot_partitions import ensure_partitions_of
from tracker_pipeline.storage.invalidations import record_invalidations

# Below this the planner's guess for a table without statistics is good enough.
_ANALYZE_ROWS = 5_000

Window = tuple[datetime, datetime]


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
        ValueError: a row lies outside the window, or a key stands twice.
        PermanentError: rows that were archived would have to be removed.
    """
    rows = table.conform(frame)
    _refuse_bad_rows(table, rows, window)
    with connection.transaction():
        lock_table(connection, table)
        rest = _without_archived(connection, table, rows, window, run_id)
        if table.time_column is not None:
            ensure_partitions_of(connection, table, rest.get_column(table.time_column))
        stage = _stage(connection, table, rest)
        written = _apply(connection, table, stage, window, run_id)
    return Written(
        written.inserted, written.updated, written.deleted, rows.height - written.inserted - written.updated
    )


def _refuse_bad_rows(table: Table, rows: pl.DataFrame, window: Window | None) -> None:
    required = [column.name for column in table.columns if not column.nullable]
    nulls = [name for name in required if rows.get_column(name).null_count()]
    if nulls:
        raise ValueError(f"{table.name}: NULL in {', '.join(nulls)}, which must be known")
    repeated = rows.select(table.key).is_duplicated().sum()
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


def _without_archived(
    connection: Connection, table: Table, rows: pl.DataFrame, window: Window | None, run_id: str
) -> pl.DataFrame:
    """Drop the rows that the lake already holds with the same values, and number corrections of those it does.

    A row that is hot as well is left in: the hot one stands before the cold one, so it is compared with that.
    """
    if table.time_column is None:
        return rows
    batches = manifest.live_batches(connection, table, *(window or (None, None)))
    if not batches:
        return rows
    cold = lake.scan_parts(table, [batch.path for batch in batches])
    if window:
        cold = cold.filter(pl.col(table.time_column).is_between(*window, closed="left"))
    stored = cold.collect()
    _refuse_removal(table, rows, stored)
    same = [*table.key, *table.compared]
    unchanged = rows.join(stored, on=same, how="semi", nulls_equal=True).select(table.key)
    hot = _hot_keys(connection, table, window)
    rest = rows.join(unchanged.join(hot, on=table.key, how="anti"), on=table.key, how="anti")
    if table.revisions is None:
        return rest
    corrected = stored.join(rest.join(hot, on=table.key, how="anti"), on=table.key, how="semi")
    _keep_archived_values(connection, table, corrected, run_id)
    former = stored.select(*table.key, pl.col("revision").alias("former"))
    return rest.join(former, on=table.key, how="left").select(
        pl.exclude("revision", "former"),
        pl.when(pl.col("former").is_null())
        .then("revision")
        .otherwise(pl.col("former") + 1)
        .alias("revision"),
    )


def _refuse_removal(table: Table, rows: pl.DataFrame, stored: pl.DataFrame) -> None:
    if table.write == "merge":
        return
    gone = stored.join(rows, on=table.key, how="anti").height
    if gone:
        raise PermanentError(
            f"{table.name}: {gone} archived rows of this window are not among the new ones:"
            " restore the day from the archive before replacing it"
        )


def _hot_keys(connection: Connection, table: Table, window: Window | None) -> pl.DataFrame:
    statement = sql.SQL("SELECT {} FROM {}").format(names(table.key), identifier(table))
    if window:
        statement += sql.SQL(" WHERE {0} >= %s AND {0} < %s").format(sql.Identifier(table.time_column or ""))
    rows = connection.execute(statement, list(window) if window else None).fetchall()
    schema = {name: table.polars_schema[name] for name in table.key}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _stage(connection: Connection, table: Table, rows: pl.DataFrame) -> sql.Identifier:
    """Copy `rows` to a temporary table that ends with the transaction."""
    stage = sql.Identifier("stage")
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(c.name), sql.SQL(c.type.staged)) for c in table.columns
    )
    connection.execute(sql.SQL("CREATE TEMP TABLE {} ({}) ON COMMIT DROP").format(stage, columns))
    arrow = rows.select(table.column_by_name.keys()).to_arrow(compat_level=pl.CompatLevel.oldest())
    encoder = pgpq.ArrowToPostgresBinaryEncoder(arrow.schema)
    statement = sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(stage)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(encoder.write_header())
        for batch in arrow.to_batches(max_chunksize=65_536):
            copy.write(encoder.write_batch(batch))
        copy.write(encoder.finish())
    if rows.height >= _ANALYZE_ROWS:
        connection.execute(sql.SQL("ANALYZE {}").format(stage))
    return stage


def _apply(
    connection: Connection, table: Table, stage: sql.Identifier, window: Window | None, run_id: str
) -> Written:
    if table.revisions:
        record_invalidations(connection, table, stage, _differs(table), run_id)
        _keep_former_values(connection, table, stage, run_id)
    count: Callable[[sql.Composed, list[object]], int] = lambda s, p: connection.execute(s, p).rowcount  # noqa: E731
    deleted = count(_delete(table, stage, window), list(window or ())) if table.write == "replace" else 0
    updated = count(_update(table, stage), []) if table.compared else 0
    # What is stored leaves the stage before the rest is inserted. A condition inside the insert would be judged
    # against a table that grows under it: where the planner takes that for empty, 100,000 rows took 78 s.
    connection.execute(_drop_known(table, stage))
    return Written(updated=updated, inserted=count(_insert(table, stage), []), deleted=deleted)


def _same_key(table: Table) -> sql.Composed:
    return sql.SQL(" AND ").join(sql.SQL("t.{0} = s.{0}").format(sql.Identifier(name)) for name in table.key)


def _differs(table: Table) -> sql.Composed:
    return sql.SQL("({}) IS DISTINCT FROM ({})").format(
        names(table.compared, "t"), sql.SQL(", ").join(_value(table, name) for name in table.compared)
    )


def _value(table: Table, name: str) -> sql.Composed:
    """A staged value in the type of its column."""
    column = table.column_by_name[name]
    cast = f"::{column.type.postgres}" if column.type.staged != column.type.postgres else ""
    return sql.SQL("s.{}{}").format(sql.Identifier(name), sql.SQL(cast))


def _update(table: Table, stage: sql.Identifier) -> sql.Composed:
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
    return sql.SQL("UPDATE {} t SET {} FROM {} s WHERE {} AND {}").format(
        identifier(table), sql.SQL(", ").join(assigned), stage, _same_key(table), _differs(table)
    )


def _drop_known(table: Table, stage: sql.Identifier) -> sql.Composed:
    return sql.SQL("DELETE FROM {} s USING {} t WHERE {}").format(stage, identifier(table), _same_key(table))


def _insert(table: Table, stage: sql.Identifier) -> sql.Composed:
    columns = tuple(table.column_by_name)
    return sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} s").format(
        identifier(table),
        names(columns),
        sql.SQL(", ").join(_value(table, name) for name in columns),
        stage,
    )


def _delete(table: Table, stage: sql.Identifier, window: Window | None) -> sql.Composed:
    bounds = sql.Composed([])
    if window:
        bounds = sql.SQL("t.{0} >= %s AND t.{0} < %s AND ").format(sql.Identifier(table.time_column or ""))
    return sql.SQL("DELETE FROM {} t WHERE {}NOT EXISTS (SELECT FROM {} s WHERE {})").format(
        identifier(table), bounds, stage, _same_key(table)
    )


_CARRIED = tuple(
    column.name
    for column in BAR_REVISIONS.columns
    if column.name not in ("timeframe", "replaced_at", "run_id")
)


def _keep_former_values(connection: Connection, table: Table, stage: sql.Identifier, run_id: str) -> None:
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
        _same_key(table),
        _differs(table),
    )
    connection.execute(statement, [_timeframe(table), datetime.now(UTC), run_id])


def _keep_archived_values(connection: Connection, table: Table, corrected: pl.DataFrame, run_id: str) -> None:
    """Copy the archived rows that a hot row is about to stand before to the table of revisions."""
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
