"""A pool lets one run at a time to a scarce thing, and never keeps the place of a run that is over."""

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
