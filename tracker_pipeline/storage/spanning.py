"""One table out of hot rows in Postgres and cold rows in the lake, each row once.

The hot rows and the manifest are read in one snapshot of the database, so a move from one to the other that
commits meanwhile is seen either wholly or not at all. A hot row stands before a cold row of the same key: it is a
correction that the archive has not taken yet.

What belongs here: reads over both. What does not: moving rows (`archive`), SQL for people (`query`), which filters
reach the stores (`pushdown`), a few days of one key (`narrow`).
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import polars as pl

from tracker_pipeline.domain.bar_grid import sorted_by_series
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import narrow
from tracker_pipeline.storage.pushdown import Condition, filter_of, literal
from tracker_pipeline.storage.relations import Relation, relation_of
from tracker_pipeline.storage.snapshots import Snapshot, snapshot
from tracker_pipeline.storage.wanted import Wanted, bounds, hot_conditions, parts_statement, rows_statement

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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

    The table is read as it is now, whenever the frame is collected: its hot rows at once, its files at collection, or
    at once as well where a few days of one key are asked for. A file that is replaced meanwhile stays for another day
    (`sweeping.GRACE`).

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
        PermanentError: a file is missing or broken, a table may not be read, or a bound is given and the time column
            that its policy names is gone.
        TransientError: the database or the lake does not answer.
    """
    relation = relation_of(table)
    _refuse_bad_bounds(relation, start, end)
    kept = list(relation.columns) if columns is None else list(columns)
    needed = [*kept, *(() if predicate is None else predicate.meta.root_names())]
    if unknown := sorted(set(needed) - set(relation.columns)):
        raise KeyError(f"{table} has no column {', '.join(unknown)}")
    asked = filter_of(predicate)
    wanted = Wanted(start, end, kept, asked.conditions, at)
    if asked.whole and (series := narrow.series_of(relation, wanted)):
        return narrow.read(relation, wanted, series).lazy()
    wanted = replace(wanted, columns=list(dict.fromkeys(needed)))
    with snapshot(*hot_tables(relation)) as moment:
        rows = read(moment, relation, wanted)
    return rows.select(kept) if predicate is None else rows.filter(predicate).select(kept)


def hot_tables(relation: Relation) -> list[tuple[str, str]]:
    """What to lock before a snapshot in which the relation is read."""
    return [relation.qualified] if relation.hot else []


def read(moment: Snapshot, relation: Relation, wanted: Wanted) -> pl.LazyFrame:
    """The rows as the snapshot sees them; those that fail a condition may be among them still."""
    names, conditions = wanted.names(relation), wanted.reaching(relation)
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
    if not paths:
        empty = pl.LazyFrame(schema={n: relation.columns[n] for n in names})
        return empty if hot is None else hot.lazy().select(names)
    cold = relation.cold(paths)
    for condition in (*_within(relation, wanted), *(c.as_polars() for c in conditions)):
        cold = cold.filter(condition)
    if hot is None:
        return cold.select(names)
    if corrected is not None and relation.time_column in relation.key:
        corrected = corrected.filter(pl.col(relation.time_column or "") < _moment(_after(days)))
    if corrected is not None and corrected.height:
        cold = cold.join(corrected.lazy(), on=relation.key, how="anti")
    return pl.concat([cold.select(names), hot.lazy().select(names)])


def _judge_keys_alone(relation: Relation, conditions: Sequence[Condition]) -> bool:
    return relation.time_column in relation.key and all(c.column in relation.key for c in conditions)


def _live_parts(moment: Snapshot, relation: Relation, wanted: Wanted) -> tuple[Collection[date], list[str]]:
    """Days and files of the parts that may hold rows of the window."""
    if relation.time_column is None:
        return [], []
    table, first, last = map(literal, (relation.name, wanted.first_day, wanted.last_day))
    found = moment.read_few(parts_statement(table, first, last))
    return found.get_column("data_day").to_list(), found.get_column("path").to_list()


def _hot_rows(
    moment: Snapshot,
    relation: Relation,
    wanted: Wanted,
    names: Sequence[str],
    conditions: Sequence[Condition],
) -> pl.DataFrame:
    rows = _select(moment, relation, names, hot_conditions(relation, wanted, conditions))
    if not relation.key or not set(relation.key) <= set(names):
        return rows
    *series, last = relation.key
    if series and last == relation.time_column and rows.schema[last] == pl.Datetime("us", "UTC"):
        return sorted_by_series(rows, series, last)
    return rows.sort(relation.key)


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
    window: list[str] = []
    if relation.time_column in relation.key:
        first, last = datetime.combine(min(days), time(), UTC), _after(days)
        window = bounds(relation, max(first, wanted.start or first), min(last, wanted.end or last))
    of_key = [c.as_sql(relation.compared(c.column)) for c in conditions if c.column in relation.key]
    return _select(moment, relation, relation.key, [*window, *of_key])


def _after(days: Collection[date]) -> datetime:
    """The end of the last of some days."""
    return datetime.combine(max(days), time(), UTC) + timedelta(days=1)


def _select(
    moment: Snapshot, relation: Relation, names: Sequence[str], conditions: Sequence[str]
) -> pl.DataFrame:
    statement = rows_statement(relation, names, conditions)
    return moment.read(statement).cast({name: relation.columns[name] for name in names})


def _within(relation: Relation, wanted: Wanted) -> list[pl.Expr]:
    """What cold rows of the days in question must fulfil still.

    A part has rows of one day, so that a bound at midnight is kept by the choice of parts. To ask each row again
    takes a tenth of the time that reading it takes.
    """
    name = relation.time_column or ""
    column = pl.col(name)
    if name in relation.columns and relation.columns[name] != pl.Datetime("us", "UTC"):
        column = column.cast(pl.Datetime("us")).dt.replace_time_zone(
            "UTC"
        )  # without zone it is UTC by declaration
    asked = []
    if wanted.start is not None and not _is_midnight(wanted.start):
        asked.append(column >= _moment(wanted.start))
    if wanted.end is not None and not _is_midnight(wanted.end):
        asked.append(column < _moment(wanted.end))
    if wanted.at is not None:
        asked.append(column.dt.time() == wanted.at)
    return asked


def _is_midnight(moment: datetime) -> bool:
    return moment.astimezone(UTC).time() == time()


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
        if not relation.has_time_column:
            raise PermanentError(
                f"{relation.name} has no time {relation.time_column}: correct time_column in its policy"
            )
