"""What is wrong now, grouped by cause: a dead exchange is one cause, however many symbols and tables show it.

What belongs here: from what is known to causes. What does not: when something is said about them
(`domain.alerting`), and to whom (`alerts`).
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from tracker_pipeline.domain.alerting import Cause
from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.operations import instance_state
from tracker_pipeline.operations.freshness import Checked
from tracker_pipeline.settings import get_config, get_settings
from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.lake_store import free_disk_bytes

_BAR_TABLES: Final = {table.name for table in BARS.values()}
# From half of its symbols on it is the venue that is silent, not the symbols.
_VENUE_SHARE: Final = 0.5
_NAMED: Final = 5
_HEARTBEAT_SECONDS: Final = 300
_QUEUE_SECONDS: Final = 3 * 3600
_CHECKS_WITHIN: Final = timedelta(days=7)
_OUTAGE_IS_NEWS: Final = timedelta(days=1)
_TRIED: Final = 3


def find(connection: Connection, now: datetime, checked: Sequence[Checked]) -> list[Cause]:
    """Every cause that is there at `now`."""
    causes = [*_of_freshness(checked), *_of_outages(connection, now), *_of_gaps(connection), *_of_disk()]
    if instance_state.is_there(connection):
        causes += _of_dagster(connection, now)
    return causes


def _of_freshness(checked: Sequence[Checked]) -> list[Cause]:
    by_source: dict[str, list[Checked]] = defaultdict(list)
    for one in checked:
        by_source[one.series.venue].append(one)
    causes = []
    for source, series in by_source.items():
        bars = [one for one in series if one.series.table in _BAR_TABLES]
        first_hand = bars or [one for one in series if one.series.table == "onchain.whale_balance_snapshots"]
        stale = [one for one in first_hand if one.judged.state == "stale"]
        silent = bool(first_hand) and _silent(first_hand)
        if silent:
            causes.append(_silent_source(source, stale, len(first_hand)))
        elif stale:
            causes.append(_stale_symbols(source, stale))
        if not silent:  # what is made of a silent source is stale because of it
            causes += [_stale_table(one) for one in series if one not in first_hand and _is_stale(one)]
    return causes


def _is_stale(one: Checked) -> bool:
    return one.judged.state == "stale"


def _silent(first_hand: list[Checked]) -> bool:
    """Whether at least half of the symbols of any table are stale."""
    tables: dict[str, list[bool]] = defaultdict(list)
    for one in first_hand:
        tables[one.series.table].append(_is_stale(one))
    return any(sum(flags) >= _VENUE_SHARE * len(flags) for flags in tables.values())


def _silent_source(source: str, stale: list[Checked], total: int) -> Cause:
    newest = max((one.series.newest_at for one in stale if one.series.newest_at), default=None)
    when = f"{newest:%Y-%m-%d %H:%M} UTC" if newest else "never"
    tables = ", ".join(sorted({one.series.table for one in stale}))
    return Cause(
        f"source/{source}",
        "critical",
        f"no news of {source}: {len(stale)} of {total} series are stale",
        f"Nothing new since {when} in {tables}. If this installation was off, the next hourly tick fetches what was"
        f" missed; if {source} does not answer, tracker doctor says so, and it is fetched once it does.",
    )


def _stale_symbols(source: str, stale: list[Checked]) -> Cause:
    symbols = sorted({one.series.symbol for one in stale})
    more = f" and {len(symbols) - _NAMED} more" if len(symbols) > _NAMED else ""
    return Cause(
        f"symbols/{source}",
        "warning",
        f"{_counted(len(symbols), 'symbol')} of {source} stale",
        f"Stale: {', '.join(symbols[:_NAMED])}{more}. Halted or delisted, or the exchange serves no bars of them.",
    )


def _stale_table(one: Checked) -> Cause:
    hours = "never" if one.age is None else f"{one.age.total_seconds() / 3600:.1f} h ago"
    return Cause(
        f"table/{one.series.table}",
        "critical",
        f"{one.series.table} is stale",
        f"Its newest row is of {hours}, though what it is made of is there. Look at its last runs in the UI.",
    )


def _of_outages(connection: Connection, now: datetime) -> list[Cause]:
    """One cause for each outage of a venue that ended within the last day; a backfill of old ones calls nobody."""
    rows = connection.execute(
        "SELECT venue, outage_start, outage_end, symbols_absent, symbols_expected FROM market.outages"
        " WHERE resolved_at IS NULL AND outage_end > %s ORDER BY venue, outage_start",
        [now - _OUTAGE_IS_NEWS],
    ).fetchall()
    return [
        Cause(
            f"outage/{venue}/{start:%Y-%m-%dT%H:%M}",
            "warning",
            f"{venue} had no bars from {start:%Y-%m-%d %H:%M} to {end:%H:%M} UTC",
            f"{absent} of {expected} symbols lack them at once. The exchange is asked again a few times; what then"
            " comes is stored. Nothing has to be done.",
        )
        for venue, start, end, absent, expected in rows
    ]


def _of_gaps(connection: Connection) -> list[Cause]:
    """Missing bars that were asked for in vain more than once, one cause for a venue."""
    rows = connection.execute(
        "SELECT venue, sum(bars)::bigint, count(DISTINCT symbol), max(last_error) FROM market.bar_gaps"
        " WHERE state = 'missing' AND resolved_at IS NULL AND next_attempt_at IS NOT NULL AND attempts >= %s"
        " GROUP BY venue ORDER BY venue",
        [_TRIED],
    ).fetchall()
    return [
        Cause(
            f"gaps/{venue}",
            "warning",
            f"{_counted(bars, 'bar')} of {_counted(symbols, 'symbol')} of {venue} missing",
            f"Asked for {_TRIED} times or more in vain: {error or 'no answer had them'}. Look at: tracker gaps",
        )
        for venue, bars, symbols, error in rows
    ]


def _of_disk() -> list[Cause]:
    least = get_config().operations.least_free_disk_gib
    free_gib = free_disk_bytes(get_settings().state_folder) / 2**30
    if free_gib >= least:
        return []
    return [
        Cause(
            "disk",
            "critical",
            f"{free_gib:.1f} GiB free on the disk of the state folder",
            f"Less than the {least} GiB of operations.least_free_disk_gib. Runs fail before anything is lost; free"
            " space, or move TRACKER_HOME.",
        )
    ]


def _of_dagster(connection: Connection, now: datetime) -> list[Cause]:
    causes = [
        Cause(
            f"run/{run.job}",
            "critical",
            f"{run.job} failed",
            f"{run.reason}. Run {run.run_id[:8]} of {run.ended_at:%Y-%m-%d %H:%M} UTC; the next tick asks"
            " for the same partitions again.",
        )
        for run in instance_state.failed_runs(connection, now)
    ]
    by_asset: dict[str, list[instance_state.FailedCheck]] = defaultdict(list)
    for check in instance_state.failed_checks(connection, now - _CHECKS_WITHIN):
        by_asset[check.asset].append(check)
    causes += [
        Cause(
            f"check/{asset}",
            "critical",
            f"{_counted(len(checks), 'check')} of {asset} failed",
            "; ".join(f"{check.check}: {check.description}" for check in checks),
        )
        for asset, checks in by_asset.items()
    ]
    return [*causes, *_of_daemon(connection, now), *_of_size(connection)]


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _of_daemon(connection: Connection, now: datetime) -> list[Cause]:
    ages = instance_state.heartbeat_ages_seconds(connection, now)
    silent = min(ages.values(), default=0)
    causes = []
    if silent > _HEARTBEAT_SECONDS:
        causes.append(
            Cause(
                "daemon",
                "critical",
                f"Dagster's daemon has been silent for {silent // 60} minutes",
                "No schedule runs. Start it again: tracker up. The first tick makes all that was missed.",
            )
        )
    waiting = instance_state.queue_age_seconds(connection, now)
    if waiting > _QUEUE_SECONDS:
        causes.append(
            Cause(
                "queue",
                "warning",
                f"A run has waited for {waiting // 3600} hours",
                "A pool is held or the daemon launches nothing. See Deployment, Concurrency in the UI.",
            )
        )
    return causes


def _of_size(connection: Connection) -> list[Cause]:
    gib = sum(instance_state.database_bytes(connection).values()) / 2**30
    most = get_config().operations.most_instance_gib
    if gib <= most:
        return []
    return [
        Cause(
            "instance",
            "warning",
            f"Dagster's own records take {gib:.1f} GiB",
            f"More than the {most} GiB of operations.most_instance_gib. Materialize operations/instance_retention, or"
            " keep fewer days.",
        )
    ]
