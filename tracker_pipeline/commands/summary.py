"""What commands print: tables for people, JSON and files for programs.

What belongs here: formatting. What does not: figures.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from tracker_pipeline.domain.label_report import net_bar

# A table wider than the terminal is cut on the right, not in every column.
_WIDTHS = {"asset": 31, "rows": 7, "hot": 7, "cold": 7, "content": 8, "checks": 6}
_ANY_WIDTH = 1_000_000

if TYPE_CHECKING:
    from tracker_pipeline.commands.demo import Report
    from tracker_pipeline.commands.gaps import Absences
    from tracker_pipeline.commands.import_bars import Imported


def print_report(console: Console, report: "Report") -> None:
    """Print what the demo did and what there is now."""
    if report.imported:
        print_import(console, report.imported)
    # Seven columns of figures in the 80 of an ordinary terminal.
    stored = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("asset", "rows", "hot", "cold", "content", "checks", "s"):
        justify: JustifyMethod = "left" if name in ("asset", "content") else "right"
        stored.add_column(name, no_wrap=True, min_width=_WIDTHS.get(name), justify=justify)
    for row in report.assets:
        failed = f"{row['checks_failed']} failed" if row["checks_failed"] else ""
        checks = failed or (f"{row['checks_passed']} ok" if row["checks_passed"] else "-")
        counts = [f"{row[name]:,}" for name in ("rows", "hot", "cold")]
        stored.add_row(row["asset"], *counts, row["content"], checks, f"{row['seconds']:.1f}")
    console.print(stored)
    stages = ", ".join(f"{name} {outcome.seconds:.1f} s" for name, outcome in report.outcomes)
    console.print(f"Time of the stages: {stages}", highlight=False)
    if report.score:
        console.print(_score_line(report.score), highlight=False)
    for _, outcome in report.outcomes:
        for problem in [outcome.failure, *outcome.problems]:
            if problem:
                console.print(f"[red]failed:[/red] {problem}", highlight=False)
        for warning in outcome.warnings:
            console.print(f"[yellow]warning:[/yellow] {warning}", highlight=False)
    done = "Everything succeeded" if report.succeeded else "Not everything succeeded"
    console.print(f"{done}. Look at it with: tracker up")


def _score_line(score: Mapping[str, Any]) -> str:
    head = f"Score of {score['snapshot_timestamp']:%Y-%m-%d %H:%M} UTC over {score['lookback_hours']} h: "
    if score["status"] == "no_baseline":
        return head + "no_baseline, there is no snapshot that long before"
    return (
        f"{head}{score['score_pct']} % ({score['band']}), {score['accumulators']} gained and"
        f" {score['distributors']} lost more than gas and rebases, {score['matched']} of {score['universe']}"
        " addresses matched"
    )


def report_as_dict(report: "Report") -> dict[str, Any]:
    """The demo's report for programs."""
    return {
        "succeeded": report.succeeded,
        "assets": report.assets,
        "score": report.score,
        "imported": vars(report.imported) if report.imported else None,
        "stages": [
            {
                "stage": name,
                "seconds": round(outcome.seconds, 2),
                "failure": outcome.failure,
                "problems": outcome.problems,
                "warnings": outcome.warnings,
            }
            for name, outcome in report.outcomes
        ],
    }


def print_import(console: Console, imported: "Imported") -> None:
    """Print what an import did."""
    table = Table("timeframe", "read", "accepted", "identical", "revised", "rejected", title="Imported bars")
    for column in table.columns[1:]:
        column.justify = "right"
    for timeframe in sorted(
        {*imported.written, *(name for name, count in imported.rejected.items() if count)}
    ):
        written, rejected = imported.written.get(timeframe), imported.rejected[timeframe]
        counts = (written.inserted, written.unchanged, written.updated) if written else (0, 0, 0)
        table.add_row(timeframe, *(f"{n:,}" for n in (sum(counts) + rejected, *counts, rejected)))
    console.print(table)
    for reason, count in sorted(imported.left_out.items()):
        console.print(f"left out {count:,}: {reason}", highlight=False)
    if imported.rejected.total():
        console.print("The rejected bars are in market.bar_quarantine.", highlight=False)


def print_records(
    console: Console, records: Sequence[Mapping[str, Any]], form: str, *, empty: str = "nothing"
) -> None:
    """Print like records as a table or as JSON."""
    if form == "json":
        print(json.dumps(list(records), indent=2, default=str))  # noqa: T201
        return
    if not records:
        console.print(empty)
        return
    cells = [[_plain(value) for value in record.values()] for record in records]
    _print_cells(console, list(records[0]), cells)


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else f"{value}"


def _print_cells(console: Console, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows side by side where no word has to be cut for it, else one below the other."""
    table = Table(*names)
    for row in rows:
        table.add_row(*map(Text, row))  # brackets of a value are no markup
    if not rows:
        console.print(table)
        return
    if _print_whole(console, table):
        return
    width = max(map(len, names))
    for number, row in enumerate(rows, 1):
        console.print(f"row {number:,}", style="bold", highlight=False)
        for name, value in zip(names, row, strict=True):
            console.print(Text(f"  {name:<{width}}  {value}"), soft_wrap=True)


def _print_whole(console: Console, table: Table) -> bool:
    """Print a table unless words of it had to be cut; a file has room for any, a terminal has not."""
    needed = console.measure(table, options=console.options.update(max_width=_ANY_WIDTH))
    cannot_wrap = any(column.no_wrap for column in table.columns)
    if (needed.maximum if cannot_wrap else needed.minimum) <= console.width:
        console.print(table)
        return True
    if console.is_terminal:
        return False
    Console(file=console.file, width=needed.maximum).print(table)
    return True


def print_absences(console: Console, found: "Absences", form: str) -> None:
    """Print which bars are absent."""
    if form == "json":
        print(json.dumps(asdict(found), indent=2, default=str))  # noqa: T201
        return
    if not found.totals:
        console.print("no bar is absent")
    for title, records in (("Absent bars", found.totals), ("Outages", found.outages), ("Gaps", found.gaps)):
        if records:
            console.print(title)
            print_records(console, records, form)
    if found.more:
        console.print(f"and {found.more:,} more: --limit shows more, --state and --symbol fewer")


def write_rows(console: Console, rows: pl.DataFrame, form: str, output: Path | None) -> None:
    """Write the rows of a query in the form asked for, to a file or to standard output."""
    if form == "parquet":
        rows.write_parquet(output if output else sys.stdout.buffer)
    elif form == "csv":
        text = rows.write_csv(datetime_format="%Y-%m-%d %H:%M:%S%.f%:z")
        _write_text(text, output)
    elif form == "json":
        _write_text(json.dumps(rows.to_dicts(), default=str, indent=2) + "\n", output)
    else:
        _print_cells(
            console, rows.columns, [["" if v is None else str(v) for v in row] for row in rows.rows()]
        )
        console.print(f"{rows.height:,} rows")


def _write_text(text: str, output: Path | None) -> None:
    if output:
        output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


def print_label_report(console: Console, report: pl.DataFrame, form: str) -> None:
    """Print labels by strategy and month: counts first, then means over what was traded."""
    if form == "json":
        print(json.dumps(report.to_dicts(), indent=2, default=str))  # noqa: T201
        return
    columns = {
        "strategy": "strategy", "month": "month", "labels": "n", "traded": "in", "win": "win", "loss": "loss",
        "breakeven": "even", "timeout": "time", "pending": "open", "unresolved": "lost", "gross_mean_pct": "gross",
        "net_mean_pct": "net", "net_positive_frac": "net>0", "hold_mean_hours": "hold",
    }  # fmt: skip
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    rounded = report.with_columns(pl.col("hold_mean_hours").round(1).cast(pl.String))
    rows = [[_cell(value) for value in row] for row in rounded.select(list(columns)).rows()]
    for place, (name, title) in enumerate(columns.items()):
        # The bar at the end gives way to the figures.
        width = max(map(len, [title, *(row[place] for row in rows)]))
        justify: JustifyMethod = "left" if name in ("strategy", "month") else "right"
        table.add_column(title, no_wrap=True, min_width=width, justify=justify)
    table.add_column("", no_wrap=True, overflow="crop")
    for row, net in zip(rows, report.get_column("net_mean_pct"), strict=True):
        table.add_row(*row, net_bar(net))
    console.print(table if report.height else "no labels yet: materialize labels, or run tracker demo")
    console.print(
        "in: entered and left, the base of the means; gross and net in %, half a % of net for each block, filled"
        " above 0; hold in hours",
        highlight=False,
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:%Y-%m}" if isinstance(value, date) else f"{value}"


def print_archive(console: Console, tables: Sequence[Mapping[str, Any]]) -> None:
    """Print what is hot and cold of each table, with a line of sums."""
    titles = (
        "table", "keep", "hot rows", "hot", "cold rows", "files", "cold", "saved", "x", "cold days", "held"
    )  # fmt: skip
    shown = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for title in titles:
        shown.add_column(title, no_wrap=True, justify="left" if title in ("table", "cold days") else "right")
    for one in tables:
        shown.add_row(*_archive_cells(one))
    if not _print_whole(console, shown):
        _print_archive_briefly(console, tables)
    cold, saved = (sum(one[name] for one in tables) for name in ("bytes", "saved_bytes"))
    rows = sum(one["cold_rows"] for one in tables)
    console.print(
        f"{rows:,} rows archived in {_size(cold) or '0'}, which took {_size(saved + cold) or '0'} in Postgres with"
        " their indexes",
        highlight=False,
    )


def _archive_cells(one: Mapping[str, Any]) -> list[str]:
    return [
        one["table"], f"{one['retention_days']:g} d",
        "no table" if one["hot_rows"] is None else f"{one['hot_rows']:,}", _size(one["hot_bytes"]),
        f"{one['cold_rows']:,}", f"{one['files']:,}", _size(one["bytes"]), _size(one["saved_bytes"]),
        "" if one["compression"] is None else f"{one['compression']:g}",
        f"{one['oldest_day']} … {one['newest_day']}" if one["files"] else "",
        f"{one['held_days']} d" if one["held_days"] else "",
    ]  # fmt: skip


def _print_archive_briefly(console: Console, tables: Sequence[Mapping[str, Any]]) -> None:
    """What fits in 80 columns: two lines a table, the second only where something is archived."""
    for one in tables:
        name, keep, hot_rows, hot, cold_rows, files, cold, saved, ratio, days, held = _archive_cells(one)
        console.print(f"{name:<31} {hot_rows:>13} hot in {hot}, kept {keep}", highlight=False)
        if one["files"]:
            smaller = f", {ratio} x smaller, saves {saved}" if ratio else ""
            held_back = f", {held} held back" if held else ""
            console.print(f"    {cold_rows} cold in {cold}{smaller}", highlight=False)
            console.print(f"    {files} files, {days}{held_back}", highlight=False)


def _size(count: int) -> str:
    """Bytes as a person reads them."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1_000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1_000
    return ""
