"""The sandbox as one process: the exchange and the chain on two ports, until it is told or nobody uses it.

What belongs here: ports, life and death. What does not: what is served (`exchange`, `chain`).
"""

import asyncio
import fcntl
import json
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web

from tracker_pipeline.sandbox.chain import make_chain_app
from tracker_pipeline.sandbox.exchange import make_exchange_app
from tracker_pipeline.sandbox.replay import ReplayBars

_HOST = "127.0.0.1"
_POLL_SECONDS = 1.0
# The chain begins far enough back for a day's look-back before the first hour asked for, and begins anew when
# catching up with the clock would take longer than a coffee.
_CHAIN_HISTORY = timedelta(hours=54)
_CHAIN_LONGEST = timedelta(days=10)


@dataclass(frozen=True)
class SandboxOptions:
    """How a sandbox is set up.

    Attributes:
        folder: where it keeps its start time and announces its addresses.
        symbols: coins that the exchange lists, quoted in USDT.
        seed: the same seed gives the same prices and balances, for ever. With the default the first coin trends up
            through most of 2026 and 2027, so that regimes let setups through.
        exchange_port: 0 takes any free port.
        chain_port: 0 takes any free port.
        whales: funded addresses on the chain.
        replay: bar files to serve instead of simulated prices.
        faults: what is wrong with the exchange to begin with, as `faults.py` writes them.
        stop_when_free: a lock file; the sandbox ends when no process holds it any more.
    """

    folder: Path
    symbols: Sequence[str]
    seed: int = 22
    exchange_port: int = 0
    chain_port: int = 0
    whales: int = 1_200
    replay: Sequence[Path] = ()
    faults: Sequence[str] = ()
    stop_when_free: Path | None = None


def run_sandbox(
    options: SandboxOptions, announce: Callable[[dict[str, str]], None] = lambda addresses: None
) -> None:
    """Serve until a signal arrives or nobody uses it.

    Args:
        options: how it is set up.
        announce: told the addresses once both servers listen.
    """
    asyncio.run(_serve(options, announce))


async def _serve(options: SandboxOptions, announce: Callable[[dict[str, str]], None]) -> None:
    options.folder.mkdir(parents=True, exist_ok=True)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    replay = ReplayBars.from_files(options.replay) if options.replay else None
    exchange = make_exchange_app(
        symbols=options.symbols, seed=options.seed, replay=replay, clock=_now, faults=options.faults
    )
    chain = make_chain_app(
        start=_chain_start(options.folder),
        seed=options.seed,
        whales=options.whales,
        clock=_now,
        state_override=True,  # as most hosted nodes; 1,000 balances in 0.1 s where Multicall3 takes 0.4 s
    )
    runners = [web.AppRunner(app, access_log=None, shutdown_timeout=1) for app in (exchange, chain)]
    announcement = options.folder / "addresses.json"
    try:
        ports = [
            await _listen(runner, port)
            for runner, port in zip(runners, (options.exchange_port, options.chain_port), strict=True)
        ]
        announce(_publish(announcement, *ports))
        await _until_stopped(stopped, options.stop_when_free, announcement)
    finally:
        announcement.unlink(missing_ok=True)
        for runner in runners:
            await runner.cleanup()


async def _listen(runner: web.AppRunner, port: int) -> int:
    await runner.setup()
    site = web.TCPSite(runner, _HOST, port)
    await site.start()
    port_taken: int = runner.addresses[0][1]
    return port_taken


def _publish(path: Path, exchange_port: int, chain_port: int) -> dict[str, str]:
    """Write the addresses to their file, whole: a reader never sees half of it."""
    addresses = {"exchange": f"http://{_HOST}:{exchange_port}", "chain": f"http://{_HOST}:{chain_port}"}
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({"pid": os.getpid(), "addresses": addresses}))
    draft.replace(path)
    return addresses


async def _until_stopped(stopped: asyncio.Event, users: Path | None, announcement: Path) -> None:
    while not stopped.is_set():
        if users is not None and _free(users, announcement):
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), _POLL_SECONDS)


def _free(users: Path, announcement: Path) -> bool:
    """Whether no process holds the lock; if so, withdraw the announcement while nobody can join."""
    with users.with_suffix(".lock").open("a") as deciding, users.open("a") as use:
        try:
            fcntl.flock(deciding, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        announcement.unlink(missing_ok=True)
        return True


def _chain_start(folder: Path) -> datetime:
    """When the chain begins: the same at each start, so that its blocks stay the same blocks."""
    path = folder / "chain.json"
    with suppress(OSError, ValueError, KeyError):
        start = datetime.fromisoformat(json.loads(path.read_text())["start"])
        if _now() - start < _CHAIN_LONGEST:
            return start
    start = _now().replace(minute=0, second=0, microsecond=0) - _CHAIN_HISTORY
    path.write_text(json.dumps({"start": start.isoformat()}))
    return start


def _now() -> datetime:
    return datetime.now(UTC)
