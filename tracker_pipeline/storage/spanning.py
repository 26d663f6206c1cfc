"""One table out of hot rows in Postgres and cold rows in the lake, each row once.

The hot rows and the manifest are read in one snapshot of the database, so a move from one to the other that
commits meanwhile is seen either wholly or not at all. A hot row stands before a cold row of the same key: it is a
correction that the archive has not taken yet.

What belongs here: reads over both. What does not: moving rows (`archive`), SQL for people (`query`), which filters
reach the stores (`pushdown`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import polars as pl
from psycopg import sql

from tracker_pipeline.storage.pushdown import Condition, conditions_of
from tracker_pipeline.storage.relations import Relation, relation_of
from tracker_pipeline.storage.snapshots import Snapshot, snapshot

# A week of minute bars of one symbol is 10,080 rows: more are faster by COPY.
_NARROW = timedelta(days=8)
_FEW_DAYS = timedelta(days=100)  # within so many, moments of one time of day are written out
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a table.

    Attributes:
        start: earliest moment, aware; None from the beginning.
        end: first moment that is not wanted, aware; None to the end.
        columns: in this order; None for all.
        conditions: that each row fulfils; more may be filtered afterwards.
        at: time of the UTC day; rows of other times are not wanted.
    """

    start: datetime | None = None
    end: datetime | None = None
    columns: Sequence[str] | None = None
    conditions: Sequence[Condition] = ()
    at: time | None = None


def scan(
    table: str,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    columns: Sequence[str] | None = None,
    predicate: pl.Expr | None = None,
    at: time | None = None,
) -> pl.LazyFrame:
    """Rows of `table` in [start, end), hot and cold as one, each key once.

    The table is read as it is now, whenever the frame is collected: its hot rows at once, its files at collection. A
    file that is replaced meanwhile stays for another day (`sweeping.GRACE`).

    Args:
        table: schema and table, such as `market.ohlc_15m`.
        start: earliest moment, aware; None reads from the beginning.
        end: first moment that is not read, aware; None reads to the end.
        columns: what to keep, in this order; None keeps all declared columns. No other is fetched.
        predicate: further condition on each row by itself. Comparisons with constants joined by `&` reach Postgres
            and the row groups of the files; give them here rather than filter afterwards.
        at: time of the UTC day; rows of other times are not read. The closing bars of a month are 1 % of its bars.

    Returns:
        A lazy frame in the declared schema.

    Raises:
        KeyError: no such table or column.
        ValueError: a bound is given for a table without time, or has no time zone.
        PermanentError: a file is missing, or a table may not be read.
        TransientError: the database or the lake does not answer.
    """
    relation = relation_of(table)
    _refuse_bad_bounds(relation, start, end)
    kept = list(relation.columns) if columns is None else list(columns)
    needed = [*kept, *(() if predicate is None else predicate.meta.root_names())]
    if unknown := sorted(set(needed) - set(relation.columns)):
        raise KeyError(f"{table} has no column {', '.join(unknown)}")
    wanted = Wanted(start, end, list(dict.fromkeys(needed)), conditions_of(predicate), at)
    with snapshot(*hot_tables(relation)) as moment:
        rows = (_read_narrow if _is_narrow(relation, wanted) else read)(moment, relation, wanted)
    return rows.select(kept) if predicate is None else rows.filter(predicate).select(kept)


def hot_tables(relation: Relation) -> list[tuple[str, str]]:
    """What to lock before a snapshot in which the relation is read."""
    return [relation.qualified] if relation.hot else []


def read(moment: Snapshot, relation: Relation, wanted: Wanted) -> pl.LazyFrame:
    """The rows as the snapshot sees them; those that fail a condition may be among them still."""
    names, conditions = _names(relation, wanted), _reaching(relation, wanted)
    days, paths = _live_parts(moment, relation, wanted)
    # Where all conditions are on the key, the rows that are read anyway tell which keys are corrected.
    told = bool(paths) and relation.corrects and _judge_keys_alone(relation, conditions)
    asked = list(dict.fromkeys([*names, *relation.key])) if told else names
    hot = _hot_rows(moment, relation, wanted, asked, conditions) if relation.hot else None
    corrected = None
    if paths and hot is not None and relation.corrects:
        corrected = (
            hot.select(relation.key) if told else _corrected_keys(moment, relation, wanted, days, conditions)
        )
    return _together(relation, wanted, days, paths, hot, corrected)


def _together(
    relation: Relation,
    wanted: Wanted,
    days: Collection[date],
    paths: Sequence[str],
    hot: pl.DataFrame | None,
    corrected: pl.DataFrame | None,
) -> pl.LazyFrame:
    """Cold rows without those that a hot one corrects, and hot rows."""
    names = _names(relation, wanted)
    if not paths:
        empty = pl.LazyFrame(schema={n: relation.columns[n] for n in names})
        return empty if hot is None else hot.lazy().select(names)
    cold = relation.cold(paths)
    for condition in (*_within(relation, wanted), *(c.as_polars() for c in _reaching(relation, wanted))):
        cold = cold.filter(condition)
    if hot is None:
        return cold.select(names)
    if corrected is not None and relation.time_column in relation.key:
        corrected = corrected.filter(pl.col(relation.time_column or "") < _moment(_after(days)))
    if corrected is not None and corrected.height:
        cold = cold.join(corrected.lazy(), on=relation.key, how="anti")
    return pl.concat([cold.select(names), hot.lazy().select(names)])


def _names(relation: Relation, wanted: Wanted) -> list[str]:
    return list(relation.columns) if wanted.columns is None else list(wanted.columns)


def _reaching(relation: Relation, wanted: Wanted) -> list[Condition]:
    """The conditions that both stores judge like Polars."""
    return [
        c for c in wanted.conditions if c.column in relation.columns and c.fits(relation.columns[c.column])
    ]


def _is_narrow(relation: Relation, wanted: Wanted) -> bool:
    """Whether a few days of a few keys are wanted, so that the messages cost more than the rows."""
    if relation.declared is None or not relation.hot or wanted.start is None or wanted.end is None:
        return False
    conditions = _reaching(relation, wanted)
    leading = {c.column for c in conditions if c.operator == "=" and c.column in relation.key[:-1]}
    return (
        wanted.end - wanted.start <= _NARROW
        and leading == set(relation.key[:-1])
        and _judge_keys_alone(relation, conditions)
    )


def _read_narrow(moment: Snapshot, relation: Relation, wanted: Wanted) -> pl.LazyFrame:
    """Few rows, so that each message, column and plan counts: text of the key is what was asked for, and not fetched.

    One statement for files and rows would save a message and lose as much to the column of paths that it adds.
    """
    conditions = _reaching(relation, wanted)
    given = {c.column: c.values[0] for c in conditions if c.operator == "=" and isinstance(c.values[0], str)}
    parts = moment.read(_parts_statement(relation, wanted), few=True)
    days, paths = parts.get_column("data_day").to_list(), parts.get_column("path").to_list()
    names = list(dict.fromkeys([*_names(relation, wanted), *relation.key]))
    fetched = [name for name in names if name not in given]
    found = moment.read(
        _select_statement(relation, fetched, _hot_conditions(relation, wanted, conditions)), few=True
    )
    if paths and not found.height:
        return _together(relation, wanted, days, paths, None, None)
    typed = [
        (pl.lit(given[n]) if n in given else pl.col(n)).cast(relation.columns[n]).alias(n) for n in names
    ]
    rows = found.lazy().select(typed)
    # The index has them in order, but does not promise it; all but the last column of the key are the same anyway.
    if not found.get_column(relation.key[-1]).is_sorted():
        rows = rows.sort(relation.key[-1])
    if not paths:
        return rows.select(_names(relation, wanted))
    hot = rows.collect()
    return _together(
        relation, wanted, days, paths, hot, hot.select(relation.key) if relation.corrects else None
    )


def _judge_keys_alone(relation: Relation, conditions: Sequence[Condition]) -> bool:
    return relation.time_column in relation.key and all(c.column in relation.key for c in conditions)


def _live_parts(moment: Snapshot, relation: Relation, wanted: Wanted) -> tuple[Collection[date], list[str]]:
    """Days and files of the parts that may hold rows of the window."""
    if relation.time_column is None:
        return [], []
    found = moment.read(_parts_statement(relation, wanted))
    return found.get_column("data_day").to_list(), found.get_column("path").to_list()


def _parts_statement(relation: Relation, wanted: Wanted) -> sql.Composed:
    first = wanted.start.astimezone(UTC).date() if wanted.start else date.min
    last = (wanted.end - timedelta(microseconds=1)).astimezone(UTC).date() if wanted.end else date.max
    return sql.SQL(
        "SELECT data_day, path FROM archive.batches WHERE table_name = {} AND state = 'live'"
        " AND data_day BETWEEN {}::date AND {}::date ORDER BY data_day, batch_id"
    ).format(sql.Literal(relation.name), sql.Literal(first.isoformat()), sql.Literal(last.isoformat()))


def _hot_rows(
    moment: Snapshot,
    relation: Relation,
    wanted: Wanted,
    names: Sequence[str],
    conditions: Sequence[Condition],
) -> pl.DataFrame:
    rows = _select(moment, relation, names, _hot_conditions(relation, wanted, conditions))
    return rows.sort(relation.key) if relation.key and set(relation.key) <= set(names) else rows


def _hot_conditions(
    relation: Relation, wanted: Wanted, conditions: Sequence[Condition]
) -> list[sql.Composable]:
    """The conditions on hot rows, the window among them."""
    chosen = [*_bounds(relation, wanted.start, wanted.end), *(c.as_sql() for c in conditions)]
    return chosen if wanted.at is None else [*chosen, _at_time_of_day(relation, wanted, wanted.at)]


def _at_time_of_day(relation: Relation, wanted: Wanted, at: time) -> sql.Composable:
    """The moments themselves where they are few: Postgres takes twice as long to ask each row for its time of day."""
    column, start, end = relation.time_column or "", wanted.start, wanted.end
    if start is not None and end is not None and end - start <= _FEW_DAYS:
        first = datetime.combine(start.astimezone(UTC).date(), at, UTC)
        moments = (first + timedelta(days=day) for day in range(_FEW_DAYS.days + 1))
        if within := tuple(moment for moment in moments if start <= moment < end):
            return Condition(column, "in", within).as_sql()
    time_of_day = sql.SQL("({} AT TIME ZONE 'UTC')::time = {}::time")
    return time_of_day.format(sql.Identifier(column), sql.Literal(at.isoformat()))


def _corrected_keys(
    moment: Snapshot,
    relation: Relation,
    wanted: Wanted,
    days: Collection[date],
    conditions: Sequence[Condition],
) -> pl.DataFrame:
    """Keys of hot rows that may stand before a cold one.

    Only conditions on the key narrow them: a correction counts even if its new values fail the others, since its old
    ones must not come back.
    """
    bounds: list[sql.Composable] = []
    if relation.time_column in relation.key:
        first, last = datetime.combine(min(days), time(), UTC), _after(days)
        bounds = _bounds(relation, max(first, wanted.start or first), min(last, wanted.end or last))
    of_key = [c.as_sql() for c in conditions if c.column in relation.key]
    return _select(moment, relation, relation.key, [*bounds, *of_key])


def _after(days: Collection[date]) -> datetime:
    """The end of the last of some days."""
    return datetime.combine(max(days), time(), UTC) + timedelta(days=1)


def _select(
    moment: Snapshot, relation: Relation, names: Sequence[str], conditions: Sequence[sql.Composable]
) -> pl.DataFrame:
    statement = _select_statement(relation, names, conditions)
    return moment.read(statement).cast({name: relation.columns[name] for name in names})


def _select_statement(
    relation: Relation,
    names: Sequence[str],
    conditions: Sequence[sql.Composable],
) -> sql.Composed:
    columns = [sql.SQL("{} AS {}").format(sql.SQL(relation.hot[n]), sql.Identifier(n)) for n in names]
    statement = sql.SQL("SELECT {} FROM {}").format(
        sql.SQL(", ").join(columns), sql.Identifier(*relation.qualified)
    )
    if conditions:
        statement += sql.SQL(" WHERE {}").format(sql.SQL(" AND ").join(conditions))
    return statement


def _bounds(relation: Relation, start: datetime | None, end: datetime | None) -> list[sql.Composable]:
    column = relation.time_column or ""
    given = [(">=", start), ("<", end)]
    return [
        Condition(column, operator, (moment,)).as_sql() for operator, moment in given if moment is not None
    ]


def _within(relation: Relation, wanted: Wanted) -> list[pl.Expr]:
    name = relation.time_column or ""
    column = pl.col(name)
    if name in relation.columns and relation.columns[name] != pl.Datetime("us", "UTC"):
        column = column.cast(pl.Datetime("us")).dt.replace_time_zone(
            "UTC"
        )  # without zone it is UTC by declaration
    bounds = []
    if wanted.start is not None:
        bounds.append(column >= _moment(wanted.start))
    if wanted.end is not None:
        bounds.append(column < _moment(wanted.end))
    if wanted.at is not None:
        bounds.append(column.dt.time() == wanted.at)
    return bounds


def _moment(value: datetime) -> pl.Expr:
    """A time as a constant. `pl.lit` makes the same one of a datetime with zone, in half a millisecond."""
    return pl.lit((value - _EPOCH) // timedelta(microseconds=1), dtype=pl.Datetime("us", "UTC"))


def _refuse_bad_bounds(relation: Relation, start: datetime | None, end: datetime | None) -> None:
    for bound in (start, end):
        if bound is None:
            continue
        if relation.time_column is None:
            raise ValueError(f"{relation.name} has no time, so it is read whole")
        if bound.tzinfo is None:
            raise ValueError(f"{bound!r} has no time zone: bounds are aware")
