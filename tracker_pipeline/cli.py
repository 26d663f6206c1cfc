"""The `tracker` command: names, options and exit codes. 0 is done, 1 is failed, 2 is wrong usage.

What belongs here: what a person types and what is printed. What does not: the work (`commands`). Modules that take
long to import are imported by the command that needs them, so that `--help` answers at once.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from tracker_pipeline.commands.archive_app import archive_app
from tracker_pipeline.commands.terminal import Format, Summary, aware, err, out, say_nothing_of_tries
from tracker_pipeline.commands.terminal import said_plainly as _said_plainly
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.settings import get_config

app = typer.Typer(
    help="Market and on-chain data platform: bars, features, labels, whale balances, one archive.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
db_app = typer.Typer(help="The database.", no_args_is_help=True)
app.add_typer(db_app, name="db")
app.add_typer(archive_app, name="archive")
labels_app = typer.Typer(help="Labels of strategies.", no_args_is_help=True)
app.add_typer(labels_app, name="labels")


@app.command()
def demo(
    bars: Annotated[
        list[Path] | None,
        typer.Option(help="Run the market side on these bar files.", exists=True, readable=True),
    ] = None,
    symbols: Annotated[int, typer.Option(min=1, help="Coins of the universe to track.")] = 12,
    days: Annotated[int, typer.Option(min=1, help="Closed days of bars.")] = 30,
    hours: Annotated[int, typer.Option(min=1, max=48, help="Closed hours of whale balances.")] = 26,
    format: Annotated[Summary, typer.Option(help="How the summary is printed.")] = Summary.table,  # noqa: A002
) -> None:
    """Run the main job: materialize every asset family over the demo window and show what came of it."""
    with _said_plainly():
        from tracker_pipeline.commands.demo import run_demo
        from tracker_pipeline.commands.runs import interruptible
        from tracker_pipeline.commands.summary import print_report, report_as_dict

        with _progress() as progress:
            report = interruptible(
                lambda: run_demo(
                    days=days, hours=hours, symbols=symbols, bar_files=bars or [], progress=progress
                )
            )
        if format is Summary.json:
            print(json.dumps(report_as_dict(report), indent=2, default=str))  # noqa: T201
        else:
            print_report(out, report)
    raise typer.Exit(0 if report.succeeded else 1)


@app.command()
def up(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the web interface.")] = 3000,
    host: Annotated[str, typer.Option(help="Address of the web interface.")] = "127.0.0.1",
    health_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65_535, help="Port of the health service; the one after --port if not given."
        ),
    ] = None,
) -> None:
    """Run everything live: Postgres, sandbox, web interface, schedules, health. Ctrl-C stops all of it."""
    with _said_plainly():
        from tracker_pipeline.commands.up import run_up

        say = lambda text: err.print(text, highlight=False)  # noqa: E731
        code = run_up(host=host, port=port, health_port=health_port or _beside(port), say=say)
    raise typer.Exit(code)


@app.command()
def health(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.")] = 3001,
    host: Annotated[str, typer.Option(help="Address.")] = "127.0.0.1",
) -> None:
    """Serve /health, /health/simple and /metrics, also while Dagster is down. `tracker up` starts this too."""
    with _said_plainly():
        from tracker_pipeline.commands.health import serve

        serve(host=host, port=port, say=lambda text: err.print(text, highlight=False))


@app.command()
def migrate() -> None:
    """Apply sql/migrations to the database."""
    with _said_plainly():
        from tracker_pipeline.resources.postgres import database_url
        from tracker_pipeline.storage import migrations
        from tracker_pipeline.storage.database import open_connection

        with open_connection(database_url()) as connection:
            applied = migrations.apply(connection)
    out.print(
        "\n".join(f"applied {name}" for name in applied) or "nothing to apply: the database is up to date"
    )


@db_app.command("url")
def db_url(
    hold: Annotated[
        bool, typer.Option("--hold", help="Keep the server up until this process is ended.")
    ] = False,
) -> None:
    """Print the libpq URL of the database, starting the embedded server if needed."""
    with _said_plainly():
        from tracker_pipeline.storage.database import ready_url

        print(ready_url(), flush=True)  # noqa: T201
        if hold:
            _wait_for_signal()


@app.command("sql")
def sql_command(
    statement: Annotated[str, typer.Argument(help="One SELECT.")],
    format: Annotated[Format, typer.Option(help="How the result is printed.")] = Format.table,  # noqa: A002
    output: Annotated[Path | None, typer.Option(help="File to write to; needed for parquet.")] = None,
) -> None:
    """Query every table with SQL (DuckDB), hot and cold rows as one, times in UTC."""
    if format is Format.parquet and output is None and sys.stdout.isatty():
        raise typer.BadParameter("give --output FILE, or send it to a file", param_hint="--format parquet")
    with _said_plainly():
        from tracker_pipeline.commands.summary import write_rows
        from tracker_pipeline.storage.query import run_query

        rows = run_query(statement)
        write_rows(out, rows, format.value, output)


@app.command("import-bars")
def import_bars(
    paths: Annotated[list[Path], typer.Argument(help="Bar files.", exists=True, readable=True)],
    venue: Annotated[str | None, typer.Option(help="ccxt exchange id, where the file does not tell.")] = None,
    market: Annotated[str | None, typer.Option(help="spot or linear, where the file does not tell.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Symbol, where the file does not tell.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Timeframe, where the file does not tell.")] = None,
    fetched_at: Annotated[
        datetime | None, typer.Option(help="When the file was fetched (UTC): proves its last bars closed.")
    ] = None,
) -> None:
    """Load bar files through the same checks as fetched bars."""
    if market not in (None, "spot", "linear"):
        raise typer.BadParameter("spot or linear", param_hint="--market")
    with _said_plainly():
        from tracker_pipeline.commands.import_bars import file_options, import_files
        from tracker_pipeline.commands.summary import print_import

        options = file_options(
            venue=venue, market_type=market, symbol=symbol, timeframe=timeframe, fetched_at=fetched_at
        )
        with _progress() as progress:
            imported = import_files(paths, options=options, tell=progress("import"))
        print_import(out, imported)
        if not imported.written:
            raise PermanentError("no bar of these files could be loaded; the reasons are above")


@app.command()
def gaps(
    state: Literal["missing", "empty", "outage", "unlisted"] | None = None,
    symbol: Annotated[str | None, typer.Option(help="Unified symbol.")] = None,
    timeframe: Literal["1m", "5m", "15m", "1h", "4h", "1d"] | None = None,
    limit: Annotated[int, typer.Option(min=1, help="Most gaps to list.")] = 20,
    heal: Annotated[
        bool, typer.Option("--heal", help="First ask the exchange for those that are due.")
    ] = False,
    format: Annotated[Summary, typer.Option(help="How the result is printed.")] = Summary.table,  # noqa: A002
) -> None:
    """Show which bars are absent, why, and when they are asked for again. Exit code 1 if healing failed."""
    failure = ""
    with _said_plainly():
        from tracker_pipeline.commands.gaps import absences, heal_now
        from tracker_pipeline.commands.summary import print_absences

        if heal:
            with _progress() as progress:
                failure = heal_now(progress("gaps"))
        found = absences(state=state, symbol=symbol, timeframe=timeframe, limit=limit)
        print_absences(out, found, format.value)
    if failure:
        err.print(f"[red]failed:[/red] {escape(failure)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


@labels_app.command("report")
def labels_report(
    format: Annotated[Summary, typer.Option(help="How the result is printed.")] = Summary.table,  # noqa: A002
) -> None:
    """Show by strategy and month how many labels there are, how they ended, and what they earned net of costs."""
    with _said_plainly():
        from tracker_pipeline.assets.labels import stored_report
        from tracker_pipeline.commands.summary import print_label_report

        print_label_report(out, stored_report(), format.value)


@app.command()
def checks(
    since: Annotated[
        str | None,
        typer.Option(help="ISO time; checks evaluated earlier do not count. A day ago if not given."),
    ] = None,
    format: Annotated[Summary, typer.Option(help="How the result is printed.")] = Summary.table,  # noqa: A002
) -> None:
    """Show which checks failed when they were last evaluated. Exit code 1 if any did: for a CI of yours."""
    moment = aware(since, "--since") or datetime.now(UTC) - timedelta(days=1)
    with _said_plainly():
        from tracker_pipeline.commands.checks import failed_since
        from tracker_pipeline.commands.summary import print_records

        failed = failed_since(moment)
        print_records(out, failed, format.value, empty=f"no check failed since {moment:%Y-%m-%d %H:%M} UTC")
    raise typer.Exit(1 if failed else 0)


@app.command()
def sandbox(
    exchange_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the exchange; 0 takes a free one.")
    ] = 0,
    chain_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the chain; 0 takes a free one.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Another seed is another market and chain.")] = 22,
    whales: Annotated[int, typer.Option(min=1, help="Funded addresses on the chain.")] = 1_200,
    replay: Annotated[
        list[Path] | None, typer.Option(help="Bar files to serve in place of simulated prices.", exists=True)
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="What is wrong with the exchange, such as throttle:retry_after=2,every=3; repeatable."
        ),
    ] = None,
) -> None:
    """Run the sandbox exchange and chain alone, until Ctrl-C.

    What is wrong with the exchange can be changed while it runs: GET, PUT, POST and DELETE /sandbox/faults.
    """
    _refuse_wrong_faults(fault or [])
    with _said_plainly():
        from tracker_pipeline.sandbox.server import SandboxOptions, run_sandbox
        from tracker_pipeline.settings import get_settings

        folder = get_settings().state_folder / "sandbox"
        if (folder / "addresses.json").exists() and _is_running(folder / "addresses.json"):
            raise PermanentError(
                "a sandbox of this state folder is running already; stop it or set TRACKER_HOME"
            )
        options = SandboxOptions(
            folder=folder,
            symbols=[symbol.base for symbol in get_config().universe.symbols],
            seed=seed,
            exchange_port=exchange_port,
            chain_port=chain_port,
            whales=whales,
            replay=replay or (),
            faults=fault or (),
        )
        run_sandbox(options, announce=lambda addresses: err.print_json(json.dumps(addresses)))


@app.command()
def doctor() -> None:
    """Say what is wrong with this installation, in words. Exit code 1 if anything is."""
    from tracker_pipeline.commands.doctor import examine

    say_nothing_of_tries()
    findings = examine()
    for finding in findings:
        mark = "[green]ok[/green]   " if finding.ok else "[red]wrong[/red]"
        out.print(f"{mark} {finding.subject}: {finding.text}", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


def _refuse_wrong_faults(faults: list[str]) -> None:
    from tracker_pipeline.sandbox.faults import FaultError, Faults

    try:
        Faults(faults)
    except FaultError as error:
        raise typer.BadParameter(str(error), param_hint="--fault") from None


def _beside(port: int) -> int:
    """The next port, or the one before where there is none."""
    return port + 1 if port < 65_535 else port - 1


@contextmanager
def _progress() -> Iterator[Callable[[str], Callable[[str], None]]]:
    """Progress on the terminal: a line for each stage, with the step it is at and its time."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = [SpinnerColumn(finished_text="✓"), TextColumn("{task.fields[stage]:<14}"), TimeElapsedColumn()]
    with Progress(*columns, TextColumn("{task.description}"), console=err) as display:
        current: list[Any] = []

        def begin(stage: str) -> Callable[[str], None]:
            _finish(display, current)
            if not err.is_terminal:
                err.print(f"{stage} …")
            task = display.add_task("", total=1, stage=stage)
            current.append(task)
            return lambda text: display.update(task, description=text)

        yield begin
        _finish(display, current)


def _finish(display: Any, current: list[Any]) -> None:
    for task in current:
        display.update(task, completed=1)
    current.clear()


def _is_running(addresses: Path) -> bool:
    try:
        os.kill(json.loads(addresses.read_text())["pid"], 0)
    except (OSError, ValueError, KeyError):
        return False
    return True


def _wait_for_signal() -> None:
    import signal

    # SIGTERM must end the process by the ordinary way out, on which the server is stopped if unused.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pause()
