"""How the asset of a declared table is declared: key, group, IO manager, partitions, schema and owner, once.

What belongs here: what every table's asset has in common, and the window of a run. What does not: any one asset.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

from tracker_pipeline.domain.schemas import Table
from tracker_pipeline.keys import key_of
from tracker_pipeline.resources.failures import RETRIES
from tracker_pipeline.storage.day_locks import only_maker

OWNER = "team:market-data"
_PAGES = {
    "market": "completeness.md",
    "features": "features.md",
    "labels": "labels.md",
    "onchain": "onchain.md",
    "operations": "running_live.md",
}

# backfill_policy is beta and would warn once for each asset.
warnings.filterwarnings("ignore", category=dg.BetaWarning)


def table_asset(
    table: Table,
    *,
    kinds: set[str],
    partitions: dg.TimeWindowPartitionsDefinition | None = None,
    deps: Sequence[dg.AssetKey | dg.AssetDep] = (),
    ins: Mapping[str, dg.AssetIn] | None = None,
    pool: str | None = None,
    description: str,
    docs: str | None = None,
    command: str | None = None,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Declare the asset that fills `table`.

    Args:
        table: what it fills.
        kinds: what it is made with.
        partitions: None where it is made whole.
        deps: assets that it reads by itself.
        ins: assets that it is handed.
        pool: the scarce thing that it uses.
        description: what a row is, for those who trade on it.
        docs: its page in the folder `docs`; that of its schema if not given.
        command: what shows more of it at the terminal; a query for its newest rows if not given.

    The table says which IO manager stores it and what its columns are; a partitioned asset takes ranges in one
    run, because each run costs seconds and each partition within one milliseconds.
    """
    return dg.asset(
        key=key_of(table),
        description=description,
        group_name=table.schema,
        owners=[OWNER],
        kinds=kinds | {"postgres" if table.store == "postgres" else "parquet"},
        io_manager_key="postgres" if table.store == "postgres" else "parquet",
        metadata={
            "dagster/column_schema": column_schema(table),
            "dagster/table_name": table.name,
            "unique by": ", ".join(table.key),
            **further_reading(docs or _PAGES[table.schema], command or _query(table)),
        },
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
        retry_policy=RETRIES,
        deps=list(deps),
        ins=dict(ins or {}),
        pool=pool,
    )


def further_reading(docs: str, command: str) -> dict[str, dg.MetadataValue[Any]]:
    """Where to look for more: a page of the folder `docs`, and a command."""
    return {
        "documentation": dg.MetadataValue.path(f"docs/{docs}"),
        "at the terminal": dg.MetadataValue.text(command),
    }


def _query(table: Table) -> str:
    newest = f" ORDER BY {table.time_column} DESC" if table.time_column else ""
    return f'tracker sql "FROM {table.name}{newest} LIMIT 20"'


def newest_of(key: dg.AssetKey) -> dg.AssetDep:
    """A partitioned asset on which one without partitions depends.

    Left alone Dagster takes it to depend on every partition and lists them all in each run: 0.7 s for three years of
    hours.
    """
    return dg.AssetDep(key, partition_mapping=dg.LastPartitionMapping())


def column_schema(table: Table) -> dg.TableSchema:
    """The declared columns as the UI shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=column.type.postgres,
                description=column.description,
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in table.columns
        ]
    )


def run_window(context: dg.AssetExecutionContext) -> tuple[datetime, datetime]:
    """[start, end) of the partitions of this run, in UTC."""
    window = context.partition_time_window
    return _utc(window.start), _utc(window.end)


def blocks_of_days(
    context: dg.AssetExecutionContext, longest: timedelta
) -> Iterator[tuple[datetime, datetime, list[str]]]:
    """The run's daily partitions in blocks of bounded length: start, end, partition keys.

    A block bounds memory and is what a run that breaks off loses.
    """
    definition = context.assets_def.partitions_def
    assert isinstance(definition, dg.TimeWindowPartitionsDefinition)  # noqa: S101  # for the type checker
    keys = list(context.partition_keys)
    size = max(1, int(longest / timedelta(days=1)))
    for first in range(0, len(keys), size):
        block = keys[first : first + size]
        windows = [definition.time_window_for_partition_key(key) for key in (block[0], block[-1])]
        yield _utc(windows[0].start), _utc(windows[1].end), block


def own_blocks_of_days(
    context: dg.AssetExecutionContext, table: Table, longest: timedelta
) -> Iterator[tuple[datetime, datetime, list[str]]]:
    """The same, and no other run makes these days of the table until the next block is asked for.

    Days that are made of stored rows are read, made and stored within the loop over these blocks.
    """
    for start, end, day_keys in blocks_of_days(context, longest):
        with only_maker(table, start, end):
            yield start, end, day_keys


def days_of(
    frame: pl.DataFrame, column: str | None, day_keys: Sequence[str]
) -> Iterator[tuple[str, pl.DataFrame]]:
    """The rows of each daily partition, by `column`."""
    time = pl.col(column or "")
    for key in day_keys:
        day = day_of(key)
        yield key, frame.filter(time.is_between(day, day + timedelta(days=1), closed="left"))


def day_of(key: str) -> datetime:
    """Start of a daily partition."""
    return datetime.fromisoformat(key).replace(tzinfo=UTC)


def hour_of(key: str) -> datetime:
    """The hour of an hourly partition."""
    return datetime.strptime(key, "%Y-%m-%d-%H:%M").replace(tzinfo=UTC)


def _utc(moment: datetime) -> datetime:
    return datetime.fromtimestamp(moment.timestamp(), UTC)
