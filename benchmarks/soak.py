"""Seven days of ticks in accelerated time over the sandbox, with faults and a stop, and what must hold at the end.

    python -m benchmarks.soak [--hours 168 | --short] [--coins 4] [--whales 60]

The servers of the sandbox run on real sockets by a clock that this program moves on; schedules and sensors are
evaluated at the moments at which the daemon would, runs are keyed as the daemon keys them and executed on a real
instance in Postgres. Faults are switched on and off while all goes on: throttling, torn answers, an exchange that is
down for a day, a chain that is down for five hours, half a day in which nothing runs.
"""

import argparse
import os
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import polars as pl
import time_machine
import yaml
from aiohttp import web

HOUR = timedelta(hours=1)
SCHEDULES = {
    "market_hourly": "h:05", "onchain_hourly": "h:05", "market_daily_close": "0:15", "labels_daily": "0:30",
    "archive_hourly": "h:45", "retention_daily": "3:20", "report_morning": "15:00", "report_evening": "3:00",
}  # fmt: skip
# In this order each tick, as the daemon comes by them once a minute; here they get two looks an hour.
SENSORS = ("stale_after_bars", "gaps_due", "labels_due", "watch")


@dataclass(frozen=True)
class Plan:
    """What happens when: hours are counted from the start."""

    hours: int
    stops: tuple[tuple[int, int], ...]
    exchange_faults: tuple[tuple[int, int, str], ...]
    chain_down: tuple[tuple[int, int], ...]
    begins_at: int | None = None  # hour of the UTC day; None for the hour that lets the plan end now


FULL = Plan(
    hours=168,
    stops=((100, 112),),
    exchange_faults=(
        (10, 13, "throttle:every=3,retry_after=0.05"),
        (20, 23, "truncated:every=4"),
        (36, 60, "server_error:path=all"),
        (70, 73, "duplicate_rows"),
        (80, 83, "reverse"),
        (120, 124, "correction:minutes=240"),
        (130, 133, "html:every=5"),
    ),
    chain_down=((64, 69),),
)
SHORT = Plan(
    hours=28,
    stops=((4, 25),),
    exchange_faults=((2, 26, "server_error:path=all"),),
    chain_down=((3, 4),),
    begins_at=21,  # so that a day ends while the exchange is away, and the next one after it is back
)


@dataclass
class Outcome:
    """What came of it."""

    seconds: float = 0.0
    runs: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)
    events_by_day: list[int] = field(default_factory=list)
    instance_mib: float = 0.0
    problems: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


class Servers:
    """The sandbox's exchange and chain and a webhook, in threads of this process, by the time of this process."""

    def __init__(self, start: datetime, coins: list[str], whales: int) -> None:
        from tracker_pipeline.sandbox.chain import make_chain_app
        from tracker_pipeline.sandbox.exchange import make_exchange_app
        from tracker_pipeline_tests.serving import served

        self._stack = ExitStack()
        self.chain_is_down = False
        self.received: list[dict[str, Any]] = []
        clock = lambda: datetime.now(UTC)  # noqa: E731  # moved on by time_machine
        exchange = make_exchange_app(symbols=coins, seed=22, replay=None, clock=clock)
        chain = make_chain_app(
            start=start - 27 * HOUR, seed=22, whales=whales, clock=clock, state_override=True
        )
        chain.middlewares.append(self._away)
        hook = web.Application()
        hook.router.add_post("/hook", self._receive)
        self.exchange, self.chain, hooked = (
            self._stack.enter_context(served(app)) for app in (exchange, chain, hook)
        )
        self.hook = hooked.replace("http://", "json://") + "/hook"

    @web.middleware
    async def _away(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.chain_is_down and request.path == "/":
            return web.Response(status=503)
        return await handler(request)

    async def _receive(self, request: web.Request) -> web.Response:
        self.received.append(await request.json())
        return web.Response()

    def set_faults(self, faults: list[str]) -> None:
        httpx.put(f"{self.exchange}/sandbox/faults", content="\n".join(faults)).raise_for_status()

    def close(self) -> None:
        self._stack.close()


def configuration(servers: Servers, coins: list[str]) -> dict[str, Any]:
    return {
        "chain": {"lookback_hours": [24]},
        "operations": {"keep_run_days": 1},
        "universe": {
            "version": 1,
            "groups": {"tier1_core": len(coins)},
            "symbols": [{"base": coin, "group": "tier1_core", "tier": "large_cap"} for coin in coins],
        },
        "endpoints": {
            "sandbox": {
                "exchange_url": servers.exchange,
                "rpc_urls": [f"{servers.chain}/"],
                "address_lists": [f"{servers.chain}/whales.csv"],
            }
        },
    }


class Daemon:
    """Evaluates ticks and runs what they ask for, each run key once."""

    def __init__(self, instance: dg.DagsterInstance, defs: dg.Definitions, outcome: Outcome) -> None:
        self._instance, self._defs, self._outcome = instance, defs, outcome
        self._repository = defs.get_repository_def()
        self._keys: set[tuple[str, str]] = set()
        self._cursors: dict[str, str | None] = {}

    def schedule(self, name: str, tick: datetime) -> None:
        definition = self._defs.resolve_schedule_def(name)
        context = dg.build_schedule_context(
            instance=self._instance, scheduled_execution_time=tick, repository_def=self._repository
        )
        try:
            requests = definition.evaluate_tick(context).run_requests or []
        except dg.DagsterError as error:  # the daemon records such a tick and goes on
            self._outcome.problems.append(f"tick of {name} at {tick}: {error.__cause__ or error}")
            return
        self._run(name, "dagster/schedule_name", definition.job_name, list(requests))

    def sensor(self, name: str) -> None:
        definition = self._defs.resolve_sensor_def(name)
        context = dg.build_sensor_context(
            instance=self._instance, cursor=self._cursors.get(name), repository_def=self._repository
        )
        data = definition.evaluate_tick(context)
        self._cursors[name] = data.cursor or self._cursors.get(name)
        for request in data.run_requests or []:
            job = request.job_name or definition.job_name
            self._run(name, "dagster/sensor_name", job, [request])

    def _run(self, name: str, tag: str, job_name: str, requests: list[dg.RunRequest]) -> None:
        for request in requests:
            if request.run_key and (name, request.run_key) in self._keys:
                continue
            self._keys.add((name, request.run_key or str(uuid.uuid4())))
            result = self._defs.resolve_job_def(job_name).execute_in_process(
                instance=self._instance,
                partition_key=request.partition_key,
                asset_selection=list(request.asset_selection) if request.asset_selection else None,
                tags={**{k: v for k, v in request.tags.items() if k != "dagster/run_key"}, tag: name},
                run_config={
                    **(request.run_config or {}),
                    "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                },
                raise_on_error=False,
            )
            self._outcome.runs[job_name] += 1
            if not result.success:
                self._outcome.failures[job_name] += 1


def _is_due(when: str, hour: datetime, minute: int) -> bool:
    at, _, due = when.partition(":")
    return int(due) == minute and (at == "h" or int(at) == hour.hour)


def run(
    plan: Plan, *, start: datetime, servers: Servers, say: Callable[[str], None] = lambda text: None
) -> Outcome:
    """Go through the plan from `start` on; settings, database and time machine are the caller's."""
    from tracker_pipeline.commands.project import shared_instance
    from tracker_pipeline.definitions import build_definitions
    from tracker_pipeline.storage.database import connect, ready_url

    outcome, began = Outcome(), time.monotonic()
    ready_url()
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "100")
    with shared_instance() as instance:
        daemon = Daemon(instance, build_definitions(), outcome)
        for number in range(plan.hours):
            hour = start + number * HOUR
            servers.chain_is_down = any(first <= number < last for first, last in plan.chain_down)
            servers.set_faults([text for first, last, text in plan.exchange_faults if first <= number < last])
            if any(first <= number < last for first, last in plan.stops):
                continue
            for minute in (0, 5, 15, 20, 25, 30, 45, 55):
                with time_machine.travel(hour + timedelta(minutes=minute), tick=True):
                    for name, when in SCHEDULES.items():
                        if _is_due(when, hour, minute):
                            daemon.schedule(name, hour + timedelta(minutes=minute))
                    if minute in (25, 55):
                        for name in SENSORS:
                            daemon.sensor(name)
            if hour.hour == 4:
                with connect() as connection:
                    row = connection.execute("SELECT count(*) FROM dagster.event_logs").fetchone()
                outcome.events_by_day.append(row[0] if row else 0)
            say(f"{hour:%d %H:00} {time.monotonic() - began:6.0f} s, runs {outcome.runs.total()},"
                f" failed {outcome.failures.total()}, messages {len(servers.received)}")  # fmt: skip
    outcome.messages = [message["title"] for message in servers.received]
    judge(outcome, start, start + plan.hours * HOUR)
    outcome.seconds = time.monotonic() - began
    return outcome


def judge(outcome: Outcome, start: datetime, end: datetime) -> None:
    """What must hold at the end; what does not is a problem."""
    from tracker_pipeline.domain.schemas import TABLES
    from tracker_pipeline.storage import scan
    from tracker_pipeline.storage.database import connect

    def expect(holds: bool, text: str) -> None:
        if not holds:
            outcome.problems.append(text)

    coverage = scan("market.bar_coverage").filter(pl.col("day") >= start).collect()
    lacking = coverage.filter((pl.col("missing") > 0) | (pl.col("outage") > 0) | (pl.col("empty") > 0))
    expect(coverage.height > 0, "no coverage was judged")
    expect(lacking.is_empty(), f"bars are missing: {lacking.head(3).to_dicts()}")
    midnights = [start.replace(hour=0) + i * 24 * HOUR for i in range(1, (end - start).days + 2)]
    # The last day takes an hour to close.
    whole_days = [midnight for midnight in midnights if midnight + 25 * HOUR <= end]
    full = coverage.filter(pl.col("timeframe") == "15m", pl.col("present") == 96).get_column("day").unique()
    expect(set(whole_days) <= set(full), f"days are not whole: {set(whole_days) - set(full)}")
    bars = scan("market.ohlc_15m").select("ts", "symbol").collect()
    features = scan("features.ml_features_15m").select("ts", "symbol").collect()
    expect(bars.join(features, on=["ts", "symbol"], how="anti").is_empty(), "bars without features")

    scores = scan("onchain.accumulation_scores").collect()
    hours = {start + i * HOUR for i in range(int((end - start) / HOUR))}
    scored = scores.get_column("snapshot_timestamp")
    expect(hours <= set(scored), f"hours without a score: {sorted(hours - set(scored))[:5]}")
    late = scores.filter(pl.col("snapshot_timestamp") >= start + 25 * HOUR, pl.col("status") != "ok")
    expect(late.is_empty(), f"scores without a baseline: {late.height}")

    for name, table in TABLES.items():
        rows = scan(name).select(table.key).collect()
        expect(not rows.is_duplicated().any(), f"{name} holds rows twice")
    counts = Counter(outcome.messages)
    expect(max(counts.values(), default=0) <= 8, f"a message came {max(counts.values(), default=0)} times")
    most = 6 + 8 * ((end - start).days + 1)
    expect(len(outcome.messages) <= most, f"{len(outcome.messages)} messages are a storm")
    with connect() as connection:
        size = connection.execute(
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'dagster' AND c.relkind = 'r'"
        ).fetchone()
    outcome.instance_mib = float(size[0]) / 2**20 if size else 0.0
    if len(outcome.events_by_day) > 3:
        early, last = max(outcome.events_by_day[1:3]), outcome.events_by_day[-1]
        expect(last < 2 * early, f"events grow from {early:,} to {last:,}")
    outcome.figures = {"coverage rows": coverage.height, "scores": scores.height, "15m bars": bars.height}


@contextmanager
def accelerated(
    plan: Plan, *, coins: list[str], whales: int, home: Path
) -> Iterator[tuple[datetime, Servers]]:
    """Servers, and settings that lead to them, from a start so long ago that the plan has ended by now."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - plan.hours * HOUR
    if plan.begins_at is not None:
        start -= (start.hour - plan.begins_at) % 24 * HOUR
    with time_machine.travel(start, tick=True):
        servers = Servers(start, coins, whales)
    path = home / "soak.yaml"
    path.write_text(yaml.safe_dump(configuration(servers, coins)))
    os.environ["TRACKER_CONFIG"] = str(path)
    os.environ["TRACKER_ALERT_URLS"] = servers.hook
    try:
        yield start, servers
    finally:
        servers.close()


def report(outcome: Outcome) -> str:
    lines = [
        f"{outcome.seconds:,.0f} s; runs {dict(outcome.runs)}, of them failed {dict(outcome.failures)}",
        f"stored: {outcome.figures}",
        f"events after each day: {outcome.events_by_day}; Dagster's records {outcome.instance_mib:.1f} MiB",
        f"{len(outcome.messages)} messages:",
        *(f"  {title}" for title in outcome.messages),
        *(f"PROBLEM: {text}" for text in outcome.problems),
    ]
    return "\n".join(
        [*lines, "all that must hold holds" if not outcome.problems else "not all that must hold holds"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=FULL.hours)
    parser.add_argument(
        "--short", action="store_true", help="28 hours with an exchange away for 24, as in CI"
    )
    parser.add_argument("--coins", type=int, default=4)
    parser.add_argument("--whales", type=int, default=60)
    given = parser.parse_args()
    plan = SHORT if given.short else Plan(given.hours, FULL.stops, FULL.exchange_faults, FULL.chain_down)
    coins = ["BTC", "ETH", "SOL", "BNB", "XRP", "ADA"][: given.coins]
    with tempfile.TemporaryDirectory(prefix="tracker-soak-") as home:
        os.environ["TRACKER_HOME"] = home
        Path(home).chmod(0o755)
        with accelerated(plan, coins=coins, whales=given.whales, home=Path(home)) as (start, servers):
            outcome = run(plan, start=start, servers=servers, say=lambda text: print(text, flush=True))
        print(report(outcome))
        from tracker_pipeline.resources.postgres import embedded_postgres

        embedded_postgres(Path(home)).stop_if_unused()
    raise SystemExit(1 if outcome.problems else 0)


if __name__ == "__main__":
    main()
