"""Applies `sql/migrations` to a database: forward only, each file once, each in one transaction.

What belongs here: order, locking, the record of what was applied. What does not: the statements themselves.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg.sql import SQL

from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.settings import get_settings

if TYPE_CHECKING:
    from tracker_pipeline.storage.database import Connection

SQL_FOLDER = Path(__file__).resolve().parents[2] / "sql"
_FILE_NAME = re.compile(r"^(\d{4})_[a-z]+_[a-z0-9_]+\.sql$")
_LOCK = 7_305_011_201  # any constant: it only has to be ours

_BOOTSTRAP = """
CREATE SCHEMA IF NOT EXISTS tracker;
CREATE SCHEMA IF NOT EXISTS dagster;
CREATE TABLE IF NOT EXISTS tracker.migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS tracker.installation (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    setting text NOT NULL
);
"""


@dataclass(frozen=True)
class Migration:
    """One file."""

    number: int
    name: str
    statements: str

    @property
    def checksum(self) -> str:
        """Hash of the file's text."""
        return hashlib.sha256(self.statements.encode()).hexdigest()


def read_migrations(folder: Path | None = None) -> list[Migration]:
    """The migrations of a folder, in order.

    Raises:
        PermanentError: a file name is not NNNN_verb_noun.sql, or a number is missing or used twice.
    """
    folder = folder or SQL_FOLDER / "migrations"
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.match(path.name)
        if not match:
            raise PermanentError(f"migration {path.name} must be named NNNN_verb_noun.sql")
        found.append(Migration(int(match[1]), path.stem, path.read_text("utf-8")))
    numbers = [migration.number for migration in found]
    if not found or numbers != list(range(1, len(found) + 1)):
        raise PermanentError(
            f"migrations in {folder} must be numbered 1, 2, 3 … without gaps; there are {numbers}"
        )
    return found


def apply(connection: "Connection", folder: Path | None = None) -> list[str]:
    """Bring the database up to date and return the names of what was applied.

    Raises:
        PermanentError: an applied migration was edited since, the database is ahead of the files, or it belongs
            to the other setting.
    """
    wanted = read_migrations(folder)
    connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
    try:
        connection.commit()
        applied = _recorded(connection)
        _refuse_differences(wanted, applied)
        for migration in wanted[len(applied) :]:
            _apply_one(connection, migration)
        _refuse_other_setting(connection)
    finally:
        connection.rollback()
        connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])
        connection.commit()
    return [migration.name for migration in wanted[len(applied) :]]


def _recorded(connection: "Connection") -> dict[int, tuple[str, str]]:
    exists = connection.execute("SELECT to_regclass('tracker.installation') IS NOT NULL").fetchone()
    if not exists or not exists[0]:
        connection.execute(_BOOTSTRAP)
        connection.commit()
    rows = connection.execute(
        "SELECT number, name, checksum FROM tracker.migrations ORDER BY number"
    ).fetchall()
    connection.commit()
    return {number: (name, checksum) for number, name, checksum in rows}


def _refuse_differences(wanted: list[Migration], applied: dict[int, tuple[str, str]]) -> None:
    by_number = {migration.number: migration for migration in wanted}
    for number, (name, checksum) in applied.items():
        migration = by_number.get(number)
        if migration is None:
            raise PermanentError(
                f"the database has migration {name}, which these files lack: it was set up by a newer version"
            )
        if migration.checksum != checksum:
            raise PermanentError(
                f"migration {migration.name} was edited after it had been applied:"
                " restore the file and write a new migration instead"
            )


def _apply_one(connection: "Connection", migration: Migration) -> None:
    with connection.transaction():
        connection.execute(SQL(migration.statements))
        connection.execute(
            "INSERT INTO tracker.migrations (number, name, checksum) VALUES (%s, %s, %s)",
            [migration.number, migration.name, migration.checksum],
        )


def _refuse_other_setting(connection: "Connection") -> None:
    """Keep sandbox rows and live rows apart: a database belongs to the setting that first used it."""
    setting = get_settings().setting
    with connection.transaction():
        connection.execute(
            "INSERT INTO tracker.installation (setting) VALUES (%s) ON CONFLICT DO NOTHING", [setting]
        )
        row = connection.execute("SELECT setting FROM tracker.installation").fetchone()
    if row and row[0] != setting:
        raise PermanentError(
            f"this database holds {row[0]} data and TRACKER_SETTING is {setting}:"
            " use another TRACKER_HOME or TRACKER_DATABASE_URL for each setting"
        )
