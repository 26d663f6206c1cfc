"""Migrations make what the schemas declare, once, and refuse a history that was changed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

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


# What a column of each type is filled with, by row; the days lie in different partitions.
_VALUES = {
    "text": "'x' || n",
    "bigint": "1",
    "date": "'2024-05-01'::date + n * 20",
    "boolean": "false",
    "timestamp with time zone": "'2024-05-01Z'::timestamptz + n * interval '20 days'",
    "double precision": "n + 0.1",
    "numeric": "n + 0.1",
    "numeric(78,0)": "n * 10::numeric ^ 70",
    "jsonb": """'{"n": 1}'""",
    "text[]": "'{a,b}'",
}
# Where constraints ask for more than the type does.
_PARTICULAR = {
    "whale_address": "'0x' || lpad(n::text, 40, '0')", "market_type": "'spot'", "liquidity_class": "'thin'",
    "trend": "'BULL'", "stress": "'NORMAL'", "strategy": "'dca'", "side": "'BUY'", "outcome": "'WIN'",
    "exit_reason": "'TP'", "kind": "'late'", "end_ts": "'2026-05-01Z'", "reason": "NULL", "status": "'ok'",
    "severity": "'warning'", "state": "'fresh'", "resolved_at": "NULL", "replaced_hash": "NULL", "repairs": "0",
    "ended_at": "NULL", "gap_end": "'2026-05-01Z'", "outage_end": "'2026-05-01Z'", "expected": "4",
    "archive.batches.superseded_by": "CASE n WHEN 1 THEN 'x2' END",
    "archive.batches.state": "CASE n WHEN 1 THEN 'superseded' ELSE 'live' END",
    "onchain.whale_candidates.kind": "'account'", "onchain.snapshot_rechecks.state": "'final'",
    "market.bar_gaps.state": "'missing'", "operations.deliveries.status": "'sent'",
    "market.bar_quarantine.reason": "'high below low'", "archive.holds.reason": "'restored'",
}  # fmt: skip
_TABLES = """
SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'tracker', 'dagster') ORDER BY 1
"""


def test_no_migration_loses_or_changes_a_row_of_the_version_before(connection, tmp_path):
    folder = tmp_path / "so_far"
    folder.mkdir()
    rows: dict[str, tuple[list[str], list[Any]]] = {}
    for path in sorted((migrations.SQL_FOLDER / "migrations").glob("*.sql")):
        shutil.copy(path, folder)
        migrations.apply(connection, folder)
        for table, (columns, before) in rows.items():
            assert _content(connection, table, columns) == before, f"{table} after {path.stem}"
        for (table,) in connection.execute(_TABLES).fetchall():
            if table not in rows:
                rows[table] = _filled(connection, table)
        connection.commit()
    assert {table.name for table in TABLES.values() if table.store == "postgres"} <= set(rows)
    assert all(before for _, before in rows.values())
    ended = "SELECT count(*) FROM archive.batches WHERE ended_at IS NOT NULL"
    assert connection.execute(ended).fetchone() == (1,)  # what 0007 filled in


def _filled(connection: database.Connection, table: str) -> tuple[list[str], list[Any]]:
    """Columns and rows of a table, three of them if it was empty."""
    columns = {name: kind for name, kind, _ in connection.execute(_COLUMNS, [table]).fetchall()}
    if not _content(connection, table, list(columns)):
        values = [
            _PARTICULAR.get(f"{table}.{name}") or _PARTICULAR.get(name) or _VALUES[kind]
            for name, kind in columns.items()
        ]
        connection.execute(
            sql.SQL("INSERT INTO {} SELECT {} FROM generate_series(1, 3) n").format(
                sql.Identifier(*table.split(".")), sql.SQL(", ".join(values))
            )
        )
    return list(columns), _content(connection, table, list(columns))


def _content(connection: database.Connection, table: str, columns: list[str]) -> list[Any]:
    statement = sql.SQL("SELECT {} FROM {}").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(*table.split("."))
    )
    return sorted(connection.execute(statement).fetchall(), key=repr)


def _copy_of_migrations(tmp_path: Path) -> Path:
    return Path(shutil.copytree(migrations.SQL_FOLDER / "migrations", tmp_path / "migrations"))


def _next_number(folder: Path) -> int:
    return len(list(folder.glob("*.sql"))) + 1
