"""What is known about absent bars: the four states, when the source is asked again, and how gaps change over time.

Every slot that was ever found absent stays in exactly one gap. A gap whose bars came is resolved; where only some
came it is cut, and each part keeps what was known of it.

What belongs here: the rules. What does not: which slots are absent (`bars.find_gaps`), storing gaps.
"""

from datetime import datetime, timedelta
from typing import Final

import polars as pl

from tracker_pipeline.domain.bar_slots import SERIES, SLOT, TIME, bars_between, runs_of, slots_of

MISSING: Final = "missing"
EMPTY: Final = "empty"
OUTAGE: Final = "outage"
UNLISTED: Final = "unlisted"

# How often the venue is asked for the bars of an outage: the waits between add up to 30 hours.
OUTAGE_ATTEMPTS: Final = 6
_FIRST_WAIT: Final = timedelta(minutes=5)
_LONGEST_WAIT: Final = timedelta(hours=24)
# A coin that does not trade for so long while its venue does is not listed. Between CVC's delisting and its return
# lie 44,412 bars of five minutes.
_DELISTED: Final = timedelta(days=14)

GAP_COLUMNS: Final = pl.Schema(
    {
        "venue": pl.String(),
        "symbol": pl.String(),
        "gap_start": TIME,
        "gap_end": TIME,
        "state": pl.String(),
        "attempts": pl.Int64(),
        "next_attempt_at": TIME,
        "detected_at": TIME,
        "resolved_at": TIME,
        "confirmed_by": pl.String(),
        "last_error": pl.String(),
    }
)


def next_attempt(attempts: int, now: datetime, *, state: str) -> datetime | None:
    """When a source that has been asked `attempts` times is asked again: 5, 15, 45 min and so on up to a day.

    Never for what it confirmed to be empty; for an outage a bounded number of times; for what is missing for ever.
    """
    if state in (EMPTY, UNLISTED) or (state == OUTAGE and attempts >= OUTAGE_ATTEMPTS):
        return None
    if attempts == 0:
        return now
    return now + min(_FIRST_WAIT * 3 ** min(attempts - 1, 8), _LONGEST_WAIT)


def reviewed(
    known: pl.DataFrame,
    absent: pl.DataFrame,
    present: pl.DataFrame,
    outage: pl.DataFrame,
    *,
    timeframe: str,
    now: datetime,
) -> pl.DataFrame:
    """Bring gaps up to date with what was found in a window.

    Args:
        known: gaps that touch the window, columns of `GAP_COLUMNS`.
        absent: the slots of the window without a bar: venue, symbol, ts, `confirmed_by` (who answered that there is
            none, or null), `unlisted` (whether the venue did not list the symbol then), `askable` (whether the source
            can be asked for exactly these bars), `error` (why they were not got, or null).
        present: venue, symbol, ts of the bars in the window.
        outage: venue, ts of the slots at which most symbols have none.
        timeframe: of all.
        now: aware.

    Returns:
        All gaps that replace `known`, sorted: every slot of `known` and of `absent` in exactly one.
    """
    before = slots_of(known, timeframe, "gap_start", "gap_end")
    untouched = before.join(absent, on=SLOT, how="anti")
    came = pl.col("resolved_at").is_null() & pl.col("came").fill_null(value=False)
    closed = untouched.join(present.select(*SLOT, came=pl.lit(value=True)), on=SLOT, how="left").with_columns(
        resolved_at=pl.when(came).then(now).otherwise("resolved_at").cast(TIME),
        next_attempt_at=pl.when(came).then(None).otherwise("next_attempt_at"),
    )
    slots = pl.concat(
        [closed.select(_SLOT_COLUMNS), _opened(before, absent, outage, now).select(_SLOT_COLUMNS)]
    )
    return runs_of(
        _with_long_absences_unlisted(slots, timeframe),
        timeframe,
        "gap_start",
        "gap_end",
        by=("state", "attempts", "resolved_at", "confirmed_by"),
        aggregated=[
            pl.col("next_attempt_at", "detected_at").min(),
            pl.col("last_error").drop_nulls().last(),
        ],
    ).select(pl.col(name).cast(dtype) for name, dtype in GAP_COLUMNS.items())


_SLOT_COLUMNS: Final = (
    *SLOT,
    *(name for name in GAP_COLUMNS if name not in (*SERIES, "gap_start", "gap_end")),
)


def _opened(before: pl.DataFrame, absent: pl.DataFrame, outage: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """The absent slots as open ones, with what was known of them."""
    still = before.filter(pl.col("resolved_at").is_null()).rename({"confirmed_by": "was_confirmed_by"})
    down = outage.select("venue", "ts", down=pl.lit(value=True))
    merged = (
        absent.join(still.drop("resolved_at"), on=SLOT, how="left")
        .join(down, on=["venue", "ts"], how="left")
        .with_columns(
            was=pl.col("state"),
            attempts=pl.col("attempts").fill_null(0),
            detected_at=pl.col("detected_at").fill_null(now).cast(TIME),
            resolved_at=pl.lit(None, TIME),
            confirmed_by=pl.coalesce("was_confirmed_by", "confirmed_by"),
            last_error=pl.coalesce("error", "last_error"),
        )
    )
    state = (
        pl.when(pl.col("unlisted") | (pl.col("was") == UNLISTED).fill_null(value=False))
        .then(pl.lit(UNLISTED))
        .when(pl.col("down").fill_null(value=False))
        .then(pl.lit(OUTAGE))
        .when(pl.col("confirmed_by").is_not_null())
        .then(pl.lit(EMPTY))
        .otherwise(pl.lit(MISSING))
    )
    asked_again = (pl.col("state") == MISSING) | (
        (pl.col("state") == OUTAGE) & (pl.col("attempts") < OUTAGE_ATTEMPTS)
    )
    # What was missing and is not due keeps its NULL: the venue cannot serve it.
    due = pl.when(pl.col("was") == pl.col("state")).then("next_attempt_at").otherwise(pl.lit(now, TIME))
    return merged.with_columns(state=state).with_columns(
        next_attempt_at=pl.when(pl.col("askable") & asked_again).then(due),
        last_error=pl.when(pl.col("state") == MISSING).then("last_error"),
    )


def _with_long_absences_unlisted(slots: pl.DataFrame, timeframe: str) -> pl.DataFrame:
    """Name what is no gap: a symbol without a bar for two weeks, as far as can be told, while its venue has some."""
    # Missing bars that can be asked for are ours to get however many they are.
    settled = pl.col("state").is_in([EMPTY, UNLISTED]) | (
        (pl.col("state") == MISSING) & pl.col("next_attempt_at").is_null() & pl.col("last_error").is_null()
    )
    candidates = slots.filter(settled & pl.col("resolved_at").is_null())
    runs = runs_of(candidates.select(SLOT), timeframe, "start", "end")
    long = slots_of(runs.filter(pl.col("end") - pl.col("start") >= _DELISTED), timeframe, "start", "end")
    gone = long.with_columns(gone=pl.lit(value=True))
    is_gone = pl.col("gone").fill_null(value=False) & pl.col("resolved_at").is_null()
    return (
        slots.join(gone, on=SLOT, how="left")
        .with_columns(
            state=pl.when(is_gone).then(pl.lit(UNLISTED)).otherwise("state"),
            next_attempt_at=pl.when(is_gone).then(None).otherwise("next_attempt_at"),
        )
        .drop("gone")
    )


def bars_in(timeframe: str) -> pl.Expr:
    """The number of bars of a gap."""
    return bars_between(pl.col("gap_start"), pl.col("gap_end"), timeframe).alias("bars")
