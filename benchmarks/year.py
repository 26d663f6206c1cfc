"""A year of both chains in Dagster's own records: how long writing them takes, and what still answers afterwards.

    python -m benchmarks.year [--days 365]

Materializes every partition of every asset of both chains by assets that do nothing and bear the real names, in one
run for each chain, as a backfill does. Then the real definitions do what they do every day: ticks of schedules and
sensors, what the web interface shows, retention.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import httpx
from dagster._utils.schedules import reverse_cron_string_iterator

from benchmarks.operations import PROJECT, QUIET, hour_key, installation, seconds
from benchmarks.sizing import MIB, records, vacuum_records

DAY = timedelta(days=1)
PARTITIONS = (
    """{ assetNodes { assetKey { path } partitionStats { numMaterialized numPartitions numFailed } } }"""
)
LATEST = """{ assetNodes { assetKey { path } assetMaterializations(limit: 1) { timestamp runId } } }"""
RANGES = """{ assetNodeOrError(assetKey: {path: ["onchain", "whale_balance_snapshots"]}) { ... on AssetNode {
  assetPartitionStatuses { ... on TimePartitionStatuses { ranges { status startKey endKey } } } } } }"""
RUNS = """{ runsOrError(limit: 25) { ... on Runs { results { runId status tags { key value } } } } }"""


def backfill(
    defs: Any, instance: dg.DagsterInstance, job_name: str, first: str, last: str
) -> tuple[int, float]:
    """Materialize a range of all partitioned assets of a job; their number with partitions, and seconds."""
    keys = defs.resolve_job_def(job_name).asset_layer.selected_asset_keys
    real = [
        asset for asset in defs.assets if asset.is_executable and asset.key in keys and asset.partitions_def
    ]

    def idle(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
        @dg.asset(
            key=asset.key, partitions_def=asset.partitions_def, backfill_policy=dg.BackfillPolicy.single_run()
        )
        def nothing() -> None: ...

        return nothing

    job = dg.Definitions(
        assets=[idle(asset) for asset in real],
        jobs=[dg.define_asset_job(job_name)],
        executor=dg.in_process_executor,
    ).resolve_job_def(job_name)
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    spent = seconds(lambda: job.execute_in_process(instance=instance, tags=tags, run_config=QUIET))
    partitions = real[0].partitions_def.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))
    return len(real) * len(partitions), spent


def median_ms(work: Callable[[], Any]) -> float:
    return 1000 * statistics.median(seconds(work) for _ in range(3))


def show_ticks(defs: Any, instance: dg.DagsterInstance) -> None:
    repository = defs.get_repository_def()
    for schedule in repository.schedule_defs:
        zone = schedule.execution_timezone or "UTC"
        last = next(reverse_cron_string_iterator(time.time(), str(schedule.cron_schedule), zone))

        def tick(schedule: dg.ScheduleDefinition = schedule, last: datetime = last) -> None:
            schedule.evaluate_tick(
                dg.build_schedule_context(
                    instance=instance, scheduled_execution_time=last, repository_def=repository
                )
            )

        print(f"  tick of {schedule.name:32}{median_ms(tick):8.0f} ms")
    for sensor in repository.sensor_defs:

        def look(sensor: dg.SensorDefinition = sensor) -> None:
            sensor.evaluate_tick(dg.build_sensor_context(instance=instance, repository_def=repository))

        print(f"  tick of {sensor.name:32}{median_ms(look):8.0f} ms")


@contextmanager
def web_interface(port: int) -> Any:
    """The real one over the real definitions."""
    command = [
        sys.executable,
        "-m",
        "dagster_webserver",
        "-m",
        "tracker_pipeline.definitions",
        "-p",
        str(port),
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(
        command, cwd=PROJECT, env={**os.environ, "DAGSTER_HOME": str(PROJECT)}, **quiet
    )
    try:
        yield f"http://127.0.0.1:{port}/graphql"
    finally:
        process.terminate()
        process.wait(60)


def show_interface(url: str) -> None:
    def ask(query: str) -> Any:
        return httpx.post(url, json={"query": query}, timeout=120).json()["data"]

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if ask("{ assetNodes { id } }")["assetNodes"]:
                break
        except (httpx.HTTPError, ValueError, TypeError):
            time.sleep(0.5)
    queries = {
        "counts of partitions, all assets": PARTITIONS,
        "newest materialization, all assets": LATEST,
        "8,760 partitions of one asset": RANGES,
        "the newest runs": RUNS,
    }
    for name, query in queries.items():
        first = 1000 * seconds(lambda: ask(query))  # noqa: B023
        again = median_ms(lambda: ask(query))  # noqa: B023
        print(f"  {name:36}{first:8.0f} ms first, {again:6.0f} ms again")
    counted = {
        "/".join(node["assetKey"]["path"]): node["partitionStats"] for node in ask(PARTITIONS)["assetNodes"]
    }
    print(f"  it shows {counted['onchain/whale_balance_snapshots']} of the snapshots")


def show_retention() -> None:
    """How long it takes where nothing is old, and what it leaves where all is: the newest of everything, for ever."""
    from tracker_pipeline.operations.retention import prune
    from tracker_pipeline.settings import get_settings
    from tracker_pipeline.storage.database import connect

    now = datetime.now(UTC)
    logs = get_settings().state_folder / "none"
    for title, before in {"nothing old": now - 14 * DAY, "everything old": now + DAY}.items():
        with connect() as connection:
            spent = seconds(lambda: prune(connection, before=before, now=now, logs=logs))  # noqa: B023
        vacuum_records()
        events, size = records()
        print(
            f"  retention, {title}: {spent:.2f} s; {events:,} events and {size / MIB:.0f} MiB of records stay"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--port", type=int, default=3999, help="of the web interface")
    given = parser.parse_args()
    with installation(whales=10):
        from tracker_pipeline.commands.project import shared_instance
        from tracker_pipeline.definitions import defs
        from tracker_pipeline.storage.database import ready_url

        ready_url()
        end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        first = end - given.days * DAY
        spans = {
            "market_day": (f"{first:%Y-%m-%d}", f"{end - DAY:%Y-%m-%d}"),
            "onchain_hour": (hour_key(first), hour_key(end - timedelta(hours=1))),
        }
        with shared_instance() as instance:
            total = [0, 0.0]
            for job_name, span in spans.items():
                partitions, spent = backfill(defs, instance, job_name, *span)
                total = [total[0] + partitions, total[1] + spent]
                print(f"{job_name} from {span[0]} to {span[1]}: {partitions:,} partitions, {spent:.0f} s of Dagster,"
                      f" {1000 * spent / partitions:.1f} ms each", flush=True)  # fmt: skip
            events, size = records()
            print(f"together {total[0]:,} in {total[1] / 60:.1f} minutes; {events:,} events, {size / MIB:.0f} MiB of"
                  " records")  # fmt: skip
            show_ticks(defs, instance)
        with web_interface(given.port) as url:
            show_interface(url)
        show_retention()


if __name__ == "__main__":
    main()
