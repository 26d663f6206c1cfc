"""The hours of a run over all configured networks, so that one network's failure takes nothing from the others.

What belongs here: the loop that hourly on-chain assets share. What does not: what is read in an hour.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

from tracker_pipeline.assets.declaration import hour_of
from tracker_pipeline.domain.schemas import Table
from tracker_pipeline.resources.errors import PipelineError
from tracker_pipeline.storage import scan

HOUR = timedelta(hours=1)

# Network and hour to the rows of that hour and what the UI shows of them.
ReadHour = Callable[[str, datetime], tuple[pl.DataFrame, Mapping[str, Any]]]


def hourly_frames(
    context: dg.AssetExecutionContext, table: Table, networks: Sequence[str], read: ReadHour
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield each hour of the run with the rows of all networks.

    Where a network fails and another does not, the hour keeps the rows that are stored of the one, gets those of the
    other, and the run fails after that.

    Raises:
        PipelineError: a network failed.
    """
    for key in context.partition_keys:
        hour = hour_of(key)
        frames: list[pl.DataFrame] = []
        failures: list[PipelineError] = []
        for network in networks:
            try:
                frame, metadata = read(network, hour)
            except PipelineError as error:
                failures.append(error)
                frame = scan(table.name, hour, hour + HOUR, predicate=pl.col("network") == network).collect()
            else:
                context.add_asset_metadata(named(metadata, network, networks), partition_key=key)
            frames.append(table.conform(frame))
        if len(failures) < len(networks):
            yield key, pl.concat(frames)
        if failures:
            raise failures[0]


def named(metadata: Mapping[str, Any], network: str, networks: Sequence[str]) -> dict[str, Any]:
    """Metadata with the name of the network, where there are several."""
    return {name if len(networks) < 2 else f"{network}: {name}": value for name, value in metadata.items()}
