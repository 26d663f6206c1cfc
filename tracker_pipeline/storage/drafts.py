"""Copies the partition that moves next while the one before it is proven and removed.

A copy takes no lock. What it says is compared with the database once the partition is locked, so rows that came in
between make it worthless and nothing worse; then the day is copied again, under the lock. So a writer of late rows
waits for the proof and the drop only, and two cores are at work throughout.

What belongs here: when a draft is made and how long it lasts. What does not: how it is made and proven (`part_copy`).
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import date
from types import TracebackType

from tracker_pipeline.storage.column_forms import fields_of
from tracker_pipeline.storage.kept_connection import KeptConnection
from tracker_pipeline.storage.moving import Run, plan
from tracker_pipeline.storage.part_copy import Draft, drafted
from tracker_pipeline.storage.partition_mode import is_of_one_day, work_of_day


class Drafts:
    """The drafts of some days that are asked for in order, each made while the one before it is in use.

    There are none of row mode, which reads and deletes in one snapshot, and of partitions of several days.

    Args:
        run: the table and what is to move of it.
        days: which are going to move.
    """

    def __init__(self, run: Run, days: Sequence[date]) -> None:
        self._run = run
        self._days = list(days) if run.policy.mode == "partition" else []
        self._kept = KeptConnection()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="drafts")
        self._begun: tuple[date, Future[Draft | None], ExitStack] | None = None
        self._in_use = ExitStack()

    def __enter__(self) -> "Drafts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        self._in_use.close()
        if self._begun is not None:
            self._begun[2].close()
        self._kept.close()

    def of_day(self, day: date) -> Draft | None:
        """The draft of a day, if one could be made; the former one is gone, and the next one is begun."""
        self._in_use.close()
        if day not in self._days:
            return None
        if self._begun is None or self._begun[0] != day:
            self._begin(day)
        assert self._begun is not None  # noqa: S101  # for the type checker
        _, made, self._in_use = self._begun
        draft = made.result()
        self._begun = None
        for after in self._days[self._days.index(day) + 1 :][:1]:
            self._begin(after)
        return draft

    def _begin(self, day: date) -> None:
        if self._begun is not None:  # a day was left out
            self._begun[1].exception()
            self._begun[2].close()
        stack = ExitStack()
        self._begun = day, self._thread.submit(self._made, day, stack), stack

    def _made(self, day: date, stack: ExitStack) -> Draft | None:
        # Whatever is in the way is in the way of the move as well, which says so.
        with suppress(Exception):
            with self._kept.lent() as connection:
                due = plan(connection, self._run, day)
            if due.partition is not None and is_of_one_day(due.partition) and not due.reason:
                work = work_of_day(due.work, due.partition, day)
                return stack.enter_context(drafted(None, work, fields_of(work.table), self._run.step))
        return None
