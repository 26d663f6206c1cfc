"""`tracker archive`: names and options.

What belongs here: what a person types. What does not: the work (`archive`), and what is printed (`summary`).
"""

from contextlib import nullcontext
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated

import typer

from tracker_pipeline.commands.terminal import Summary, aware, out, said_plainly
from tracker_pipeline.resources.errors import PermanentError

archive_app = typer.Typer(help="The archive of old rows.", no_args_is_help=True)

Table = Annotated[str | None, typer.Option("--table", help="schema.name; all if not given.")]
Day = Annotated[datetime | None, typer.Option("--day", formats=["%Y-%m-%d"], help="One day.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done; write nothing.")]
Form = Annotated[Summary, typer.Option("--format", help="How the result is printed.")]


class OnConflict(StrEnum):
    """What to do with an archived row whose key Postgres holds with other content."""

    fail = "fail"
    keep = "keep"
    overwrite = "overwrite"


@archive_app.command("run")
def archive_run(
    table: Annotated[
        str | None, typer.Option(help="schema.name; all that have a policy if not given.")
    ] = None,
    day: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="One day; all if not given.")
    ] = None,
    cut: Annotated[
        str | None, typer.Option(help="ISO time before which rows are moved; by the policies if not given.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would move.")] = False,
    format: Annotated[Summary, typer.Option(help="How the result is printed.")] = Summary.table,  # noqa: A002
) -> None:
    """Move the rows that are due to the lake. Exit code 1 if a table failed; the others moved all the same."""
    with said_plainly():
        from tracker_pipeline.commands.archive import run_archive
        from tracker_pipeline.commands.summary import print_records

        records, problems = run_archive(
            table, day=day.date() if day else None, cut=aware(cut), dry_run=dry_run
        )
        print_records(out, records, format.value, empty="no row is due")
        if problems:
            raise PermanentError("; ".join(problems))


@archive_app.command("status")
def archive_status(table: Table = None, form: Form = Summary.table) -> None:
    """Show what is hot and what is cold, what both take, and what the archive saves."""
    with said_plainly():
        from tracker_pipeline.commands.archive import archive_overview
        from tracker_pipeline.commands.summary import print_archive, print_records

        records = archive_overview(table)
        if form is Summary.json:
            print_records(out, records, form.value)
        else:
            print_archive(out, records)


@archive_app.command("audit")
def archive_audit(
    table: Table = None,
    quick: Annotated[bool, typer.Option("--quick", help="Compare sizes and read no file.")] = False,
    form: Form = Summary.table,
) -> None:
    """Compare the manifest with the files: missing, altered and orphaned ones, counts, keys that stand twice.

    Exit code 1 if rows are lost or doubled; orphaned files and keys that were used again are named only.
    """
    with said_plainly():
        from tracker_pipeline.commands.archive import audit
        from tracker_pipeline.commands.summary import print_records

        with out.status("reading every file") if out.is_terminal else nullcontext():
            found = audit(table, quick=quick)
        problems = [vars(problem) for problem in found.problems]
        summary = f"{found.parts:,} parts with {found.rows:,} rows and {found.bytes:,} bytes"
        print_records(out, problems, form.value, empty=f"all as the manifest says: {summary}")
        if problems and form is Summary.table:
            out.print(f"of {summary}", highlight=False)
    raise typer.Exit(1 if found.losses else 0)


@archive_app.command("restore")
def archive_restore(
    table: Annotated[str, typer.Option("--table", help="schema.name")],
    day: Day = None,
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="Earliest day, in place of --day.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Latest day, in place of --day.")
    ] = None,
    on_conflict: Annotated[
        OnConflict,
        typer.Option(
            help="Where Postgres holds a key with other content: restore nothing of the day, keep that row, or"
            " overwrite it."
        ),
    ] = OnConflict.fail,
    hold_days: Annotated[
        float, typer.Option(min=0, help="For how long the days are not archived again.")
    ] = 7,
    dry_run: DryRun = False,
    form: Form = Summary.table,
) -> None:
    """Bring archived days back to Postgres. Each is proven and committed by itself; again does nothing."""
    if (day is None) == (first is None and last is None):
        raise typer.BadParameter("give --day, or --from and --to", param_hint="--day")
    if first is not None and last is not None and last < first:
        raise typer.BadParameter("it lies before --from", param_hint="--to")
    with said_plainly():
        from tracker_pipeline.commands.archive import restore
        from tracker_pipeline.commands.summary import print_records

        records = restore(
            table,
            _date(day or first),
            _date(day or last),
            on_conflict=on_conflict.value,
            hold_days=hold_days,
            dry_run=dry_run,
        )
        print_records(out, records, form.value, empty="no archived rows in these days")


@archive_app.command("compact")
def archive_compact(
    table: Table = None, day: Day = None, dry_run: DryRun = False, form: Form = Summary.table
) -> None:
    """Merge the parts that late rows have made of a day into one. Exit code 1 if a day failed."""
    with said_plainly():
        from tracker_pipeline.commands.archive import compact
        from tracker_pipeline.commands.summary import print_records

        records = compact(table, _date(day), dry_run=dry_run)
        print_records(out, records, form.value, empty="no day has several parts")
        if failed := [one["note"] for one in records if one["outcome"] == "failed"]:
            raise PermanentError("; ".join(failed))


@archive_app.command("sweep")
def archive_sweep(dry_run: DryRun = False, form: Form = Summary.table) -> None:
    """Let go what cold retention lets go (by default nothing), and remove files that no reader can need."""
    with said_plainly():
        from tracker_pipeline.commands.archive import expire_and_sweep
        from tracker_pipeline.commands.summary import print_records

        print_records(out, expire_and_sweep(dry_run=dry_run), form.value, empty="nothing to remove")


@archive_app.command("drill")
def archive_drill(table: Table = None, form: Form = Summary.table) -> None:
    """Restore a random archived day to a scratch table and compare every column with what was archived."""
    with said_plainly():
        from tracker_pipeline.commands.archive import drill
        from tracker_pipeline.commands.summary import print_records

        print_records(out, drill(table), form.value, empty="nothing is archived yet")


def _date(moment: datetime | None) -> date | None:
    return moment.date() if moment else None
