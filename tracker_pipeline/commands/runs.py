"""Runs a job in this process over a range of partitions, and tells how it went.

What belongs here: one run with progress. What does not: which runs a command makes.
"""

import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import dagster as dg

from tracker_pipeline.commands.project import QUIET
from tracker_pipeline.definitions import defs

Progress = Callable[[str], None]
T = TypeVar("T")


@dataclass
class Outcome:
    """How one run went.

    Attributes:
        seconds: wall time of the run.
        failure: one sentence where it failed, else empty.
        checks: of each asset, by its op name: the checks that ran, with the words of those that failed.
        warnings: what checks said that warn and do not fail.
        seconds_by_asset: wall time of each asset, by its op name.
    """

    name: str
    seconds: float
    failure: str = ""
    checks: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds_by_asset: dict[str, float] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether the run and all its checks ended well."""
        return not self.failure and not self.problems

    @property
    def problems(self) -> list[str]:
        """What the failed checks said."""
        return [words for outcomes in self.checks.values() for words in outcomes if words]


def run_job(
    instance: dg.DagsterInstance,
    job_name: str,
    *,
    keys: Sequence[dg.AssetKey] | None = None,
    partitions: tuple[str, str] | None = None,
    op_config: Mapping[str, Any] | None = None,
    progress: Progress = lambda text: None,
) -> Outcome:
    """Run `job_name` here and now.

    Args:
        instance: where the run is recorded.
        job_name: a job of the code location.
        keys: which of its assets; all if not given.
        partitions: first and last partition key.
        op_config: configuration by op name.
        progress: called with the name of each asset that was materialized.
    """
    # Storing events one by one takes half of the time of a range of days.
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "100")
    job = defs.resolve_job_def(job_name)
    tags = dict(zip(_RANGE_TAGS, partitions, strict=True)) if partitions else {}
    run_id = str(uuid.uuid4())
    instance.add_event_listener(run_id, lambda event: _tell(event, progress))
    started = time.monotonic()
    _CURRENT[:] = [(instance, run_id)]
    result = job.execute_in_process(
        instance=instance,
        run_id=run_id,
        asset_selection=list(keys) if keys else None,
        tags=tags,
        run_config={**QUIET, "ops": dict(op_config or {})},
        raise_on_error=False,
    )
    _CURRENT.clear()
    outcome = Outcome(job_name, time.monotonic() - started)
    _read_events(result, outcome)
    if not result.success and not outcome.failure:
        outcome.failure = f"{job_name} failed; the run {run_id} in the UI says more"
    return outcome


def interruptible(work: Callable[[], T]) -> T:
    """Do `work` so that Ctrl-C ends it at once.

    Dagster takes Ctrl-C for itself while a run is on in the main thread, and lets the run go on. In another thread it
    does not. What was committed stays; the open transaction ends with its connection, and the run is marked canceled.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except KeyboardInterrupt:
        for instance, run_id in _CURRENT:
            run_record = instance.get_run_by_id(run_id)
            if run_record is not None:
                instance.report_run_canceled(run_record)
        raise
    if failed:
        raise failed[0]
    return done[0]


_CURRENT: list[tuple[dg.DagsterInstance, str]] = []
_RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def _tell(event: dg.EventLogEntry, progress: Progress) -> None:
    materialization = event.dagster_event if event.is_dagster_event else None
    if materialization and materialization.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
        key = materialization.asset_key
        partition = materialization.partition or ""
        progress(f"{key.to_user_string() if key else ''} {partition}".strip())


def _read_events(result: dg.ExecuteInProcessResult, outcome: Outcome) -> None:
    for evaluation in result.get_asset_check_evaluations():
        name = f"{evaluation.asset_key.to_user_string()}: {evaluation.check_name}"
        words = "" if evaluation.passed else f"{name}: {evaluation.description or 'failed'}"
        if words and evaluation.severity is dg.AssetCheckSeverity.WARN:
            outcome.warnings.append(words)
            words = ""
        outcome.checks.setdefault(evaluation.asset_key.to_python_identifier(), []).append(words)
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_SUCCESS and event.step_key:
            duration = getattr(event.event_specific_data, "duration_ms", 0.0)
            outcome.seconds_by_asset[event.step_key] = duration / 1000
        if event.event_type == dg.DagsterEventType.STEP_FAILURE and not outcome.failure:
            outcome.failure = f"{(event.step_key or '').replace('__', '/')}: {_root_cause(event)}"


def _root_cause(event: dg.DagsterEvent) -> str:
    error = getattr(event.event_specific_data, "error", None)
    user = getattr(event.event_specific_data, "user_failure_data", None)
    if user and user.description:
        return str(user.description)
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return "no reason recorded"
    words = " ".join(error.message.split())
    return words.removeprefix("tracker_pipeline.resources.errors.TransientError: ")
