"""What is wanted of a table, and the SQL that asks the manifest for its files and Postgres for its rows.

SQL is made of plain text here: each constant is quoted by the driver, but the pieces are not objects, because putting
those together takes a tenth of the time that reading one symbol's day takes.

What belongs here: saying what is wanted. What does not: reading it (`spanning`, `narrow`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from tracker_pipeline.storage.pushdown import Condition, quoted
from tracker_pipeline.storage.relations import Relation

_FEW_DAYS = timedelta(days=100)  # within so many, moments of one time of day are written out


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

    def names(self, relation: Relation) -> list[str]:
        """The columns, in order."""
        return list(relation.columns) if self.columns is None else list(self.columns)

    def reaching(self, relation: Relation) -> list[Condition]:
        """The conditions that both stores judge like Polars."""
        return [
            c for c in self.conditions if c.column in relation.columns and c.fits(relation.columns[c.column])
        ]

    @property
    def first_day(self) -> date:
        """The first UTC day of the window."""
        return self.start.astimezone(UTC).date() if self.start else date.min

    @property
    def last_day(self) -> date:
        """The last UTC day of the window."""
        return (self.end - timedelta(microseconds=1)).astimezone(UTC).date() if self.end else date.max


def parts_statement(table: str, first: str, last: str) -> str:
    """Asks for day and path of each part of some days, by day and age.

    Args:
        table: name of the table, as SQL.
        first: day, as SQL.
        last: day, as SQL.
    """
    return (
        "SELECT data_day, path FROM archive.batches"  # noqa: S608  # constants are quoted
        f" WHERE table_name = {table} AND state = 'live' AND data_day BETWEEN {first} AND {last}"
        " ORDER BY data_day, batch_id"
    )


def rows_statement(relation: Relation, names: Sequence[str], conditions: Sequence[str]) -> str:
    """Asks for columns of the hot rows that fulfil conditions."""
    columns = [f"{relation.hot[name]} AS {quoted(name)}" for name in names]
    return select_statement(relation, columns, conditions)


def select_statement(relation: Relation, values: Sequence[str], conditions: Sequence[str]) -> str:
    """Asks for values, written as SQL, of the hot rows that fulfil conditions."""
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT {', '.join(values)} FROM {'.'.join(map(quoted, relation.qualified))}{where}"  # noqa: S608


def hot_conditions(relation: Relation, wanted: Wanted, conditions: Sequence[Condition]) -> list[str]:
    """The conditions on hot rows, the window among them."""
    asked = (c.as_sql(relation.compared(c.column)) for c in conditions)
    chosen = [*bounds(relation, wanted.start, wanted.end), *asked]
    return chosen if wanted.at is None else [*chosen, _at_time_of_day(relation, wanted, wanted.at)]


def bounds(relation: Relation, start: datetime | None, end: datetime | None) -> list[str]:
    """Conditions on the time of a row; none where there is no bound."""
    column = relation.time_column or ""
    given = [
        Condition(column, op, (moment,)) for op, moment in ((">=", start), ("<", end)) if moment is not None
    ]
    return [condition.as_sql(quoted(column)) for condition in given]


def _at_time_of_day(relation: Relation, wanted: Wanted, at: time) -> str:
    """The moments themselves where they are few: Postgres takes twice as long to ask each row for its time of day."""
    column, start, end = relation.time_column or "", wanted.start, wanted.end
    if start is not None and end is not None and end - start <= _FEW_DAYS:
        first = datetime.combine(start.astimezone(UTC).date(), at, UTC)
        moments = (first + timedelta(days=day) for day in range(_FEW_DAYS.days + 1))
        if within := tuple(moment for moment in moments if start <= moment < end):
            return Condition(column, "in", within).as_sql(quoted(column))
    return f"({quoted(column)} AT TIME ZONE 'UTC')::time = '{at.isoformat()}'::time"
