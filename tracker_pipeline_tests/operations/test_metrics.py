"""Figures of the health service: what is not known is left out, never given as 0."""

from datetime import UTC, datetime

import psycopg

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.operations.metrics import collect
from tracker_pipeline.settings import get_settings
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars

TABLE = BARS["15m"]


def _hot_rows(url: str) -> dict[str, int]:
    with psycopg.connect(url) as connection:
        return dict(collect(connection, datetime.now(UTC)).hot_rows)


def test_the_disk_is_measured_where_the_database_is_elsewhere_and_no_state_folder_is_there(own_database):
    assert not get_settings().state_folder.exists()
    with psycopg.connect(own_database) as connection:
        assert collect(connection, datetime.now(UTC)).free_disk_bytes > 0


def _store_an_outage(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO market.outages VALUES"
            " ('bybit', '2026-03-02', '2026-03-03', '15m', 3, 3, NULL, now(), NULL, 'run-1')"
        )
        connection.execute("SELECT pg_stat_force_next_flush()")


def test_rows_are_known_before_anyone_analyzed_them_and_an_empty_table_has_none(own_database):
    with connect() as connection:
        write_window(connection, TABLE, bars(count=96), None, run_id="test")
    _store_an_outage(own_database)
    rows = _hot_rows(own_database)
    assert rows[TABLE.name] == 96
    assert rows["market.outages"] == 1
    assert rows["market.ohlc_1m"] == 0
    assert rows["onchain.whale_universe"] == 0


def test_a_number_of_rows_that_is_not_known_is_left_out(own_database):
    _store_an_outage(own_database)
    with psycopg.connect(own_database, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_reset()")  # as a crash does
    assert "market.outages" not in _hot_rows(own_database)
