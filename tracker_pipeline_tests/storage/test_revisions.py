"""Whatever the order in which versions of bars arrive, the last one stands and every former one is kept, once."""

import os
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.archive import move_day
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.writing import Written, write_window
from tracker_pipeline_tests.frames import bars

DAY = datetime(2024, 5, 1, tzinfo=UTC)
TABLE = BARS["15m"]
# TRACKER_TEST_SEEDS raises the number of random histories.
SEEDS = range(int(os.environ.get("TRACKER_TEST_SEEDS", "4")))


def write(frame: pl.DataFrame) -> Written:
    with connect() as connection:
        return write_window(connection, TABLE, frame, (DAY, DAY + timedelta(days=3)), run_id="r")


def version(frame: pl.DataFrame, closes: dict[datetime, float]) -> pl.DataFrame:
    """Rows of some times, with these closes."""
    given = pl.DataFrame({"ts": list(closes), "given": list(closes.values())}).cast(
        {"ts": frame.schema["ts"]}
    )
    rows = frame.join(given, on="ts").with_columns(close="given", high=pl.max_horizontal("high", "given"))
    return rows.drop("given")


@pytest.mark.parametrize("seed", SEEDS)
def test_random_histories_of_late_repeated_and_corrected_bars(own_database, seed):
    """Against a model that is a dictionary: key to the versions it has had, the last of them the present one."""
    chance = random.Random(seed)
    frame = bars(count=192)
    times = frame.get_column("ts").to_list()
    history: dict[datetime, list[float]] = {}
    for _ in range(12):
        if chance.random() < 0.25 and history:
            move_day(TABLE, DAY.date(), cut=DAY + timedelta(days=30), run_id="archive")
        first = chance.randrange(len(times))
        chosen = chance.sample(times[first : first + 60], k=min(20, len(times) - first))
        closes = {ts: 100.0 + chance.randrange(3) for ts in chosen}
        added = [ts for ts in closes if ts not in history]
        changed = [ts for ts, close in closes.items() if ts in history and history[ts][-1] != close]
        written = write(version(frame, closes).sample(fraction=1.0, shuffle=True, seed=seed))
        assert written.unchanged == len(closes) - len(added) - len(changed)
        assert written.deleted == 0
        for ts in [*added, *changed]:
            history.setdefault(ts, []).append(closes[ts])
        again = write(version(frame, closes))
        assert again == Written(unchanged=len(closes))
    present = scan(TABLE.name).collect().sort("ts")
    assert dict(present.select("ts", "close").iter_rows()) == {ts: v[-1] for ts, v in history.items()}
    assert dict(present.select("ts", "revision").iter_rows()) == {ts: len(v) for ts, v in history.items()}
    kept = scan("market.bar_revisions").collect()
    former = {(ts, n): close for ts, v in history.items() for n, close in enumerate(v[:-1], start=1)}
    assert {(ts, n): c for ts, n, c in kept.select("ts", "revision", "close").iter_rows()} == former


def test_every_bar_that_changed_after_others_were_made_of_it_lies_in_an_invalidated_interval(own_database):
    chance = random.Random(7)
    frame = bars(count=192)
    whole = frame.filter(pl.col("ts") != DAY + timedelta(hours=3))
    write(whole)
    corrected = {ts: 500.0 + i for i, ts in enumerate(chance.sample(whole.get_column("ts").to_list(), 9))}
    write(version(frame, corrected))
    write(frame.filter(pl.col("ts") == DAY + timedelta(hours=3)))
    rows: list[dict[str, Any]] = scan("market.bar_invalidations").collect().to_dicts()
    for ts in [*corrected, DAY + timedelta(hours=3)]:
        assert any(row["start_ts"] <= ts < row["end_ts"] for row in rows)
    assert sum(row["bars"] for row in rows) == 10
    assert all(row["end_ts"] - row["start_ts"] <= timedelta(days=1) for row in rows)


def test_a_correction_back_to_the_first_values_is_a_revision_of_its_own(own_database):
    first = bars()
    write(first)
    write(first.with_columns(close=pl.col("close") + 0.5))
    assert write(first) == Written(updated=4)
    assert scan(TABLE.name).collect().get_column("revision").to_list() == [3] * 4
    kept = scan("market.bar_revisions").collect().sort("ts", "revision")
    assert kept.get_column("close").head(2).to_list() == [101.0, 101.5]


def test_repeating_what_is_stored_writes_no_write_ahead_log(own_database):
    write(bars(count=192))

    def position() -> int:
        with connect() as connection:
            row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
        return int(row[0])

    # The server writes of its own accord now and then, so once in five without a byte is proof.
    grown = []
    for _ in range(5):
        before = position()
        assert write(bars(count=192, run_id="again")) == Written(unchanged=192)
        grown.append(position() - before)
    assert min(grown) == 0
