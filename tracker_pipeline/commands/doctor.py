"""`tracker doctor`: what is wrong with this installation, one sentence for each subject.

What belongs here: asking every part whether it works. What does not: repairing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tracker_pipeline.resources.errors import PipelineError
from tracker_pipeline.settings import ConfigurationError, get_config, get_settings

if TYPE_CHECKING:
    from tracker_pipeline.resources.bar_source import BarSource

# Half the grace of a minute's bar: with clocks further apart one of them would decide too early.
_MOST_SKEW = timedelta(seconds=30)
_IN_DATABASE = frozenset({"lake", "bars", "alerts", "schedules"})
_MOST_ALERTS = 5


@dataclass(frozen=True)
class Finding:
    """What was found about one subject."""

    subject: str
    ok: bool
    text: str


def examine() -> list[Finding]:
    """Look at settings, database, lake, exchange, chain, bars, alerts, schedules and definitions, in this order.

    Where the settings are wrong the rest cannot be judged, so the list ends there; without a database what is in it
    is left out.
    """
    findings = [_look("settings", _settings), _look("configuration", _configuration)]
    if not all(finding.ok for finding in findings):
        return findings
    rest = {
        "lake": _lake,
        "exchange": _exchange,
        "universe": _universe,
        "chain": _chain,
        "address lists": _address_lists,
        "bars": _bars,
        "alerts": _alerts,
        "schedules": _schedules,
        "definitions": _definitions,
    }
    database = _look("database", _database)
    findings.append(database)
    return findings + [
        _look(subject, look) for subject, look in rest.items() if database.ok or subject not in _IN_DATABASE
    ]


def _look(subject: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, ok=True, text=look())
    except (PipelineError, ConfigurationError) as error:
        return Finding(subject, ok=False, text=str(error))
    except Exception as error:  # a doctor that falls over says nothing about the rest
        return Finding(
            subject, ok=False, text=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        )


def _settings() -> str:
    from tracker_pipeline.commands.terminal import make_state_folder

    return f"setting {get_settings().setting}, state in {make_state_folder()}"


def _configuration() -> str:
    config = get_config()
    from tracker_pipeline.assets.strategies import strategy_configs

    strategies = ", ".join(strategy_configs())
    return f"{len(config.universe.symbols)} symbols, strategies {strategies}, history from {config.history_start}"


def _database() -> str:
    from tracker_pipeline.storage.database import ready_url, without_secrets

    return f"{without_secrets(ready_url())} answers and is migrated"


def _lake() -> str:
    from tracker_pipeline.commands.archive import audit
    from tracker_pipeline.resources.errors import PermanentError
    from tracker_pipeline.storage.lake_store import lake_store

    store = lake_store()
    with store.stage(".doctor") as probe:
        probe.file.write_bytes(b"probe")
        probe.publish()
    store.delete(".doctor")
    found = audit(None, quick=True)
    if found.losses:
        first = found.losses[0]
        raise PermanentError(
            f"{len(found.losses)} files differ from the manifest, the first is {first.file} ({first.problem}):"
            " see tracker archive audit"
        )
    orphans = len(found.orphans) + found.unfinished
    leftovers = f", {orphans} leftovers will be swept" if orphans else ""
    return f"{store.name} can be written to and equals its manifest{leftovers}"


def _exchange() -> str:
    from tracker_pipeline.resources.clients import ExchangeResource
    from tracker_pipeline.resources.errors import PermanentError

    resource, kind = ExchangeResource.configured(), get_config().market.source.kind
    source = resource.client()
    before = datetime.now(UTC)
    told = source.server_time()
    ahead = told - (before + (datetime.now(UTC) - before) / 2)
    said = f"{resource.venue} ({kind}) answers, its clock is {abs(ahead.total_seconds()):.1f} s"
    said += " ahead of ours" if ahead > timedelta(0) else " behind ours"
    if abs(ahead) > _MOST_SKEW:
        raise PermanentError(f"{said}: bars may be taken before they are closed; set this machine's clock")
    return f"{said}; {_capability(source)}"


def _capability(source: "BarSource") -> str:
    """What the source can be asked for, in words."""
    can = source.capability("15m")
    parts = [
        f"{can.page_bars} bars of 15m a page" if can.page_bars else "whole files",
        f"{can.requests_per_second:.3g} requests a second" if can.requests_per_second else "no pace",
        f"15m bars from {can.oldest:%Y-%m-%d} on" if can.oldest else "",
    ]
    return ", ".join(part for part in parts if part)


def _universe() -> str:
    from tracker_pipeline.assets.instruments import unlisted_coins
    from tracker_pipeline.resources.clients import ExchangeResource

    universe = get_config().universe
    absent = unlisted_coins(ExchangeResource.configured())
    wanted = len(universe.symbols)
    said = f"version {universe.version}, {wanted - len(absent)} of {wanted} coins are listed"
    return said + (f"; not listed: {', '.join(absent)}" if absent else "")


def _chain() -> str:
    from tracker_pipeline.resources.clients import ChainResource

    resource = ChainResource.configured()
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    block = resource.client().block_at(hour)
    return (
        f"{resource.network} answers, {hour:%H:%M} UTC is block {block.number} of {block.timestamp:%H:%M:%S}"
    )


def _address_lists() -> str:
    from tracker_pipeline.resources.clients import ChainResource

    listed = ChainResource.configured().universe()
    return f"{listed.height} addresses listed"


def _bars() -> str:
    from tracker_pipeline.commands.gaps import absences
    from tracker_pipeline.resources.errors import PermanentError

    totals = absences(limit=1).totals
    missing = sum(row["bars"] for row in totals if row["state"] == "missing")
    if missing:
        raise PermanentError(
            f"{missing:,} bars are missing: see tracker gaps, ask for them with tracker gaps --heal"
        )
    others = sum(row["bars"] for row in totals)
    explained = f"; {others:,} others do not exist, see tracker gaps" if others else ""
    return f"no bar is missing{explained}"


def _alerts() -> str:
    from tracker_pipeline.operations.alerts import open_alerts
    from tracker_pipeline.resources.errors import PermanentError
    from tracker_pipeline.storage.database import connect

    with connect() as connection:
        opened = open_alerts(connection)
    if opened:
        said = "; ".join(
            f"{one.cause.title}, since {one.opened_at:%Y-%m-%d %H:%M} UTC" for one in opened[:_MOST_ALERTS]
        )
        raise PermanentError(f"{len(opened)} open: {said}; docs/running_live.md says what to do")
    return "none is open"


def _schedules() -> str:
    from tracker_pipeline.commands.health import SILENT_SECONDS
    from tracker_pipeline.operations import instance_state
    from tracker_pipeline.storage.database import connect

    with connect() as connection:
        ages = (
            instance_state.heartbeat_ages_seconds(connection, datetime.now(UTC))
            if instance_state.is_there(connection)
            else {}
        )
    if ages and min(ages.values()) < SILENT_SECONDS:
        return "the daemon runs them"
    return "the daemon is not running, so nothing happens by itself; tracker up starts it"


def _definitions() -> str:
    import dagster as dg

    from tracker_pipeline.definitions import defs
    from tracker_pipeline.resources.errors import PermanentError

    try:
        dg.Definitions.validate_loadable(defs)
    except dg.DagsterError as error:
        raise PermanentError(f"the definitions do not load: {' '.join(str(error).split())}") from error
    return f"{len(list(defs.resolve_all_asset_specs()))} assets load"
