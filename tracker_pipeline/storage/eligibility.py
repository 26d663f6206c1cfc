"""Which rows may move: those before the cut that cannot change any more, by UTC day of their time.

What belongs here: the conditions, and counts by them. What does not: the moves.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import psycopg
from psycopg import sql

from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage.archive_policy import Policy
from tracker_pipeline.storage.catalogue import LiveTable, other_partitions
from tracker_pipeline.storage.database import Connection

DAY: Final = timedelta(days=1)
# A day counts as over once its last rows are final for certain, whatever cut is given.
SETTLING: Final = timedelta(hours=1)
# Clocks of hosts differ; a time further ahead than this is wrong.
_AHEAD: Final = timedelta(minutes=5)
_TIME_TYPES: Final = ("timestamp", "timestamptz", "date")
_FIRST_DAY: Final = date(1, 1, 1)


@dataclass(frozen=True)
class LeftBehind:
    """Rows that no run moves, which is reported.

    Attributes:
        without_time: NULL or without a day in the years 1 to 9999.
        ahead: their time lies in the future.
        may_change: older than the cut, and may still change.
        apart: older than the cut, in a partition that is never dropped as a whole.
    """

    without_time: int = 0
    ahead: int = 0
    may_change: int = 0
    apart: int = 0

    def __str__(self) -> str:
        """In words; empty where there are none."""
        said = [
            f"{count} rows {text}"
            for count, text in (
                (self.without_time, "without a time stay"),
                (self.ahead, "with a time in the future stay"),
                (self.may_change, "before the cut may still change and stay"),
                (
                    self.apart,
                    "before the cut stay in partitions without two bounds (DEFAULT) or with partitions of"
                    " their own",
                ),
            )
            if count
        ]
        return ", ".join(said)


def refuse_bad_policy(table: LiveTable, policy: Policy) -> None:
    """Refuse a policy that the table cannot follow.

    Raises:
        PermanentError: a column is missing or has no time; partition mode without native partitions.
    """
    column = table.column(policy.time_column)
    if column is None:
        raise PermanentError(
            f"{table.name} has no column {policy.time_column}: correct time_column in its policy"
        )
    if column.base not in _TIME_TYPES:
        raise PermanentError(
            f"{table.name}: {policy.time_column} is of the type {column.type}, which has no day;"
            " give a timestamp or date as time_column"
        )
    missing = [name for name in policy.sort if table.column(name) is None]
    if missing:
        raise PermanentError(f"{table.name} has no column {', '.join(missing)}: correct sort in its policy")
    if policy.mode == "partition" and table.partition_column != policy.time_column:
        raise PermanentError(
            f"{table.name} is not partitioned by ranges of {policy.time_column}: set the mode row in its policy"
        )
    if not table.key and not policy.allow_no_key:
        raise PermanentError(
            f"{table.name} has no primary key, so restored rows could not be told from others:"
            " give it one, or set allow_no_key in its policy"
        )


def refuse_bad_condition(connection: Connection, table: LiveTable, policy: Policy) -> None:
    """Refuse a policy whose `may_change_while` Postgres does not understand or may not judge.

    Raises:
        PermanentError: it does not.
    """
    try:
        connection.execute(f"SELECT FROM {quoted(table)} WHERE {settled(policy, datetime.now(UTC))} LIMIT 0")
    except (psycopg.ProgrammingError, psycopg.DataError) as error:
        raise PermanentError(
            f"{table.name}: may_change_while in its policy is no condition on its rows"
            f" ({str(error).splitlines()[0]}): {policy.may_change_while}"
        ) from error


def condition_of_day(table: LiveTable, policy: Policy, day: date, cut: datetime) -> str:
    """SQL condition on the rows of one day that may move."""
    start = datetime.combine(day, time(), UTC)
    bounds = f"{_at_least(table, policy, start)} AND {_before(table, policy, min(start + DAY, cut))}"
    return f"{bounds} AND {settled(policy, cut)}"


def settled(policy: Policy, cut: datetime) -> str:
    """SQL condition: the row cannot change any more; one for which that is unknown can."""
    if policy.may_change_while is None:
        return "true"
    return f"(({with_cut(policy.may_change_while, cut)}) IS FALSE)"


def with_cut(condition: str, cut: datetime) -> str:
    """A condition of a policy with `:cut` filled in."""
    return condition.replace(":cut", f"'{cut.astimezone(UTC).isoformat()}'::timestamptz")


def eligible_days(connection: Connection, table: LiveTable, policy: Policy, cut: datetime) -> dict[date, int]:
    """UTC days before the cut that have rows which may move, with their number, in order."""
    cut = min(cut, datetime.now(UTC))
    if policy.whole_days:
        cut = whole_days_before(cut)
    day = day_sql(table, policy)
    condition = (
        f"{_at_least(table, policy, datetime.combine(_FIRST_DAY, time(), UTC))}"
        f" AND {_before(table, policy, cut)} AND {settled(policy, cut)}"
    )
    rows = connection.execute(
        f"SELECT {day}, count(*) FROM {quoted(table)} WHERE {condition} GROUP BY 1 ORDER BY 1"  # noqa: S608
    ).fetchall()
    return dict(rows)


def whole_days_before(cut: datetime) -> datetime:
    """The end of the last day that is wholly before the cut and settled."""
    closed = min(cut, datetime.now(UTC) - SETTLING).astimezone(UTC)
    return datetime.combine(closed.date(), time(), UTC)


def left_behind(connection: Connection, table: LiveTable, policy: Policy, cut: datetime) -> LeftBehind:
    """Count the rows that stay whatever their age."""
    name = sql.Identifier(policy.time_column).as_string(None)
    dayless = (
        f"{name} IS NULL OR {name} < {_literal(table, policy, datetime.combine(_FIRST_DAY, time(), UTC))}"
    )
    ahead = f"NOT {_before(table, policy, datetime.now(UTC) + _AHEAD)}"
    still = f"{_before(table, policy, cut)} AND NOT {settled(policy, cut)}"
    # Three statements of one condition each find an index; one with filters reads the whole table.
    counts = [
        f"(SELECT count(*) FROM {quoted(table)} WHERE {condition})"  # noqa: S608
        for condition in (dayless, ahead, still if policy.may_change_while else "false")
    ]
    others = other_partitions(connection, table) if policy.mode == "partition" else []
    before = _before(table, policy, cut)
    apart = [f"(SELECT count(*) FROM {one} WHERE {before})" for one in others]  # noqa: S608
    counts.append(" + ".join(apart) or "0")
    row = connection.execute(f"SELECT {', '.join(counts)}").fetchone()
    return LeftBehind(*row) if row else LeftBehind()


def quoted(table: LiveTable) -> str:
    """The qualified name as SQL."""
    return table.identifier.as_string(None)


def day_sql(table: LiveTable, policy: Policy) -> str:
    """SQL of the UTC day of a row."""
    name = sql.Identifier(policy.time_column).as_string(None)
    column = table.column(policy.time_column)
    if column is not None and column.base == "timestamptz":
        return f"({name} AT TIME ZONE 'UTC')::date"
    return f"{name}::date"


def _at_least(table: LiveTable, policy: Policy, moment: datetime) -> str:
    return f"{sql.Identifier(policy.time_column).as_string(None)} >= {_literal(table, policy, moment)}"


def _before(table: LiveTable, policy: Policy, moment: datetime) -> str:
    return f"{sql.Identifier(policy.time_column).as_string(None)} < {_literal(table, policy, moment)}"


def _literal(table: LiveTable, policy: Policy, moment: datetime) -> str:
    """A moment in the type of the time column; of a date, the first day that does not begin before it."""
    column = table.column(policy.time_column)
    utc = moment.astimezone(UTC)
    if column is not None and column.base == "timestamptz":
        return f"'{utc.isoformat()}'::timestamptz"
    if column is not None and column.base == "date":
        whole = utc.time() == time()
        return f"'{(utc.date() if whole else utc.date() + DAY).isoformat()}'::date"
    return f"'{utc.replace(tzinfo=None).isoformat()}'::timestamp"
