"""Moves rows from Postgres to the lake, exactly once: the entry points, and who may run when.

A file is written, read back and compared with the database first; then one transaction removes the rows and makes the
file live. Until that commits nobody sees the file, after it the rows are gone: a reader finds each row in one place,
whenever it looks and wherever a run breaks off.

What belongs here: one table or one day from lock to report. What does not: the move of the rows itself (`row_mode`,
`partition_mode`), when to move (`assets.archive`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final

import psycopg

from tracker_pipeline.domain.schemas import Table
from tracker_pipeline.resources.errors import PermanentError, PipelineError, TransientError
from tracker_pipeline.storage import partition_mode
from tracker_pipeline.storage.archive_locks import only_runner
from tracker_pipeline.storage.archive_policy import Policy, get_policies
from tracker_pipeline.storage.arrow_memory import little_memory
from tracker_pipeline.storage.catalogue import LiveTable, live_table
from tracker_pipeline.storage.database import Connection, connect
from tracker_pipeline.storage.drafts import Drafts
from tracker_pipeline.storage.eligibility import (
    DAY,
    LeftBehind,
    eligible_days,
    left_behind,
    quoted,
    refuse_bad_condition,
    refuse_bad_policy,
)
from tracker_pipeline.storage.holds import held_days
from tracker_pipeline.storage.kept_connection import KeptConnection
from tracker_pipeline.storage.moving import Moved, Run, move_one
from tracker_pipeline.storage.part_copy import Step, Work

_MOST_SAID: Final = 3


@dataclass
class TableReport:
    """What a run did with one table.

    Attributes:
        outcome: `moved`, `nothing` where no row was due, `skipped` where another run is at it, `failed`, or
            `would move` of a dry run.
        days: each day that was looked at; of a dry run, with the rows that would move.
        left_behind: rows that no run moves.
        failures: what went wrong, in the order of the days.
    """

    table: str
    cut: datetime
    outcome: str = "nothing"
    days: list[Moved] = field(default_factory=list)
    left_behind: LeftBehind = field(default_factory=LeftBehind)
    failures: list[Exception] = field(default_factory=list)

    @property
    def problem(self) -> str:
        """What went wrong, in a sentence for each different failure; empty where nothing did."""
        said = list(dict.fromkeys(map(plain_words, self.failures)))
        more = [f"{len(said) - _MOST_SAID} other failures"] if len(said) > _MOST_SAID else []
        return "; ".join([*said[:_MOST_SAID], *more])

    def raise_failure(self) -> None:
        """Raise the problem, if there is one.

        Raises:
            PermanentError: trying again gives the same.
            TransientError: trying again may succeed, for one of the days at least.
        """
        if self.failures:
            kind = PermanentError if all(map(_is_permanent, self.failures)) else TransientError
            raise kind(self.problem) from self.failures[0]


def archive_tables(
    names: Sequence[str] | None = None,
    *,
    first: date | None = None,
    last: date | None = None,
    cut: datetime | None = None,
    dry_run: bool = False,
    run_id: str,
) -> list[TableReport]:
    """Move what is due of some tables, or of all that have a policy; one that fails does not stop the others.

    Args:
        names: which tables; all if not given.
        first: earliest day; none is too old if not given.
        last: latest day.
        cut: rows before this moment move; the table's retention before now if not given.
        dry_run: only say what would move. Nothing is written anywhere.
        run_id: recorded with each part.

    Raises:
        PermanentError: a table of the policies' schemas is named by none, or `names` has one that is never archived.
    """
    policies = get_policies()
    chosen = {name: policies.of(name) for name in (names or policies.archived)}
    with connect() as connection:
        policies.refuse_unclassified(connection)
    now = datetime.now(UTC)
    return [
        _archive_table(
            name,
            policy,
            (first or date.min, last or date.max),
            cut or now - policy.retention,
            dry_run,
            run_id,
        )
        for name, policy in chosen.items()
    ]


def _archive_table(
    name: str, policy: Policy, bounds: tuple[date, date], cut: datetime, dry_run: bool, run_id: str
) -> TableReport:
    """Move the due days of one table; what goes wrong is in the report."""
    report = TableReport(name, cut)
    try:
        with connect() as connection:
            table = live_table(connection, name)
            refuse_bad_policy(table, policy)
            refuse_bad_condition(connection, table, policy)
            report.left_behind = left_behind(connection, table, policy, cut)
            if dry_run:
                held = _held_back(connection, table, policy, cut)
                rows = rows_of_due_days(connection, table, policy, cut)
                due = [day for day in rows if bounds[0] <= day <= bounds[1]]
                report.days = [
                    Moved(d, 0, 0, reason="held back since it was restored")
                    if d in held
                    else Moved(d, rows[d], 0)
                    for d in due
                ]
                report.outcome = "would move" if set(due) - held else "nothing"
                return report
            due = [d for d in due_days(connection, table, policy, cut) if bounds[0] <= d <= bounds[1]]
        with only_runner(name) as alone:
            if not alone:
                report.outcome = "skipped"
                return report
            _move_days(report, Run(name, policy, cut, run_id, _no_step), due)
    except Exception as error:  # whatever is wrong with one table must not stop the others
        _note_failure(report, error)
    return report


def _note_failure(report: TableReport, error: Exception) -> None:
    report.outcome = "failed"
    report.failures.append(error)


def _is_permanent(error: Exception) -> bool:
    return isinstance(error, PermanentError | psycopg.ProgrammingError | psycopg.IntegrityError)


def _move_days(report: TableReport, run: Run, due: Sequence[date]) -> None:
    with little_memory(), Drafts(run, due) as drafts, KeptConnection() as kept:
        for day in due:
            if day not in {known.day for known in report.days}:  # else it went with its partition
                _move_one(report, run, day, drafts, kept)


def _move_one(report: TableReport, run: Run, day: date, drafts: Drafts, kept: KeptConnection) -> None:
    try:
        moved = move_one(kept, run, day, drafts.of_day(day))
    except Exception as error:
        # A day that cannot move now does not keep the others: each is for itself.
        _note_failure(report, error)
        return
    report.days += [one for one in moved if one.day not in {known.day for known in report.days}]
    if any(one.rows_moved for one in moved) and report.outcome == "nothing":
        report.outcome = "moved"


def move_day(table: Table | str, day: date, *, cut: datetime, run_id: str, step: Step | None = None) -> Moved:
    """Move the rows of one UTC day that lie before `cut` and cannot change any more.

    Rows that come late for a day already archived become one more part of it. Where a key is archived already, the
    policy says whether the row corrects the archived one.

    Args:
        table: schema and table.
        day: the day.
        cut: rows before this moment move.
        run_id: recorded with the part.
        step: told the name of each step as it is reached.

    Raises:
        PermanentError: the table is not one that can be archived.
        TransientError: the lake cannot be written to, or the rows changed while they were moved; nothing moved.
    """
    name = table if isinstance(table, str) else table.name
    if isinstance(table, Table) and (table.time_column is None or table.store != "postgres"):
        raise PermanentError(f"{name} has no hot rows with a time, so there is nothing to archive")
    policy = get_policies().of(name)
    with only_runner(name) as alone:
        if not alone:
            return Moved(day, 0, 0, reason="skipped: another run is archiving this table")
        run = Run(name, policy, cut, run_id, step or _no_step)
        with little_memory(), Drafts(run, [day]) as drafts, KeptConnection() as kept:
            return move_one(kept, run, day, drafts.of_day(day))[0]


def plain_words(error: Exception) -> str:
    """One sentence of an error."""
    if isinstance(error, PipelineError):
        return str(error)
    words = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, psycopg.Error):
        return f"the database refused: {words}"
    return f"{type(error).__name__}, which this program did not foresee: {words}"


def _no_step(_: str) -> None:
    return


def hot_days(table: Table | str, cut: datetime | None = None) -> list[date]:
    """UTC days with rows in Postgres that are due at a cut and not held back, in order."""
    name = table if isinstance(table, str) else table.name
    policy, cut = get_policies().of(name), cut or datetime.now(UTC)
    with connect() as connection:
        live = live_table(connection, name)
        held = _held_back(connection, live, policy, cut)
        return [day for day in due_days(connection, live, policy, cut) if day not in held]


def due_days(connection: Connection, table: LiveTable, policy: Policy, cut: datetime) -> list[date]:
    """UTC days with rows that may move at a cut, in order."""
    if policy.mode == "row":
        return list(eligible_days(connection, table, policy, cut))
    return partition_mode.due_days(connection, _of_any_day(table, policy, cut))


def rows_of_due_days(
    connection: Connection, table: LiveTable, policy: Policy, cut: datetime
) -> dict[date, int]:
    """The same with the number of rows of each day."""
    if policy.mode == "row":
        return eligible_days(connection, table, policy, cut)
    return partition_mode.rows_of_due_days(connection, _of_any_day(table, policy, cut))


def _held_back(connection: Connection, table: LiveTable, policy: Policy, cut: datetime) -> set[date]:
    """Days that are held back; in partition mode with the other days of their partitions."""
    held = held_days(connection, table.name)
    if policy.mode == "row" or not held:
        return held
    found = set(held)
    for partition in partition_mode.due_partitions(connection, _of_any_day(table, policy, cut)):
        first, end = partition.start.astimezone(UTC).date(), partition.end.astimezone(UTC).date()
        days = {first + DAY * n for n in range(max((end - first).days, 1))}
        found |= days if days & held else set()
    return found


def _of_any_day(table: LiveTable, policy: Policy, cut: datetime) -> Work:
    return Work(table, policy, date.min, cut, quoted(table), "true", "")
