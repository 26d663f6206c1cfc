"""Migrations make what the schemas declare, once, and refuse a history that was changed."""

import shutil
from pathlib import Path

import pytest

from tracker_pipeline.domain.schemas import TABLES
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import database, migrations

_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull
FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_KEY = """
SELECT array_agg(a.attname::text ORDER BY k.place)
FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(attnum, place), pg_attribute a
WHERE i.indrelid = %s::regclass AND i.indisprimary AND a.attrelid = i.indrelid AND a.attnum = k.attnum
"""


@pytest.fixture
def connection(empty_database):
    with database.open_connection(empty_database) as connection:
        yield connection


@pytest.mark.parametrize("table", [t for t in TABLES.values() if t.store == "postgres"], ids=lambda t: t.name)
def test_a_fresh_database_has_the_declared_columns_types_and_keys(own_database, table):
    with database.open_connection(own_database) as connection:
        columns = connection.execute(_COLUMNS, [table.name]).fetchall()
        key = connection.execute(_KEY, [table.name]).fetchone()
    assert columns == [(c.name, c.type.postgres, c.nullable) for c in table.columns]
    assert tuple(key[0]) == table.key


def test_every_declared_table_exists_and_no_other(own_database):
    with database.open_connection(own_database) as connection:
        rows = connection.execute(
            "SELECT schemaname || '.' || tablename FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'tracker', 'dagster', 'hot')"
        ).fetchall()
    assert {row[0] for row in rows} == {t.name for t in TABLES.values() if t.store == "postgres"}


def test_a_second_apply_does_nothing(connection):
    first = migrations.apply(connection)
    second = migrations.apply(connection)
    assert first == [migration.name for migration in migrations.read_migrations()]
    assert second == []


def test_an_edited_old_migration_is_refused(connection, tmp_path):
    folder = _copy_of_migrations(tmp_path)
    migrations.apply(connection, folder)
    edited = sorted(folder.glob("*.sql"))[0]
    edited.write_text(edited.read_text() + "\n-- a late thought\n")
    with pytest.raises(PermanentError, match=r"0001_\w+ was edited after it had been applied"):
        migrations.apply(connection, folder)


def test_a_migration_that_fails_leaves_nothing_behind(connection, tmp_path):
    folder = _copy_of_migrations(tmp_path)
    broken = folder / f"{_next_number(folder):04d}_break_things.sql"
    broken.write_text("CREATE TABLE market.half_done (a int); SELECT 1 / 0;")
    with pytest.raises(Exception, match="division by zero"):
        migrations.apply(connection, folder)
    assert connection.execute("SELECT to_regclass('market.half_done')").fetchone() == (None,)
    assert connection.execute("SELECT to_regclass('market.ohlc_15m')").fetchone() != (None,)


def test_a_database_that_is_ahead_of_the_files_is_refused(connection, tmp_path):
    migrations.apply(connection)
    folder = _copy_of_migrations(tmp_path)
    sorted(folder.glob("*.sql"))[-1].unlink()
    with pytest.raises(PermanentError, match="newer version"):
        migrations.apply(connection, folder)


def test_a_badly_named_or_missing_number_is_refused(tmp_path):
    folder = _copy_of_migrations(tmp_path)
    (folder / "new.sql").write_text("SELECT 1")
    with pytest.raises(PermanentError, match=r"new\.sql must be named"):
        migrations.read_migrations(folder)
    (folder / "new.sql").rename(folder / "0900_add_thing.sql")
    with pytest.raises(PermanentError, match="without gaps"):
        migrations.read_migrations(folder)


def test_a_database_of_the_sandbox_is_not_used_for_live_data(connection, monkeypatch):
    from tracker_pipeline_tests.conftest import forget_settings

    migrations.apply(connection)
    monkeypatch.setenv("TRACKER_SETTING", "live")
    forget_settings()
    with pytest.raises(PermanentError, match="holds sandbox data and TRACKER_SETTING is live"):
        migrations.apply(connection)


def _copy_of_migrations(tmp_path: Path) -> Path:
    return Path(shutil.copytree(migrations.SQL_FOLDER / "migrations", tmp_path / "migrations"))


def _next_number(folder: Path) -> int:
    return len(list(folder.glob("*.sql"))) + 1
