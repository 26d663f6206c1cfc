"""Reports for people: rendered for each period, sent at most once."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import day_of, table_asset
from tracker_pipeline.domain.report_text import Facts, markdown, title_of
from tracker_pipeline.domain.schemas import REPORTS
from tracker_pipeline.operations import delivery
from tracker_pipeline.operations.report import gather
from tracker_pipeline.partitions import DAILY, WEEKLY
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.resources.notifications import REPORT_VARIABLE, report_channels
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage.database import Connection, connect
from tracker_pipeline.storage.io_managers import PartitionFrames

_DAY: Final = timedelta(days=1)
# An old report is read by those who look for it; nobody wants to be told last week's news.
_NEWS: Final = timedelta(hours=24)

Span = Callable[[datetime, ZoneInfo], tuple[datetime, datetime]]


def _at(day: datetime, hour: int, zone: ZoneInfo) -> datetime:
    return datetime.combine(day.date(), time(hour), zone)


SPANS: Final[dict[str, Span]] = {
    "morning": lambda day, zone: (_at(day - _DAY, 19, zone), _at(day, 7, zone)),
    "midday": lambda day, zone: (_at(day, 7, zone), _at(day, 12, zone)),
    "evening": lambda day, zone: (_at(day, 0, zone), _at(day, 19, zone)),
    "weekly": lambda monday, zone: (_at(monday - _DAY, 19, zone), _at(monday + 6 * _DAY, 19, zone)),
}


def _report_asset(name: str) -> dg.AssetsDefinition:
    table = REPORTS[name]

    @table_asset(
        table,
        kinds={"markdown"},
        partitions=WEEKLY if name == "weekly" else DAILY,
        deps=[keys.OHLC_15M, keys.REGIMES, keys.ACCUMULATION_SCORES, keys.STRATEGY_SETUPS],
        description=f"{table.description} Sent once to the channels of {REPORT_VARIABLE}, or of the alerts where that"
        " is unset; one older than a day is rendered and not sent.",
    )
    def report(context: dg.AssetExecutionContext) -> PartitionFrames:
        """Render and send the periods of the run."""
        return PartitionFrames(_periods(context, name))

    return report


def _periods(context: dg.AssetExecutionContext, name: str) -> Iterator[tuple[str, pl.DataFrame]]:
    zone = ZoneInfo(get_config().operations.report_timezone)
    with classified():
        for key in context.partition_keys:
            start, end = SPANS[name](day_of(key), zone)
            now = datetime.now(UTC)
            with connect() as connection:
                facts = gather(connection, start=start, end=end, now=now)
            title, text = title_of(name, facts), markdown(facts)
            yield key, _row(key, title, text, facts, context.run.run_id)
            # Sent once it is stored: a report that could not be stored is made again, and would be sent again.
            with connect() as connection:
                outcome = _send(connection, f"report/{name}/{key}", title, text, end, now)
            context.add_asset_metadata(
                {
                    "report": dg.MetadataValue.md(f"**{title}**\n\n{text}"),
                    "delivery": outcome,
                    "missing": len(facts.missing),
                },
                partition_key=key,
            )


def _row(key: str, title: str, text: str, facts: Facts, run_id: str) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "period": day_of(key),
                "title": title,
                "markdown": text,
                "healthy_pct": facts.healthy_pct,
                "missing": list(facts.missing),
                "rendered_at": facts.rendered_at,
                "run_id": run_id,
            }
        ],
        schema_overrides={"missing": pl.List(pl.String), "healthy_pct": pl.Float64},
    )


def _send(
    connection: Connection, message: str, title: str, text: str, end: datetime, now: datetime
) -> dict[str, str]:
    """What became of the message, by channel."""
    reason = f"{REPORT_VARIABLE} is not set"
    if now - end > _NEWS:
        reason = "the period ended more than a day ago"
    elif now < end:
        reason = "the period is not over"
        return {delivery.UNSET: reason}
    channels = [] if now - end > _NEWS else report_channels()
    return delivery.deliver(
        connection, channels, message=message, title=title, body=text, now=now, unset_reason=reason
    )


reports = {name: _report_asset(name) for name in REPORTS}
