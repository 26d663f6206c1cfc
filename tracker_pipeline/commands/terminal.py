"""What every command of `tracker` shares: where it prints, in which forms, and how a failure is said.

What belongs here: the frame around a command. What does not: commands (`cli`, `archive_app`).
"""

import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from tempfile import gettempdir

import typer
from rich.console import Console
from rich.markup import escape

from tracker_pipeline.resources.errors import PermanentError, PipelineError
from tracker_pipeline.settings import ConfigurationError, get_config, get_settings

out = Console()
err = Console(stderr=True)


class Format(StrEnum):
    """How a result is printed."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


class Summary(StrEnum):
    """How a summary is printed."""

    table = "table"
    json = "json"


def make_state_folder() -> Path:
    """The state folder, which is there from now on.

    Raises:
        PermanentError: it cannot be made or written to.
    """
    folder = get_settings().state_folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise PermanentError(
            f"the state folder {folder} cannot be used ({error.strerror}): set TRACKER_HOME to one that can"
        ) from error
    return folder


def say_nothing_of_tries() -> None:
    """Keep the notes on tries that failed from the terminal: how the last one ended is what a person is told."""
    from stamina.instrumentation import set_on_retry_hooks  # 40 ms, which --help does without

    set_on_retry_hooks([])


@contextmanager
def said_plainly() -> Iterator[None]:
    """Print a failure as its one sentence and end with 1; what nobody foresaw goes to a log as well."""
    try:
        get_config()  # a wrong configuration is said before anything is started
        make_state_folder()
        yield
    except (PipelineError, ConfigurationError) as error:
        err.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        err.print("interrupted: what was finished is stored; run it again to go on")
        raise typer.Exit(130) from None
    except (typer.Exit, typer.BadParameter):
        raise
    except Exception as error:  # the last resort: a person gets a sentence, the log the rest
        where = _log_traceback()
        text = f"{type(error).__name__}, which this program did not foresee; the details are in {where}"
        err.print(f"[red]error:[/red] {escape(text)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _log_traceback() -> Path:
    """Append the current traceback to a log that only its owner can read, and say where that is."""
    where = Path(gettempdir()) / f"tracker-errors-{os.getuid()}.log"
    with (
        suppress(OSError),
        os.fdopen(os.open(where, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "a") as log,
    ):
        log.write(f"{datetime.now(UTC).isoformat()}\n{traceback.format_exc()}\n")
    return where


def aware(text: str | None, option: str = "--cut") -> datetime | None:
    """The time that an option gives, which must name its zone and be over."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("an ISO time such as 2026-01-31T00:00:00+00:00", param_hint=option) from None
    if moment.tzinfo is None:
        raise typer.BadParameter("give the time zone, such as 2026-01-31T00:00:00+00:00", param_hint=option)
    if moment > datetime.now(UTC):
        raise typer.BadParameter(
            "it lies in the future: only what is over can move or have failed", param_hint=option
        )
    return moment
