"""`tracker import-bars`: bar files through the same checks as fetched bars, in bounded memory.

What belongs here: files to tables, and the instruments that they bring. What does not: formats (`resources`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl

from tracker_pipeline.commands.project import shared_instance
from tracker_pipeline.domain import schemas
from tracker_pipeline.keys import key_of
from tracker_pipeline.resources.bar_files import BarFileOptions, FileBars, read_bar_file
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import Connection, connect
from tracker_pipeline.storage.quarantine import quarantine
from tracker_pipeline.storage.writing import Written, write_window

_RUN_ID = "tracker import-bars"


@dataclass
class Imported:
    """What an import did.

    Attributes:
        written: by timeframe, what changed in the bar table.
        rejected: by timeframe, bars that are not sane or contradict each other; they are in quarantine.
        left_out: by reason, rows that were not loaded, the rejected ones among them.
        days: by timeframe, the UTC days that files had bars of.
        changed_days: those of them on which a bar was added or revised.
    """

    written: dict[str, Written] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    days: dict[str, set[datetime]] = field(default_factory=dict)
    changed_days: dict[str, set[datetime]] = field(default_factory=dict)


def file_options(
    *,
    venue: str | None,
    market_type: str | None,
    symbol: str | None,
    timeframe: str | None,
    fetched_at: datetime | None,
) -> BarFileOptions:
    """What the user says about files; a time without zone is UTC, as the option's help says."""
    if fetched_at is not None and fetched_at.tzinfo is None:
        fetched_at = fetched_at.replace(tzinfo=UTC)
    return BarFileOptions(venue, market_type, symbol, timeframe, fetched_at)  # type: ignore[arg-type]


def import_files(
    paths: Sequence[Path],
    *,
    options: BarFileOptions | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Imported:
    """Load bar files into the bar tables and record their instruments.

    All files are read through before the first bar is written, so that one that is damaged half way leaves nothing
    behind. Each part of a file is one transaction; loading the same file again changes nothing, so an import that was
    stopped is simply run again.

    Raises:
        PermanentError: a file cannot be read; nothing is loaded.
    """
    rows = [
        sum(part.frame.height for part in _parts(path, options, f"checking {number} of {len(paths)}", tell))
        for number, path in enumerate(paths, start=1)
    ]
    imported = Imported()
    for number, (path, total) in enumerate(zip(paths, rows, strict=True), start=1):
        for part in _parts(path, options, f"loading {number} of {len(paths)}", tell, total):
            _load(part, imported)
    _record_days(imported, tell)
    return imported


def _parts(
    path: Path,
    options: BarFileOptions | None,
    doing: str,
    tell: Callable[[str], None],
    total: int | None = None,
) -> Iterator[FileBars]:
    """The parts of a file, telling how far it is."""
    done = 0
    tell(f"{doing}: {path.name}")
    for part in read_bar_file(path, options):
        yield part
        done += part.frame.height
        tell(f"{doing}: {path.name}, {done:,}{f' of {total:,}' if total else ''} bars")


def _load(part: FileBars, imported: Imported) -> None:
    rejected = part.left_out.filter("rejected")
    imported.left_out.update(dict(part.left_out.group_by("reason").len().iter_rows()))
    imported.rejected[part.timeframe] += rejected.height
    with connect() as connection:
        quarantine(
            connection, rejected, timeframe=part.timeframe, source=f"file:{part.path.name}", run_id=_RUN_ID
        )
        if not part.frame.is_empty():
            _load_bars(connection, part, imported)


def _load_bars(connection: Connection, part: FileBars, imported: Imported) -> None:
    table = schemas.BARS[part.timeframe]
    bars = part.frame.with_columns(revision=pl.lit(1, pl.Int64), run_id=pl.lit(_RUN_ID))
    days = bars.get_column("ts").dt.truncate("1d").unique().to_list()
    window = (min(days), max(days) + timedelta(days=1))
    written = write_window(connection, table, bars, window, run_id=_RUN_ID)
    instruments = imported_instruments(bars)
    write_window(connection, schemas.INSTRUMENTS, instruments, None, run_id=_RUN_ID)
    imported.written[part.timeframe] = imported.written.get(part.timeframe, Written()) + written
    imported.days.setdefault(part.timeframe, set()).update(days)
    if written.inserted or written.updated:
        imported.changed_days.setdefault(part.timeframe, set()).update(days)


def imported_instruments(bars: pl.DataFrame) -> pl.DataFrame:
    """The instruments of imported bars that are not recorded yet.

    When they were listed is not known from a file, so one that a venue was asked about keeps what the venue told.
    """
    tiers = get_config().universe.tiers()
    recorded = scan(schemas.INSTRUMENTS.name, columns=["venue", "symbol"]).collect()
    new = bars.select("venue", "symbol").unique().join(recorded, on=["venue", "symbol"], how="anti")
    rows = []
    for venue, symbol in new.iter_rows():
        pair, _, settled = symbol.partition(":")
        base, _, quote = pair.partition("/")
        rows.append(
            {
                "venue": venue,
                "symbol": symbol,
                "base": base,
                "quote": quote,
                "native_symbol": f"{base}{quote}",
                "market_type": "linear" if settled else "spot",
                "tier": tiers.get(base, "small_cap"),
            }
        )
    columns = schemas.INSTRUMENTS.polars_schema
    names = ("venue", "symbol", "base", "quote", "native_symbol", "market_type", "tier")
    return pl.DataFrame(rows, schema={name: columns[name] for name in names})


def _record_days(imported: Imported, tell: Callable[[str], None]) -> None:
    """Tell Dagster which partitions the files filled, so that the UI's coverage is true."""
    from tracker_pipeline.definitions import TABLE_ASSETS
    from tracker_pipeline.partitions import DAILY

    materializable = {asset.key for asset in TABLE_ASSETS}
    with shared_instance() as instance:
        wanted = [
            (
                key_of(schemas.BARS[timeframe]),
                f"{day:%Y-%m-%d}",
                day in imported.changed_days.get(timeframe, ()),
            )
            for timeframe, days in imported.days.items()
            for day in sorted(days)
        ]
        known = {key: instance.get_materialized_partitions(key) for key in {key for key, *_ in wanted}}
        due = [
            (key, day)
            for key, day, changed in wanted
            if key in materializable and DAILY.has_partition_key(day) and (changed or day not in known[key])
        ]
        for number, (key, day) in enumerate(due, start=1):
            tell(f"recording day {number:,} of {len(due):,} in Dagster")
            instance.report_runless_asset_event(
                dg.AssetMaterialization(key, partition=day, description=_RUN_ID)
            )
