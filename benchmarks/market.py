"""The market that the benchmarks run on, and how they measure."""

import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

SYMBOLS = 90
DAYS = 180
BARS = 96 * DAYS
START = datetime(2024, 1, 1, tzinfo=UTC)


def bars(symbols: int = SYMBOLS, days: int = DAYS, *, seed: int = 7) -> pl.DataFrame:
    """Seeded 15m bars without a hole: 90 symbols of 180 days are 1,555,200 rows."""
    rng = np.random.default_rng(seed)
    count = 96 * days
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.004, (symbols, count)), axis=1))
    opened = np.hstack([np.full((symbols, 1), 100.0), close[:, :-1]])
    high = np.maximum(opened, close) * (1 + np.abs(rng.normal(0, 0.002, close.shape)))
    low = np.minimum(opened, close) * (1 - np.abs(rng.normal(0, 0.002, close.shape)))
    times = pl.datetime_range(
        START, interval="15m", eager=True, end=START + timedelta(minutes=15) * (count - 1)
    )
    moments = pl.concat([times.cast(pl.Datetime("us", "UTC"))] * symbols, rechunk=True)
    return pl.DataFrame(
        {
            "venue": pl.repeat("bybit", symbols * count, eager=True),
            "symbol": pl.Series([f"C{number:02d}/USDT" for number in range(symbols)]).gather(
                np.repeat(np.arange(symbols), count)
            ),
            "ts": moments,
            "open": opened.ravel(),
            "high": high.ravel(),
            "low": low.ravel(),
            "close": close.ravel(),
            "volume": rng.lognormal(3, 1, close.size),
            "available_at": moments + timedelta(minutes=17),
            "revision": pl.repeat(1, symbols * count, dtype=pl.Int64, eager=True),
        }
    )


def medians(
    cases: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Median seconds of each case, which take turns, so that a busy machine slows all of them alike.

    The usual clock is the processor time of all threads of this process: unlike the clock on the wall, it does not
    count what else the machine does, and it does not flatter who runs on two threads. Work of other processes, as
    a database, needs `time.perf_counter`.
    """
    return medians_by(cases, rounds, clock)[0]


def medians_by(
    cases: Mapping[str, Callable[[], object]], rounds: int, *clocks: Callable[[], float]
) -> list[dict[str, float]]:
    """What `medians` returns, by each of several clocks that look at the same runs."""
    taken: dict[str, list[list[float]]] = {name: [] for name in cases}
    for run in cases.values():
        run()  # compiles, and touches the memory that later runs get again
    for _ in range(rounds):
        for name, run in cases.items():
            starts = [clock() for clock in clocks]
            run()
            taken[name].append([clock() - start for clock, start in zip(clocks, starts, strict=True)])
    return [
        {name: statistics.median(run[place] for run in runs) for name, runs in taken.items()}
        for place in range(len(clocks))
    ]


def verdict(what: str, value: float, limit: float, *, at_least: bool = False, unit: str = "x") -> bool:
    """Print one line of the result; whether the target is met."""
    met = value >= limit if at_least else value <= limit
    bound = "at least" if at_least else "at most"
    print(f"{'met   ' if met else 'MISSED'} {what}: {value:.3g} {unit} (target: {bound} {limit:g} {unit})")
    return met
