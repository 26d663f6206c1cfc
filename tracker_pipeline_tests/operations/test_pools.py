"""A pool lets one run at a time to a scarce thing, and never keeps the place of a run that is over."""

from concurrent.futures import ThreadPoolExecutor

import dagster as dg
from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES, DagsterRun, RunOpConcurrency

from tracker_pipeline.storage.database import connect
from tracker_pipeline_tests.operations.instance import own_instance  # noqa: F401  # a fixture

EXCHANGE = RunOpConcurrency(
    root_key_counts={"exchange": 1}, has_unconstrained_root_nodes=False, all_pools={"exchange"}
)


def run_of(status: dg.DagsterRunStatus) -> DagsterRun:
    return DagsterRun(job_name="market_day", status=status, run_op_concurrency=EXCHANGE)


def has_to_wait(instance: dg.DagsterInstance, queued: DagsterRun) -> bool:
    """What the daemon decides before it starts a queued run."""
    storage, pools = instance.event_log_storage, instance.get_concurrency_config().pool_config
    counter = GlobalOpConcurrencyLimitsCounter(
        instance,
        [queued],
        instance.get_run_records(dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES)),
        storage.get_concurrency_keys() | {"exchange"},
        storage.get_pool_limits(),
        pool_granularity=pools.pool_granularity,
    )
    return counter.is_blocked(queued)


def test_a_cancelled_run_gives_its_place_in_a_pool_back_at_once(own_instance):  # noqa: F811
    holder = own_instance.add_run(run_of(dg.DagsterRunStatus.STARTED))
    waiting = run_of(dg.DagsterRunStatus.NOT_STARTED)
    assert has_to_wait(own_instance, waiting)
    own_instance.report_run_canceling(holder)
    assert has_to_wait(own_instance, waiting)  # it may still be asking the exchange
    own_instance.report_run_canceled(holder)
    assert not has_to_wait(own_instance, waiting)


def test_dagster_keeps_one_connection_between_its_operations(own_instance):  # noqa: F811
    runs, events = own_instance.run_storage, own_instance.event_log_storage
    serving = set()
    for opened in (runs.connect, events.index_connection, runs.connect):
        with opened() as connection:
            serving.add(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar())
    assert len(serving) == 1
    with connect() as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", [*serving])
    assert own_instance.get_runs_count() == 0  # a server that restarted is no failure


def test_a_process_never_holds_more_than_ten_connections_for_dagsters_records(own_instance):  # noqa: F811
    def ask(_: int) -> None:
        with own_instance.run_storage.connect() as connection:
            connection.exec_driver_sql("SELECT pg_sleep(0.3)")

    asking = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%sleep(0.3)'"
    most = 0
    with connect() as connection, ThreadPoolExecutor(25) as threads:
        connection.autocommit = True
        asked = [threads.submit(ask, number) for number in range(25)]
        while not all(one.done() for one in asked):
            most = max(most, connection.execute(asking).fetchone()[0])
        assert [one.result() for one in asked] == [None] * 25
    assert most == 10
