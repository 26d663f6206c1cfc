"""Every command says what it did or what is wrong in one sentence, and ends with 0, 1 or 2 accordingly."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from tracker_pipeline.cli import app
from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.lake_store import lake_store
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.conftest import forget_settings
from tracker_pipeline_tests.frames import bars
from tracker_pipeline_tests.stores import lake_files, plant_file, read_file

START = datetime(2024, 5, 1, tzinfo=UTC)


def tracker(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def said(result: Result) -> str:
    return " ".join(result.output.split())


@pytest.fixture
def two_days(own_database):
    with connect() as connection:
        window = (START, START + timedelta(days=2))
        write_window(connection, BARS["15m"], bars(count=192), window, run_id="r")


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("demo",),
        ("up",),
        ("migrate",),
        ("db", "url"),
        ("sql",),
        ("import-bars",),
        ("archive", "run"),
        ("archive", "status"),
        ("archive", "audit"),
        ("sandbox",),
        ("doctor",),
    ],
)
def test_every_command_explains_itself(command):
    result = tracker(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("demo", "--days", "0"),
        ("demo", "--bars", "no_such_file.parquet"),
        ("sql",),
        ("gaps", "--timeframe", "7m"),
        ("import-bars", "no_such_file.csv"),
        ("archive", "run", "--table", "market.ohlc_15m", "--cut", "yesterday"),
        ("archive", "run", "--table", "market.ohlc_15m", "--cut", "2026-01-01"),
        ("archive", "run", "--table", "market.ohlc_15m", "--cut", "2999-01-01T00:00:00+00:00"),
        ("up", "--port", "99999"),
    ],
)
def test_wrong_usage_ends_with_2(arguments):
    assert tracker(*arguments).exit_code == 2


def test_migrate_applies_once(empty_database):
    first, second = tracker("migrate"), tracker("migrate")
    assert "applied 0001_create_market_tables" in first.output
    assert "nothing to apply" in second.output
    assert (first.exit_code, second.exit_code) == (0, 0)


def test_db_url_prints_the_url_alone(own_database):
    result = tracker("db", "url")
    assert result.exit_code == 0
    assert result.stdout == f"{own_database}\n"


@pytest.mark.parametrize(
    ("form", "read"),
    [
        ("csv", lambda text: int(text.splitlines()[1])),
        ("json", lambda text: json.loads(text)[0]["n"]),
    ],
)
def test_sql_answers_over_hot_and_cold_rows(two_days, form, read):
    tracker("archive", "run", "--table", "market.ohlc_15m", "--day", "2024-05-01")
    result = tracker("sql", "SELECT count(*) AS n FROM market.ohlc_15m", "--format", form)
    assert result.exit_code == 0
    assert read(result.stdout) == 192


def test_sql_writes_parquet_to_a_file(two_days, tmp_path):
    target = tmp_path / "rows.parquet"
    arguments = ("SELECT * FROM market.ohlc_15m", "--format", "parquet", "--output", target)
    assert tracker("sql", *arguments).exit_code == 0
    assert pl.read_parquet(target).height == 192


def test_a_query_that_fails_is_one_sentence_and_1(own_database):
    result = tracker("sql", "SELECT * FROM market.nothing")
    assert result.exit_code == 1
    assert said(result).startswith(
        "error: the query failed: there is no table market.nothing; there are archive."
    )
    near = tracker("sql", "SELECT * FROM market.ohlc_15min")
    assert said(near) == (
        "error: the query failed: there is no table market.ohlc_15min; did you mean market.ohlc_15m or market.ohlc_5m"
        " or market.ohlc_1m?"
    )


def test_archive_run_moves_only_what_lies_before_the_cut(two_days):
    cut = "2024-05-02T00:00:00+00:00"
    planned = tracker(
        "archive", "run", "--table", "market.ohlc_15m", "--cut", cut, "--dry-run", "--format", "json"
    )
    (plan,) = json.loads(planned.stdout)
    assert (plan["table"], plan["day"], plan["would_move"]) == ("market.ohlc_15m", "2024-05-01", 96)
    assert lake_files() == []
    moved = tracker("archive", "run", "--table", "market.ohlc_15m", "--cut", cut, "--format", "json")
    assert json.loads(moved.stdout)[0]["rows_moved"] == 96
    (status,) = json.loads(
        tracker("archive", "status", "--table", "market.ohlc_15m", "--format", "json").stdout
    )
    assert (status["hot_rows"], status["cold_rows"], status["files"]) == (96, 96, 1)


def test_archive_run_refuses_a_table_that_is_never_archived(own_database):
    result = tracker("archive", "run", "--table", "market.instruments")
    assert result.exit_code == 1
    assert "market.instruments is not archived" in said(result)


def test_audit_names_altered_missing_and_stray_files(two_days):
    tracker("archive", "run", "--table", "market.ohlc_15m")
    assert tracker("archive", "audit").exit_code == 0
    first, second = lake_files()
    plant_file(first, read_file(first) + b"x")
    lake_store().delete(second)
    plant_file("market/ohlc_15m/day=2024-05-01/part-stray.parquet", b"")
    result = tracker("archive", "audit", "--format", "json")
    assert result.exit_code == 1
    problems = {problem["file"]: problem["problem"] for problem in json.loads(result.stdout)}
    assert problems == {
        first: "altered",
        second: "missing",
        "market/ohlc_15m/day=2024-05-01/part-stray.parquet": "not in the manifest",
    }


def test_import_bars_loads_a_file_once_and_reports_the_unproven_bar(own_database, tmp_path):
    path = tmp_path / "bybit_BTCUSDT-15m.parquet"
    bars(count=10).select("ts", "open", "high", "low", "close", "volume").write_parquet(path)
    arguments = (path, "--venue", "bybit", "--market", "spot", "--symbol", "BTC/USDT", "--timeframe", "15m")
    first, second = tracker("import-bars", *arguments), tracker("import-bars", *arguments)
    assert (first.exit_code, second.exit_code) == (0, 0), first.output
    assert "left out 1: the file's last bar" in said(first)
    assert scan("market.ohlc_15m").collect().height == 9
    assert scan("market.instruments").collect().row(0, named=True)["tier"] == "large_cap"
    proven = tracker("import-bars", *arguments, "--fetched-at", "2024-05-02T00:00:00")
    assert proven.exit_code == 0
    assert scan("market.ohlc_15m").collect().height == 10


def test_an_import_of_nothing_but_refused_bars_fails(own_database, tmp_path):
    path = tmp_path / "bybit_BTCUSDT-15m.parquet"
    spoiled = bars(count=10).with_columns(high=pl.lit(0.5))
    spoiled.select("ts", "open", "high", "low", "close", "volume").write_parquet(path)
    result = tracker("import-bars", path, "--venue", "bybit", "--market", "spot", "--symbol", "BTC/USDT")
    assert result.exit_code == 1
    assert "no bar of these files could be loaded" in said(result)


def test_import_bars_names_a_file_that_it_cannot_read(own_database, tmp_path):
    path = tmp_path / "broken.parquet"
    path.write_text("not parquet")
    result = tracker("import-bars", path)
    assert result.exit_code == 1
    assert "broken.parquet" in said(result)
    assert "Traceback" not in result.output


def refused(*command: str) -> str:
    result = tracker(*command)
    assert result.exit_code == 1
    assert "secret" not in result.output
    assert "Traceback" not in result.output
    return said(result)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TRACKER_SETTING": "production"}, "TRACKER_SETTING"),
        ({"TRACKER_CONFIG": "/nowhere/config.yaml"}, "cannot be read"),
        ({"TRACKER_DATABASE_URL": "mysql://x"}, "not a Postgres URL"),
        ({"TRACKER_DATABASE_URL": "postgresql://u:secret@h:abc/x"}, "TRACKER_DATABASE_URL cannot be read"),
        ({"TRACKER_DATABASE_URL": "postgresql://u:secret%zz@h/x"}, "TRACKER_DATABASE_URL cannot be read"),
        ({"TRACKER_DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/x"}, "cannot connect to the database"),
    ],
)
def test_a_wrong_environment_is_one_sentence_and_1_without_secrets(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    forget_settings()
    assert message in refused("demo")


@pytest.mark.parametrize("command", ["doctor", "migrate", "up"])
def test_a_state_folder_that_cannot_be_made_is_one_sentence_and_1(command, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRACKER_HOME", str(tmp_path / "file" / "home"))
    forget_settings()
    result = tracker(command)
    assert result.exit_code == 1
    assert "home cannot be used (Not a directory): set TRACKER_HOME to one that can" in said(result)


def test_the_doctor_says_what_is_wrong_with_the_database_and_still_looks_at_the_rest(monkeypatch):
    monkeypatch.setenv("TRACKER_DATABASE_URL", "postgresql://u:secret@127.0.0.1:1/x")
    forget_settings()
    answer = refused("doctor")
    assert answer.count("cannot connect to the database") == 1
    assert "definitions:" in answer


def test_the_doctor_names_open_alerts_and_says_whether_anything_happens_by_itself(own_database):
    with connect() as connection:
        connection.execute(
            "INSERT INTO operations.alerts (cause, opened_at, severity, title, text, last_seen_at, notifications)"
            " VALUES ('disk', '2026-03-02 12:00Z', 'critical', '0.5 GiB free', 'free some', '2026-03-02 12:00Z', 1)"
        )
    answer = said(tracker("doctor"))
    assert "wrong alerts: 1 open: 0.5 GiB free, since 2026-03-02 12:00 UTC; docs/running_live.md" in answer
    assert (
        "ok schedules: the daemon is not running, so nothing happens by itself; tracker up starts it"
        in answer
    )


def test_gaps_of_a_symbol_that_nobody_tracks_are_no_good_news(two_days):
    result = tracker("gaps", "--symbol", "BTCUSDT")
    assert result.exit_code == 1
    assert said(result).startswith(
        "error: no bars of BTCUSDT are tracked; market.instruments has the symbols"
    )


def test_gaps_says_what_is_absent_why_and_when_it_is_asked_for_again(own_database):
    assert "no bar is absent" in said(tracker("gaps"))
    with connect() as connection:
        connection.execute(
            "INSERT INTO market.bar_gaps VALUES ('bybit', 'BTC/USDT', '15m', '2024-05-01', '2024-05-01 01:00', 4,"
            " 'missing', 2, '2024-05-02 03:04', now(), NULL, NULL, 'bybit did not answer')"
        )
    result = tracker("gaps", "--format", "json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    (gap,) = found["gaps"]
    assert (gap["symbol"], gap["bars"], gap["asked"], gap["again"]) == ("BTC/USDT", 4, 2, "2024-05-02 03:04")
    assert gap["why"] == "bybit did not answer"
    assert found["totals"][0]["state"] == "missing"
    assert tracker("gaps", "--state", "lost").exit_code == 2
