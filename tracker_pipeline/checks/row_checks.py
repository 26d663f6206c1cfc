"""Checks that judge the stored rows of a run, and all blocking ones of a table in one step.

What belongs here: what such checks get and answer, and the step. What does not: what is judged (`schema_checks` for
every table, `market_checks` and its like for their own).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import polars as pl

from tracker_pipeline.domain.schemas import Table
from tracker_pipeline.keys import key_of
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage import scan


@dataclass(frozen=True)
class Stored:
    """What is stored for the partitions of a run.

    Attributes:
        rows: hot and cold ones, in the declared schema.
        start: of the partitions; None where the table is read whole.
        end: exclusive.
    """

    rows: pl.DataFrame
    start: datetime | None
    end: datetime | None

    @property
    def span(self) -> str:
        """In words, since the web interface shows a check of a range without its partitions."""
        if self.start is None or self.end is None:
            return "all rows"
        return f"{self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        passed: whether nothing is wrong.
        metadata: figures for the UI.
        description: what is wrong, in a sentence.
    """

    passed: bool
    metadata: Mapping[str, Any]
    description: str | None = None


@dataclass(frozen=True)
class RowChecks:
    """Blocking checks of a table that judge its rows.

    Attributes:
        descriptions: name of each check to what it proves.
        judge: the stored rows to a verdict for each name.
    """

    descriptions: Mapping[str, str]
    judge: Callable[[Stored], Mapping[str, Verdict]]


def blocking_checks(table: Table, row_checks: Sequence[RowChecks]) -> dg.AssetChecksDefinition:
    """All blocking checks of a table's rows in one step, which reads them once: each further step costs 20 ms.

    Args:
        table: the declaration.
        row_checks: what is proven, in this order.
    """
    key = key_of(table)

    @dg.multi_asset_check(
        name=f"{table.schema}__{table.table}_sound",
        specs=[
            dg.AssetCheckSpec(name, asset=key, blocking=True, description=text)
            for checks in row_checks
            for name, text in checks.descriptions.items()
        ],
    )
    def sound(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        with classified():
            start, end = check_window(context, table)
            stored = Stored(scan(table.name, start, end).collect(), start, end)
            for checks in row_checks:
                for name, verdict in checks.judge(stored).items():
                    yield dg.AssetCheckResult(
                        passed=verdict.passed,
                        asset_key=key,
                        check_name=name,
                        metadata={"judged": stored.span, **verdict.metadata},
                        description=verdict.description,
                    )

    return sound


def verdict_on(problems: Mapping[str, int], **figures: int) -> Verdict:
    """The verdict on problems that are counted: it passes where there is none."""
    counted = {what: count for what, count in problems.items() if count}
    return Verdict(
        not counted,
        {**figures, "problems": counted},
        "; ".join(f"{what}: {count}" for what, count in counted.items()) or None,
    )


def check_window(
    context: dg.AssetCheckExecutionContext, table: Table | None = None
) -> tuple[datetime, datetime] | tuple[None, None]:
    """[start, end) of the run's partitions; (None, None) reads a table without time whole."""
    partitioned = context.has_partition_key or context.has_partition_key_range
    if (table is not None and table.time_column is None) or not partitioned:
        return None, None
    window = context.partition_time_window
    start, end = (datetime.fromtimestamp(edge.timestamp(), UTC) for edge in (window.start, window.end))
    return start, end
