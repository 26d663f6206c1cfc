"""`tracker demo`: the main job. Every asset family over a small window, from sources to labels, scores and archive.

The window is remembered for a day, so that a second run asks for the same hours and days and changes no row.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import dagster as dg
import polars as pl
from psycopg import sql

from tracker_pipeline import keys
from tracker_pipeline.assets.strategies import strategy_configs
from tracker_pipeline.automation.jobs import BAR_ASSETS, MARKET_ASSETS
from tracker_pipeline.commands.import_bars import Imported, import_files
from tracker_pipeline.commands.project import shared_instance
from tracker_pipeline.commands.runs import Outcome, Progress, run_job
from tracker_pipeline.definitions import TABLE_ASSETS
from tracker_pipeline.domain import regimes
from tracker_pipeline.domain.fingerprint import content_hash
from tracker_pipeline.domain.schemas import TABLES, Table
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.settings import get_config, get_settings
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect, identifier, ready_url

DAYS: Final = 30
HOURS: Final = 26
SYMBOLS: Final = 12
HOT_DAYS: Final = 7
_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_HISTORY_OPS: Final = {key.to_python_identifier() for key in (keys.INSTRUMENTS, keys.OHLC_1D)}
# A day is asked for once its daily bar is final for certain: 10 minutes of grace and as much again.
_DAY_SETTLES: Final = timedelta(minutes=20)


@dataclass(frozen=True)
class Window:
    """What the demo covers: days [first_day, end_day) of the market, hours [first_hour, end_hour) of the chain."""

    first_day: datetime
    end_day: datetime
    first_hour: datetime
    end_hour: datetime


@dataclass
class Report:
    """What the demo did and what there is now."""

    outcomes: list[tuple[str, Outcome]] = field(default_factory=list)
    imported: Imported | None = None
    assets: list[dict[str, Any]] = field(default_factory=list)
    score: dict[str, Any] | None = None

    @property
    def succeeded(self) -> bool:
        """Whether every run and every check ended well."""
        return all(outcome.succeeded for _, outcome in self.outcomes)


def run_demo(
    *, days: int, hours: int, symbols: int, bar_files: list[Path], progress: Callable[[str], Progress]
) -> Report:
    """Run the main job.

    Args:
        days: closed days of bars.
        hours: closed hours of balances.
        symbols: coins of the universe to track.
        bar_files: run the market side on these files in place of the exchange.
        progress: begins a stage of a given name and returns what is told each step of it.
    """
    report = Report()
    strategy_configs()  # a contradiction in them would end the run after minutes
    progress("database")("starting and migrating")
    ready_url()
    window = _window(days, hours)
    with shared_instance() as instance:
        stages = _stages(instance, window, symbols, bar_files, report, progress)
        for name, outcome in stages:
            report.outcomes.append((name, outcome))
            if outcome.failure:
                break
    shown = [*(asset.key for asset in TABLE_ASSETS), keys.ARCHIVED_OHLC_15M]
    described = [_describe(key, report.outcomes) for key in shown]
    # Minutes, say, come from files if at all.
    report.assets = [row for row in described if row["rows"] or row["checks_passed"] or row["checks_failed"]]
    report.score = _last_score()
    return report


def _stages(
    instance: dg.DagsterInstance,
    window: Window,
    symbols: int,
    bar_files: list[Path],
    report: Report,
    progress: Callable[[str], Progress],
) -> Iterator[tuple[str, Outcome]]:
    config = get_config()
    names = [config.market.symbol(symbol.base) for symbol in config.universe.spread(symbols)]
    fetched = [key.to_python_identifier() for key in (*BAR_ASSETS, keys.BAR_COVERAGE)]
    symbol_config = {
        "market__instruments": {"config": {"symbols": symbols}},
        **{op: {"config": {"symbols": names}} for op in fetched},
    }
    if bar_files:
        report.imported = import_files(bar_files, tell=progress("import of bars"))
        first, last = _imported_days(report.imported)
        market = [key for key in MARKET_ASSETS if key not in (keys.INSTRUMENTS, keys.OHLC_15M)]
        market_config = {}
    else:
        first, last = window.first_day, window.end_day - _DAY
        market, market_config = list(MARKET_ASSETS), symbol_config
        yield _stage(
            "daily history",
            instance,
            "market_day",
            progress,
            keys=[keys.INSTRUMENTS, keys.OHLC_1D],
            partitions=_days(first - regimes.DAILY_LOOKBACK, first - _DAY),
            op_config={op: value for op, value in symbol_config.items() if op in _HISTORY_OPS},
        )
    days = _days(first, last)
    cut = last + _DAY - timedelta(days=HOT_DAYS)
    hours = [f"{hour:%Y-%m-%d-%H:%M}" for hour in (window.first_hour, window.end_hour - _HOUR)]
    yield _stage(
        "market", instance, "market_day", progress, keys=market, partitions=days, op_config=market_config
    )
    yield _stage("gaps", instance, "gap_healing", progress)
    weeks = _whole_weeks(first, last)
    if weeks:
        yield _stage("training", instance, "training_week", progress, partitions=weeks)
    yield _stage(
        "archive",
        instance,
        "archiving",
        progress,
        keys=[keys.ARCHIVED_OHLC_15M],
        partitions=days,
        op_config={keys.ARCHIVED_OHLC_15M.to_python_identifier(): {"config": {"cut": cut.isoformat()}}},
    )
    yield _stage("on-chain", instance, "onchain_hour", progress, partitions=(hours[0], hours[1]))
    yield _stage("re-check", instance, "onchain_recheck", progress)


def _stage(
    name: str,
    instance: dg.DagsterInstance,
    job: str,
    progress: Callable[[str], Progress],
    **options: Any,
) -> tuple[str, Outcome]:
    return name, run_job(instance, job, progress=progress(name), **options)


def _days(first: datetime, last: datetime) -> tuple[str, str]:
    first = max(first, get_config().history_start_time)
    return f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}"


def _whole_weeks(first: datetime, last: datetime) -> tuple[str, str] | None:
    """The weeks, from Monday on, that lie wholly within the days and in the past; None where there is none."""
    monday = first + timedelta(days=-first.weekday() % 7)
    final = last + _DAY - timedelta(days=7)
    final -= timedelta(days=final.weekday())
    return (f"{monday:%Y-%m-%d}", f"{final:%Y-%m-%d}") if monday <= final else None


def _window(days: int, hours: int) -> Window:
    end_hour = _remembered_end()
    end_day = (end_hour - _DAY_SETTLES).replace(hour=0)
    end_day = end_day.replace(minute=0)
    return Window(end_day - days * _DAY, end_day, end_hour - hours * _HOUR, end_hour)


def _remembered_end() -> datetime:
    """The hour that the demo's window ends at: that of the last demo, if it was within a day."""
    now = datetime.now(UTC)
    path = get_settings().state_folder / "demo.json"
    with suppress(OSError, ValueError, KeyError):
        end = datetime.fromisoformat(json.loads(path.read_text())["end_hour"])
        if timedelta(0) <= now - end < _DAY:
            return end
    end = now.replace(minute=0, second=0, microsecond=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"end_hour": end.isoformat()}))
    return end


def _imported_days(imported: Imported) -> tuple[datetime, datetime]:
    days = imported.days.get("15m")
    if not days:
        raise PermanentError(
            "the demo needs 15m bars and the files have none that are proven: import them with tracker import-bars"
        )
    return min(days), max(days)


def _describe(key: dg.AssetKey, outcomes: list[tuple[str, Outcome]]) -> dict[str, Any]:
    """Rows of an asset, hot and cold, a hash of their content without provenance, and how its runs went."""
    is_archive = key.path[0] == "archive"
    table = TABLES[".".join(key.path[-2:])]
    rows = scan(table.name).collect()
    hot = _hot_count(table)
    op = key.to_python_identifier()
    checks = [words for _, outcome in outcomes for words in outcome.checks.get(op, [])]
    return {
        "asset": key.to_user_string(),
        "rows": rows.height - hot if is_archive else rows.height,
        "hot": 0 if is_archive else hot,
        "cold": rows.height - hot,
        "content": content_hash(rows, table, provenance=False)[:8],
        "checks_passed": sum(not words for words in checks),
        "checks_failed": sum(bool(words) for words in checks),
        "seconds": round(sum(outcome.seconds_by_asset.get(op, 0.0) for _, outcome in outcomes), 1),
    }


def _hot_count(table: Table) -> int:
    if table.store == "lake":
        return 0
    statement = sql.SQL("SELECT count(*) FROM {}").format(identifier(table))
    with connect() as connection:
        row = connection.execute(statement).fetchone()
    return row[0] if row else 0


def _last_score() -> dict[str, Any] | None:
    scores = scan("onchain.accumulation_scores").sort("snapshot_timestamp", "lookback_hours").collect()
    last = scores.filter(pl.col("snapshot_timestamp") == pl.col("snapshot_timestamp").max())
    return last.row(0, named=True) if last.height else None
