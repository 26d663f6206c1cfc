"""Both IO managers store a key, a range and a backfill exactly, and read back what was stored."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.timeframes import available_at
from tracker_pipeline.keys import ML_FEATURES_15M, OHLC_15M
from tracker_pipeline.partitions import DAILY
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.io_managers import ParquetIOManager, PartitionFrames, PostgresIOManager
from tracker_pipeline.storage.lake_store import lake_store
from tracker_pipeline_tests.frames import bars
from tracker_pipeline_tests.stores import lake_files

START = datetime(2024, 5, 1, tzinfo=UTC)
RANGE_TAGS = {
    "dagster/asset_partition_range_start": "2024-05-01",
    "dagster/asset_partition_range_end": "2024-05-03",
}
MANAGERS = {"postgres": PostgresIOManager(), "parquet": ParquetIOManager()}


def asset_of(key: dg.AssetKey, manager: str, output) -> dg.AssetsDefinition:
    @dg.asset(
        key=key, io_manager_key=manager, partitions_def=DAILY, backfill_policy=dg.BackfillPolicy.single_run()
    )
    def made():
        return output() if callable(output) else output

    return made


def run(assets, **options) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(assets, instance=instance, resources=MANAGERS, raise_on_error=False, **options)


def features(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame in the schema of the features, with one known value."""
    return schemas.ML_FEATURES_15M.conform(
        frame.select("venue", "symbol", "ts", "available_at").with_columns(
            rsi_14=frame.get_column("close"),
            null_reasons=pl.lit("{}"),
            feature_set_version=pl.lit("v"),
            input_revision=pl.lit(0, pl.Int64),
        )
    )


CASES = pytest.mark.parametrize(
    ("key", "manager", "shape"),
    [(OHLC_15M, "postgres", lambda f: f), (ML_FEATURES_15M, "parquet", features)],
    ids=["postgres", "parquet"],
)


def stored(key: dg.AssetKey) -> pl.DataFrame:
    table = schemas.TABLES[".".join(key.path)]
    return scan(table.name).collect().sort(table.key)


@CASES
def test_one_key_stores_and_reads_its_own_day(own_database, key, manager, shape):
    frame = shape(bars(count=96))
    assert run([asset_of(key, manager, frame)], partition_key="2024-05-01").success
    assert stored(key).equals(frame)


@CASES
def test_a_range_is_split_by_day_and_each_day_has_its_own_row_count(own_database, key, manager, shape):
    frame = shape(bars(count=96 * 2 + 10))
    result = run([asset_of(key, manager, frame)], tags=RANGE_TAGS)
    assert result.success
    assert stored(key).equals(frame)
    counts = {
        event.partition: event.materialization.metadata["dagster/partition_row_count"].value
        for event in result.get_asset_materialization_events()
    }
    assert counts == {"2024-05-01": 96, "2024-05-02": 96, "2024-05-03": 10}


@CASES
def test_the_newest_day_of_a_range_shows_its_rows_and_a_chart(own_database, key, manager, shape):
    result = run([asset_of(key, manager, shape(bars(count=96 * 3)))], tags=RANGE_TAGS)
    metadata = {
        event.partition: event.materialization.metadata for event in result.get_asset_materialization_events()
    }
    assert [day for day, shown in metadata.items() if "newest rows" in shown] == ["2024-05-03"]
    shown = metadata["2024-05-03"]
    assert re.findall(r"05\u2011(\d\d)\u00a0(2\d:\d\d)", shown["newest rows"].value)[0] == ("03", "23:45")
    assert shown["NULL values"].value.startswith("of 96 rows: ")
    assert f"{key_value(key)} of BTC/USDT" in shown["chart"].value
    assert "2024-05-02 23:45 to 2024-05-03 23:45 UTC" in shown["chart"].value
    # Dagster keeps it for ever, so a year of days may not hold more than some megabytes of it.
    assert sum(len(f"{one.value}") for one in shown.values()) < 4_000


def test_an_older_file_that_cannot_be_read_fails_no_run(own_database):
    days = features(bars(count=192))
    assert run([asset_of(ML_FEATURES_15M, "parquet", days)], tags=RANGE_TAGS).success
    for file in lake_files():
        lake_store().delete(file)
    event = run(
        [asset_of(ML_FEATURES_15M, "parquet", features(bars(start=START + timedelta(days=2), count=4)))],
        partition_key="2024-05-03",
    ).get_asset_materialization_events()[0]
    assert event.materialization.metadata["chart"].value.startswith("not drawn: ")


@CASES
def test_writing_the_same_rows_again_changes_nothing(own_database, key, manager, shape):
    asset = asset_of(key, manager, shape(bars(count=96)))
    run([asset], partition_key="2024-05-01")
    files = lake_files()
    event = run([asset], partition_key="2024-05-01").get_asset_materialization_events()[0]
    assert [event.materialization.metadata[name].value for name in ("inserted", "updated", "deleted")] == [
        0
    ] * 3
    assert lake_files() == files


@CASES
def test_a_rewrite_touches_no_other_day(own_database, key, manager, shape):
    run([asset_of(key, manager, shape(bars(count=192)))], tags=RANGE_TAGS)
    changed = shape(bars(count=96, price=200.0))
    run([asset_of(key, manager, changed)], partition_key="2024-05-01")
    assert (
        stored(key).head(96).get_column(key_value(key)).to_list()
        == changed.get_column(key_value(key)).to_list()
    )
    assert stored(key).tail(96).equals(shape(bars(count=192)).tail(96), null_equal=True)


def key_value(key: dg.AssetKey) -> str:
    return "close" if key == OHLC_15M else "rsi_14"


@CASES
def test_rows_of_another_day_are_refused(own_database, key, manager, shape):
    frame = shape(bars(count=100))
    result = run([asset_of(key, manager, frame)], partition_key="2024-05-01")
    assert not result.success
    assert "4 rows lie outside the partitions" in str(result.all_events)


@CASES
def test_a_range_that_breaks_off_keeps_the_days_it_finished(own_database, key, manager, shape):
    frame = shape(bars(count=96 * 3))

    def days() -> Iterator[tuple[str, pl.DataFrame]]:
        for number in range(3):
            if number == 2:
                raise RuntimeError("the source went away")
            day = START + timedelta(days=number)
            yield (
                f"{day:%Y-%m-%d}",
                frame.filter(pl.col("ts").is_between(day, day + timedelta(days=1), closed="left")),
            )

    result = run([asset_of(key, manager, lambda: PartitionFrames(days()))], tags=RANGE_TAGS)
    assert not result.success
    assert stored(key).height == 192


@CASES
def test_an_input_reads_the_partitions_of_the_run_lazily_or_not(own_database, key, manager, shape):
    seen = {}

    @dg.asset(
        ins={"upstream": dg.AssetIn(key=key)},
        partitions_def=DAILY,
        io_manager_key="memory",
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def eager(upstream: pl.DataFrame) -> None:
        seen["eager"] = upstream.height

    @dg.asset(
        ins={"upstream": dg.AssetIn(key=key)},
        partitions_def=DAILY,
        io_manager_key="memory",
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def lazy(upstream: pl.LazyFrame) -> None:
        seen["lazy"] = upstream.select(pl.len()).collect().item()

    source = asset_of(key, manager, shape(bars(count=96 * 3)))
    with dg.DagsterInstance.ephemeral() as instance:
        resources = {**MANAGERS, "memory": dg.InMemoryIOManager()}
        dg.materialize([source], instance=instance, resources=resources, tags=RANGE_TAGS)
        dg.materialize(
            [source, eager, lazy],
            instance=instance,
            resources=resources,
            selection=dg.AssetSelection.assets(eager, lazy),
            partition_key="2024-05-02",
        )
    assert seen == {"eager": 96, "lazy": 96}


def test_a_backfill_of_single_days_equals_one_range(own_database):
    frame = bars(count=96 * 3)
    for day in ("2024-05-01", "2024-05-02", "2024-05-03"):
        day_start = datetime.fromisoformat(day).replace(tzinfo=UTC)
        own = frame.filter(pl.col("ts").is_between(day_start, day_start + timedelta(days=1), closed="left"))
        assert run([asset_of(OHLC_15M, "postgres", own)], partition_key=day).success
    assert stored(OHLC_15M).equals(frame)


finite_or_not = st.floats(allow_nan=True, allow_infinity=True, width=64)
rows = st.lists(
    st.tuples(
        st.text(
            st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), min_size=1, max_size=12
        ),
        st.integers(0, 95),
        finite_or_not,
        st.none() | st.floats(allow_nan=False),
        st.none() | st.integers(-(2**63), 2**63 - 1),
    ),
    max_size=20,
    unique_by=lambda row: row[:2],
)


@given(rows=rows)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bars_make_the_round_trip_through_postgres_and_parquet(own_database, rows):
    from tracker_pipeline.storage.database import connect
    from tracker_pipeline.storage.io_managers import store_day
    from tracker_pipeline.storage.writing import write_window

    table = schemas.BARS["15m"]
    template = bars(count=96)
    frame = table.conform(
        pl.DataFrame(
            {
                "symbol": [row[0] for row in rows],
                "ts": [template.item(row[1], "ts") for row in rows],
                "close": [row[2] for row in rows],
                "vwap": [row[3] for row in rows],
                "trades": [row[4] for row in rows],
                "available_at": [available_at(template.item(row[1], "ts"), "15m") for row in rows],
            },
            schema_overrides={
                "symbol": pl.String,
                "ts": pl.Datetime("us", "UTC"),
                "close": pl.Float64,
                "vwap": pl.Float64,
                "trades": pl.Int64,
                "available_at": pl.Datetime("us", "UTC"),
            },
        ).with_columns(
            venue=pl.lit("bybit"),
            open=pl.lit(1.0),
            high=pl.lit(1.0),
            low=pl.lit(1.0),
            volume=pl.lit(0.0),
            source=pl.lit("test"),
            revision=pl.lit(1, pl.Int64),
            run_id=pl.lit("r"),
            fetched_at=pl.lit(START),
        )
    )
    with connect() as connection:
        connection.execute("TRUNCATE market.ohlc_15m")
        connection.execute("DELETE FROM archive.batches")
    with connect() as connection:
        write_window(connection, table, frame, (START, START + timedelta(days=1)), run_id="r")
    assert stored(OHLC_15M).equals(frame, null_equal=True)
    with connect() as connection:
        connection.execute("TRUNCATE market.ohlc_15m")
    store_day(table, START.date(), frame, run_id="r")
    assert stored(OHLC_15M).equals(frame, null_equal=True)
