"""What Dagster itself costs: the hourly job beside its stages as plain functions, backfills, the import.

    python -m benchmarks.operations [--only imports|records|hourly|backfills] [--whales 1000] [--days 60]

Everything runs on an embedded Postgres and the local sandbox, in this process or in processes of `dagster`.
"""

import argparse
import inspect
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[1]
DAGSTER = str(Path(sys.executable).with_name("dagster"))
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def python(statement: str) -> None:
    subprocess.run([sys.executable, "-c", statement], check=True, cwd=PROJECT)


def compare_imports() -> None:
    """Alternating, the median of five."""
    taken: dict[str, list[float]] = {"dagster": [], "tracker_pipeline.definitions": []}
    for _ in range(5):
        for module, times in taken.items():
            times.append(seconds(lambda module=module: python(f"import {module}")))
    bare, ours = (statistics.median(times) for times in taken.values())
    print(
        f"import of the definitions {ours:.2f} s (limit 2.5), of dagster alone {bare:.2f} s: {ours / bare:.2f} x"
    )


HOURLY = ("market_hourly", "onchain_hourly", "onchain_recheck_hourly", "archive_hourly")


def compare_hourly_jobs(defs: Any, instance: Any, days: int) -> None:
    """All runs that the hourly schedules ask for at this hour, beside their stages as plain functions.

    The store holds what an installation has that has run for `days`: a year of it would make the stages slower, and
    Dagster no slower. Before each pass the rows of the last hour are taken away, so that each fetches and writes an
    hour. Both open their clients themselves.
    """
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    first, today = f"{now - timedelta(days=days):%Y-%m-%d}", f"{now:%Y-%m-%d}"
    spent = seconds(lambda: run_job(defs, instance, "market_day", first, today))
    print(f"{days + 1} days of the market chain in one run: {spent:.1f} s")
    hours = [hour_key(hour - timedelta(hours=earlier)) for earlier in (25, 1)]
    spent = seconds(lambda: run_job(defs, instance, "onchain_hour", *hours))
    print(f"25 hours of the on-chain one: {spent:.1f} s")
    asked = asked_for(defs, instance, max(now, hour + timedelta(minutes=5)))
    for name in HOURLY:
        print(
            f"{name} asks for {', '.join(one.partition_key or 'a run' for one in asked[name]) or 'nothing'}"
        )

    print("the whole hourly job, seconds (median of three, alternating):")
    total = [0.0, 0.0]
    for name, requests in asked.items():
        job_name = defs.resolve_schedule_def(name).job_name
        for partition in [request.partition_key for request in requests]:
            runs, plains = [], []
            for _ in range(3):
                forget_hour(defs, job_name, partition, now)
                runs.append(seconds(lambda: run_job(defs, instance, job_name, partition, partition)))  # noqa: B023
                forget_hour(defs, job_name, partition, now)
                plains.append(seconds(lambda: stages(defs, job_name, partition)))  # noqa: B023
            run, plain = statistics.median(runs), statistics.median(plains)
            total[0] += run
            total[1] += plain
            print(
                f"  {job_name}: as a job {run:.2f}, its stages as plain functions {plain:.2f}: {run / plain:.2f} x"
            )
    overhead = 1 - total[1] / total[0]
    print(f"  together {total[0]:.2f} and {total[1]:.2f}: {total[0] / total[1]:.2f} x (limit 1.5), Dagster's share"
          f" {overhead:.0%}")  # fmt: skip


def asked_for(defs: Any, instance: Any, now: datetime) -> dict[str, list[Any]]:
    """The runs that a tick of each hourly schedule asks for."""
    import dagster as dg

    found = {}
    for name in HOURLY:
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=now, repository_def=defs.get_repository_def()
        )
        found[name] = list(defs.resolve_schedule_def(name).evaluate_tick(context).run_requests or [])
    return found


def hour_key(hour: datetime) -> str:
    return f"{hour:%Y-%m-%d-%H}:00"


def run_job(defs: Any, instance: Any, name: str, first: str | None, last: str | None) -> None:
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    alone = first == last
    result = defs.resolve_job_def(name).execute_in_process(
        instance=instance,
        partition_key=first if alone else None,
        tags={} if alone else tags,
        run_config=QUIET,
        raise_on_error=False,
    )
    failed = [event.step_key for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert result.success, f"{name} failed in {failed}"


def forget_hour(defs: Any, job_name: str, partition: str | None, now: datetime) -> None:
    """Take the rows of the last hour away from the tables of a job."""
    from tracker_pipeline.storage import io_managers, scan
    from tracker_pipeline.storage.database import connect, identifier

    if partition is None or job_name == "archiving":
        return
    since = datetime.fromisoformat(partition[:10]).replace(tzinfo=UTC)
    hour = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=0 if ":" in partition else 1)
    nodes = {node.name for node in defs.resolve_job_def(job_name).graph.nodes_in_topological_order}
    for asset in defs.assets:
        if not asset.is_executable or asset.op.name not in nodes or asset.partitions_def is None:
            continue
        table = io_managers.table_of(asset.key)
        time_column = table.time_column or ""
        if table.store == "postgres":
            with connect() as connection:
                statement = f"DELETE FROM {identifier(table).as_string(None)} WHERE {time_column} >= %s"
                connection.execute(statement, [max(since, hour)])
        else:
            rows = scan(table.name, since, since + timedelta(days=1)).collect()
            kept = rows.filter(rows.get_column(time_column) < hour)
            io_managers.store_day(table, since.date(), kept, run_id="forgotten")


def stages(defs: Any, job_name: str, partition: str | None) -> None:
    """The job's assets and checks in their order, computed and stored without Dagster's machinery."""
    from tracker_pipeline.resources.clients import ChainResource, ExchangeResource

    ordered = [node.name for node in defs.resolve_job_def(job_name).graph.nodes_in_topological_order]
    assets = {asset.op.name: asset for asset in defs.assets if asset.is_executable}
    by_key = {asset.key: asset for asset in assets.values()}
    checks = {check.op.name: check for check in defs.asset_checks}
    resources = {"exchange": ExchangeResource.configured(), "chain": ChainResource.configured()}
    for name in ordered:
        if name in assets:
            _asset(assets[name], partition, resources)
        else:
            _check(checks[name], by_key, partition, resources)
    for resource in resources.values():
        resource.teardown_after_execution(None)


def _check(check: Any, by_key: dict[Any, Any], partition: str | None, resources: dict[str, Any]) -> None:
    asset = by_key[next(iter(check.check_keys)).asset_key]
    function = check.op.compute_fn.decorated_fn
    context = PlainContext(asset, partition if asset.partitions_def is not None else None)
    found = function(context, **_given(function, resources))
    for result in found if inspect.isgenerator(found) else [found]:
        assert result.passed or result.severity.name == "WARN", result


def _asset(asset: Any, partition: str | None, resources: dict[str, Any]) -> None:
    from tracker_pipeline.storage import io_managers

    partitioned = asset.partitions_def is not None
    function = asset.op.compute_fn.decorated_fn
    context = PlainContext(asset, partition if partitioned else None)
    value = function(context, **_given(function, resources))
    if value is None:
        return
    table = io_managers.table_of(asset.key)
    manager = io_managers.PostgresIOManager() if table.store == "postgres" else io_managers.ParquetIOManager()
    if not partitioned:
        manager._store(table, value, None, "plain")
        return
    window = asset.partitions_def.time_window_for_partition_key(partition)
    bounds = tuple(datetime.fromtimestamp(edge.timestamp(), UTC) for edge in (window.start, window.end))
    frames = value.frames if isinstance(value, io_managers.PartitionFrames) else [(partition, value)]
    for _, frame in frames:
        manager._store(table, frame, bounds, "plain")


def _given(function: Callable[..., Any], resources: dict[str, Any]) -> dict[str, Any]:
    """The default configuration and the resources that a function asks for."""
    given: dict[str, Any] = {}
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.name == "config":
            given["config"] = parameter.annotation()
        elif parameter.name in resources:
            given[parameter.name] = resources[parameter.name]
    return given


class PlainContext:
    """What the functions of assets use of a context, and nothing behind it."""

    def __init__(self, asset: Any, partition: str | None) -> None:
        import logging

        self.assets_def = asset
        self.partition_keys = [partition] if partition else []
        self.has_partition_key = partition is not None
        self.has_partition_key_range = False
        self.log = logging.getLogger("plain")
        self.run = type("Run", (), {"run_id": "plain"})
        self.run_id = "plain"
        if partition:
            self.partition_key = partition
            self.partition_time_window = asset.partitions_def.time_window_for_partition_key(partition)

    def add_asset_metadata(self, *_: Any, **__: Any) -> None: ...

    def add_output_metadata(self, *_: Any, **__: Any) -> None: ...


def compare_backfills(days: int) -> None:
    """One run over a range beside one run for each partition, as processes, the way the daemon starts them."""
    last = datetime.now(UTC).date() - timedelta(days=3)
    first = last - timedelta(days=days - 1)
    command = [
        DAGSTER,
        "asset",
        "materialize",
        "-m",
        "tracker_pipeline.definitions",
        "--select",
        "market/regimes",
    ]

    def materialize(*options: str) -> None:
        subprocess.run([*command, *options], check=True, cwd=PROJECT, capture_output=True)

    whole = seconds(lambda: materialize("--partition-range", f"{first}...{last}"))
    singles = [
        seconds(lambda day=first + timedelta(days=i): materialize("--partition", f"{day}")) for i in range(3)
    ]
    each = statistics.median(singles)
    print(
        f"backfill of {days} days of market/regimes: one run {whole:.2f} s, {1000 * whole / days:.0f} ms a partition;"
        f" one run each {each:.2f} s a partition: {each * days / whole:.0f} x less (limit 20)"
    )


def compare_batches(instance: Any, days: int) -> None:
    """Dagster's own share of a partition: an asset that does nothing."""
    import dagster as dg

    partitions = dg.DailyPartitionsDefinition("2024-01-01")
    names = [f"idle_{number}" for number in range(3)]

    def idle(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name, partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run())
        def nothing() -> None: ...

        return nothing

    keys = partitions.get_partition_keys()[:days]
    tags = {
        "dagster/asset_partition_range_start": keys[0],
        "dagster/asset_partition_range_end": keys[-1],
    }
    job = dg.Definitions(
        assets=[idle(name) for name in names], jobs=[dg.define_asset_job("idle")], executor=dg.in_process_executor
    ).resolve_job_def("idle")  # fmt: skip

    def run(batch: str | None) -> float:
        os.environ.pop("DAGSTER_EVENT_BATCH_SIZE", None)
        if batch:
            os.environ["DAGSTER_EVENT_BATCH_SIZE"] = batch
        return seconds(lambda: job.execute_in_process(instance=instance, tags=tags, run_config=QUIET))

    taken: dict[str | None, list[float]] = {None: [], "100": []}
    for _ in range(3):
        for batch, times in taken.items():
            times.append(run(batch))
    per = {batch: 1000 * statistics.median(times) / (days * len(names)) for batch, times in taken.items()}
    print(
        f"Dagster's own share of a materialized partition: {per[None]:.1f} ms, with DAGSTER_EVENT_BATCH_SIZE=100"
        f" {per['100']:.1f} ms"
    )


@contextmanager
def installation(whales: int) -> Iterator[None]:
    """A state folder with its own Postgres and sandbox."""
    from tracker_pipeline.resources.sandbox_process import SandboxProcess

    with tempfile.TemporaryDirectory(prefix="tracker-bench-") as home:
        Path(home).chmod(0o755)
        os.environ["TRACKER_HOME"] = home
        config = Path(home) / "config.yaml"
        config.write_text(yaml.safe_dump({"history_start": "2024-01-01"}))
        os.environ["TRACKER_CONFIG"] = str(config)
        sandbox = SandboxProcess(Path(home), ("--whales", str(whales)))
        sandbox.start()
        yield
        sandbox.stop_if_unused()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whales", type=int, default=1_000)
    parser.add_argument("--days", type=int, default=60, help="of the backfills")
    parser.add_argument("--history", type=int, default=8, help="days of the market chain before the hour")
    parts = ("imports", "records", "hourly", "backfills")
    parser.add_argument("--only", choices=parts, help="one of the four measurements")
    given = parser.parse_args()
    wanted = (given.only,) if given.only else parts
    if "imports" in wanted:
        compare_imports()
    with installation(given.whales):
        from tracker_pipeline.commands.project import shared_instance
        from tracker_pipeline.definitions import defs
        from tracker_pipeline.storage.database import ready_url

        ready_url()
        with shared_instance() as instance:
            if "records" in wanted:
                compare_batches(instance, given.days)
            if "hourly" in wanted:
                compare_hourly_jobs(defs, instance, given.history)
        if "backfills" in wanted:
            compare_backfills(given.days)


if __name__ == "__main__":
    main()
