"""The assets of the archive say what became of each day, and one that fails keeps no other back."""

from datetime import UTC, date, datetime

import dagster as dg
import psycopg
import pytest

from tracker_pipeline.assets.archive import _archive_asset
from tracker_pipeline.keys import archive_key_of
from tracker_pipeline.storage import manifest
from tracker_pipeline.storage.archive_locks import only_runner
from tracker_pipeline.storage.archive_policy import get_policies
from tracker_pipeline.storage.database import connect
from tracker_pipeline_tests.storage.foreign import use_policies

CUT = datetime(2024, 6, 1, tzinfo=UTC)
POLICY = """
archived: {public.one: &old {time_column: at, retention: 24 h}, public.two: *old}
never_archived: {public.child: none}
"""
MAKE = """
CREATE TABLE {0} (id bigint PRIMARY KEY, at timestamptz, v text);
INSERT INTO {0} SELECT i, '2024-05-01Z'::timestamptz + i * interval '30 min', repeat('v', 100)
FROM generate_series(0, 95) i;
INSERT INTO {0} VALUES (-1, '2023-05-01Z', 'old'), (-2, '2023-05-02Z', 'old'), (-3, NULL, 'timeless')
"""


@pytest.fixture
def two_tables(own_database, each_store, monkeypatch, tmp_path):
    with psycopg.connect(own_database, autocommit=True) as connection:
        for name in ("one", "two"):
            connection.execute(MAKE.format(name))
        use_policies(monkeypatch, tmp_path, text=POLICY)
        yield connection


def materialize(first: str, last: str, cut: str = CUT.isoformat(), names=("public.one",), instance=None):
    assets = [_archive_asset(name, get_policies().of(name)) for name in names]
    config = {"__".join(archive_key_of(name).path): {"config": {"cut": cut}} for name in names}
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    return dg.materialize(
        assets, tags=tags, run_config={"ops": config}, raise_on_error=False, instance=instance
    )


def metadata(result, name: str = "public.one") -> dict[str, dict[str, object]]:
    """By partition."""
    events = result.asset_materializations_for_node("__".join(archive_key_of(name).path))
    return {event.partition: {key: value.value for key, value in event.metadata.items()} for event in events}


def test_each_day_has_its_rows_bytes_compression_cut_and_hash(two_tables):
    result = materialize("2024-01-01", "2024-05-03")
    assert result.success
    told = metadata(result)
    with connect() as connection:
        parts = {part.data_day: part for part in manifest.live_batches_of(connection, "public.one")}
    assert sorted(parts) == [date(2023, 5, 1), date(2023, 5, 2), date(2024, 5, 1), date(2024, 5, 2)]
    for day in (date(2024, 5, 1), date(2024, 5, 2)):
        found, part = told[f"{day}"], parts[day]
        assert found == {
            "dagster/partition_row_count": 48,
            "rows moved": 48,
            "what happened": "moved",
            "rows before this move": "2024-06-01 00:00 UTC",
            "bytes of the file": part.bytes,
            "content hash": part.content_hash,
            "times smaller than in Postgres": round(part.table_bytes / part.bytes, 1),
            "stays in Postgres": "1 rows without a time stay",
        }
    assert told["2024-05-03"]["what happened"] == "nothing was due"
    assert told["2024-01-01"]["before the first partition"] == "2 rows of 2 days moved as well"


def test_a_table_that_fails_fails_the_run_and_keeps_neither_its_other_days_nor_other_tables_back(two_tables):
    two_tables.execute(
        "CREATE TABLE child (one bigint PRIMARY KEY REFERENCES one); INSERT INTO child VALUES (5)"
    )
    with dg.DagsterInstance.ephemeral() as instance:
        names = ("public.one", "public.two")
        result = materialize("2024-05-01", "2024-05-02", names=names, instance=instance)
        told = instance.fetch_materializations(archive_key_of("public.one"), limit=10).records
    assert not result.success
    assert "still referenced from table" in str(result.failure_data_for_node("archive__public__one"))
    moved = [(one.partition_key, one.asset_materialization.metadata["rows moved"].value) for one in told]
    assert moved == [("2024-05-02", 48)]
    assert metadata(result, "public.two")["2024-05-01"]["rows moved"] == 48


def test_a_second_run_of_a_table_is_skipped_and_does_not_fail(two_tables):
    with only_runner("public.one"):
        result = materialize("2024-05-01", "2024-05-02")
    assert result.success
    assert metadata(result)["2024-05-01"]["what happened"] == "another run is at this table"
    assert two_tables.execute("SELECT count(*) FROM one").fetchone() == (99,)


@pytest.mark.parametrize(("cut", "why"), [("yesterday", "is no time"), ("2024-06-01", "has no time zone")])
def test_a_cut_that_is_no_moment_is_refused_in_words(two_tables, cut, why):
    result = materialize("2024-05-01", "2024-05-01", cut=cut)
    assert f"the cut {cut} {why}: write it as" in str(result.failure_data_for_node("archive__public__one"))
