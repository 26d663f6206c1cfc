"""Tables that are not ours, with rows of every kind: the 13 + 9 of a trade follower, and others made by a test."""

from datetime import datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tracker_pipeline.storage.catalogue import LiveColumn, live_table
from tracker_pipeline.storage.database import connect
from tracker_pipeline_tests.conftest import forget_settings

DDL = Path(__file__).with_name("trade_follower.sql")
POLICIES = "archive_policies_trade_follower.yaml"


def use_policies(monkeypatch: pytest.MonkeyPatch, folder: Path, *files: str, text: str = "") -> None:
    """Put policy files in force, and one of a given text."""
    names = list(files)
    if text:
        (folder / "own_policies.yaml").write_text(text)
        names.append("own_policies.yaml")
    config = folder / "own_config.yaml"
    config.write_text(f"archive: {{policies: [{', '.join(names)}]}}\n")
    monkeypatch.setenv("TRACKER_CONFIG", str(config))
    forget_settings()


def fill(name: str, rows: int, time_column: str, start: datetime, step_seconds: int) -> None:
    """Insert rows of every kind of value that the columns allow."""
    with connect() as connection:
        table = live_table(connection, name)
        columns = [c for c in table.columns if not c.generated]
        values = ", ".join(_value(c, c.name in table.key, time_column) for c in columns)
        statement = sql.SQL(
            "INSERT INTO {} ({}) SELECT {} FROM (SELECT i, {}::timestamp + i * {} AS at"
            " FROM generate_series(0, {} - 1) AS i) AS made"
        ).format(
            table.identifier,
            sql.SQL(", ").join(sql.Identifier(c.name) for c in columns),
            sql.SQL(values),  # type: ignore[arg-type]
            sql.Literal(start.replace(tzinfo=None)),
            sql.SQL(f"interval '{step_seconds} seconds'"),  # type: ignore[arg-type]
            sql.Literal(rows),
        )
        connection.execute(statement)


def all_text(connection: psycopg.Connection, name: str) -> list[str]:
    """Every row of a table as text, in order, whatever the zone of the server."""
    connection.execute("SET timezone = 'UTC'; SET extra_float_digits = 1")
    # Where a column had the name of the alias, its values would be all that is compared.
    rows = connection.execute(f'SELECT "the row"::text FROM {name} AS "the row" ORDER BY 1').fetchall()
    return [row[0] for row in rows]


def _value(column: LiveColumn, is_key: bool, time_column: str) -> str:
    if column.name == time_column:
        return "at"
    if column.name == "our_status":
        return "'sold'"
    value = _of_type(column, is_key)
    every = 3 + len(column.name) % 5
    return f"CASE WHEN i % {every} = 1 THEN NULL ELSE {value} END" if column.nullable else value


def _of_type(column: LiveColumn, is_key: bool) -> str:
    if column.base in ("int2", "int4", "int8"):
        if is_key:
            return f"i::{column.base}"
        largest = {"int2": 32_767, "int4": 2**31 - 1, "int8": 2**63 - 1}[column.base]
        return f"(CASE i % 4 WHEN 0 THEN {largest} - i WHEN 1 THEN i - {largest} ELSE i END)::{column.base}"
    if column.base in ("float4", "float8"):
        return (
            "(CASE i % 7 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0' WHEN 2 THEN '-Infinity' WHEN 3 THEN '1e-300'"
            " ELSE (i / 7.0)::text END)::float8"
        )
    if column.base == "numeric":
        precision, scale = column.precision_and_scale or (20, 8)
        return f"(CASE i % 5 WHEN 0 THEN 0 ELSE i END * 1.1 + i)::numeric({precision},{scale})"
    if column.base in ("timestamp", "timestamptz"):
        return "at + interval '0.999999 seconds'"
    if column.base == "bool":
        return "i % 2 = 0"
    if column.base == "jsonb":
        return """('{"b": 0.1000, "a": [1e400, 12345678901234567890, null], "i": ' || i || '}')::jsonb"""
    return "(ARRAY['', 'a', 'o\"k', E'new\\nline', '🐐 é', 'NULL'])[1 + i % 6]"
