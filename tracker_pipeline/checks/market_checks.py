"""Bars prove that they can be true and that none is unfinished; coverage proves that they are complete.

What belongs here: checks of stored bars and of their coverage. What does not: columns and keys (`schema_checks`), the
rules (`domain.bars`, `domain.coverage`).
"""

from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl

from tracker_pipeline.assets.bar_series import finer_timeframes
from tracker_pipeline.checks.row_checks import RowChecks, Stored, Verdict, check_window
from tracker_pipeline.domain.bars import KEY, rejected, resample
from tracker_pipeline.domain.coverage import incomplete, liquidity_classes
from tracker_pipeline.domain.rollups import children
from tracker_pipeline.domain.schemas import BAR_COVERAGE, BARS
from tracker_pipeline.domain.timeframes import TIMEFRAMES
from tracker_pipeline.keys import key_of
from tracker_pipeline.operations.freshness import late_series
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect

_CLOCK_SKEW: Final = timedelta(minutes=2)
_PRICE_TOLERANCE: Final = 0.001
_VOLUME_TOLERANCE: Final = 0.02
_CLASS_DAYS: Final = timedelta(days=30)

_SOUND: Final = {
    "aligned": "Every bar opens on the grid of its timeframe.",
    "no_duplicates": "Each venue, symbol and open stands once over hot and cold rows.",
    "sane": "Prices are positive and known, high and low span open and close, no volume is negative.",
    "nothing_from_the_future": "No bar opens after now.",
    "nothing_unfinished": "Every bar was over, and its grace too, when the source was asked and when it is read.",
}


def sound_bars(timeframe: str) -> RowChecks:
    """The blocking checks of one bar table."""

    def judge(stored: Stored) -> dict[str, Verdict]:
        return {
            name: Verdict(
                wrong.is_empty(),
                {"bars": stored.rows.height, "wrong bars": wrong.height},
                _first(wrong) if wrong.height else None,
            )
            for name, wrong in unsound(stored.rows, timeframe, datetime.now(UTC)).items()
        }

    return RowChecks(_SOUND, judge)


def unsound(rows: pl.DataFrame, timeframe: str, now: datetime) -> dict[str, pl.DataFrame]:
    """The bars that fail each blocking check."""
    on_grid = pl.col("ts").dt.truncate(timeframe) == pl.col("ts")
    ahead = pl.col("ts") > now + _CLOCK_SKEW
    unfinished = (pl.col("available_at") > pl.col("fetched_at")) | (
        pl.col("available_at") > now + _CLOCK_SKEW
    )
    return {
        "aligned": rows.filter(~on_grid),
        "no_duplicates": rows.filter(pl.struct(KEY).is_duplicated()),
        "sane": rejected(rows.filter(on_grid), timeframe=timeframe),
        "nothing_from_the_future": rows.filter(ahead),
        "nothing_unfinished": rows.filter(unfinished & ~ahead),
    }


def _first(wrong: pl.DataFrame) -> str:
    one = wrong.row(0, named=True)
    reason = f": {one['reason']}" if "reason" in one else ""
    return f"{wrong.height} bars, the first is {one['symbol']} at {one['ts']:%Y-%m-%d %H:%M}{reason}"


def fresh_bars(timeframe: str) -> dg.AssetChecksDefinition:
    """Whether the newest bars are as new as they should be, by the time of the data."""
    table = BARS[timeframe]

    @dg.asset_check(
        asset=key_of(table),
        name="fresh",
        description=f"The newest {timeframe} bar of each listed symbol is not older than operations.freshness_minutes"
        " allow. Judged where the run includes today.",
    )
    def fresh(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        now = datetime.now(UTC)
        _, end = check_window(context, table)
        if end is not None and end <= now:
            return dg.AssetCheckResult(
                passed=True, description="not judged: the run is of days that are over"
            )
        with classified(), connect() as connection:
            names = [one.series.symbol for one in late_series(connection, table.name, now)]
        return dg.AssetCheckResult(
            passed=not names,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"late symbols": names},
            description=f"the newest bars of {len(names)} symbols are late: {', '.join(names[:5])}"
            if names
            else None,
        )

    return fresh


def native_against_rollup(timeframe: str) -> dg.AssetChecksDefinition:
    """Whether the exchange's own bars equal what its finer bars add up to."""
    table = BARS[timeframe]

    @dg.asset_check(
        asset=key_of(table),
        name="native_equals_rollup",
        description="Bars of the exchange equal the finer ones rolled up: prices within 0.1 %, volume within 2 %.",
    )
    def native_equals_rollup(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with classified():
            window = check_window(context, table)
            native = scan(table.name, *window, predicate=pl.col("source") != "rollup").collect()
            compared = 0
            differing = native.clear()
            if native.height:
                compared, differing = _compared(native, timeframe, window)
        return dg.AssetCheckResult(
            passed=differing.is_empty(),
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"bars compared": compared, "bars that differ": differing.height},
            description=_first(differing) if differing.height else None,
        )

    return native_equals_rollup


def _compared(
    native: pl.DataFrame, timeframe: str, window: tuple[datetime, datetime] | tuple[None, None]
) -> tuple[int, pl.DataFrame]:
    """How many native bars have finer ones under them, and those that differ from these."""
    for finer in finer_timeframes(timeframe):
        bars = scan(BARS[finer].name, *window).collect()
        if bars.is_empty():
            continue
        rolled = resample(bars, timeframe).filter(pl.col("n_src") == children(timeframe, finer))
        pairs = native.join(rolled, on=KEY, suffix="_rolled")
        return pairs.height, differing_bars(pairs)
    return 0, native.clear()


def differing_bars(pairs: pl.DataFrame) -> pl.DataFrame:
    """Pairs whose values differ by more than the tolerance; those rolled up end in `_rolled`."""
    limits = {
        **dict.fromkeys(("open", "high", "low", "close"), _PRICE_TOLERANCE),
        "volume": _VOLUME_TOLERANCE,
    }
    apart = [
        (pl.col(name) - pl.col(f"{name}_rolled")).abs() > limit * pl.col(name).abs() + 1e-12
        for name, limit in limits.items()
    ]
    return pairs.filter(pl.any_horizontal(apart))


@dg.asset_check(
    asset=key_of(BAR_COVERAGE),
    name="complete",
    description="Each symbol has as many of its bars as its class must: liquid 99 % or more, thin ones fewer, and"
    " none is missing.",
)
def complete(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Whether enough bars are there, and whether any that exist are not."""
    with classified():
        start, end = check_window(context, BAR_COVERAGE)
        before = start - _CLASS_DAYS if start else None
        judged_by = scan(BAR_COVERAGE.name, before, end).collect()
    rows = judged_by.filter(pl.col("day") >= start) if start else judged_by
    lacking = incomplete(rows, liquidity_classes(judged_by))
    missing = int(rows.get_column("missing").sum())
    words = [f"{missing} bars are missing"] if missing else []
    if lacking.height:
        worst = lacking.sort("fill").row(0, named=True)
        words.append(
            f"{lacking.height} series are below the least fill of their class, {worst['symbol']}"
            f" {worst['timeframe']} has {worst['fill']:.1%}"
        )
    return dg.AssetCheckResult(
        passed=not words,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "bars expected": int(rows.get_column("expected").sum()),
            "bars present": int(rows.get_column("present").sum()),
            "bars missing": missing,
        },
        description="; ".join(words) or None,
    )


ROWS: Final = {BARS[timeframe].name: sound_bars(timeframe) for timeframe in TIMEFRAMES}
ALL: Final = [
    *(fresh_bars(timeframe) for timeframe in TIMEFRAMES),
    *(native_against_rollup(timeframe) for timeframe in list(TIMEFRAMES)[1:]),
    complete,
]
