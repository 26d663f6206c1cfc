"""`tracker gaps`: which bars are absent, why, and when they are asked for again.

What belongs here: reads for people. What does not: what a gap is (`domain.gap_states`), how they are
healed (`assets.bar_gaps`).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from tracker_pipeline.commands.project import shared_instance
from tracker_pipeline.commands.runs import Progress, run_job
from tracker_pipeline.domain.timeframes import TIMEFRAMES
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import scan


@dataclass(frozen=True)
class Absences:
    """What is absent.

    Attributes:
        totals: bars and symbols by venue, timeframe and state.
        outages: of venues, newest first.
        gaps: the open ones, newest first; those of outages only where they are asked for.
        more: how many further gaps there are.
    """

    totals: list[dict[str, Any]]
    outages: list[dict[str, Any]]
    gaps: list[dict[str, Any]]
    more: int


def absences(
    *, state: str | None = None, symbol: str | None = None, timeframe: str | None = None, limit: int = 20
) -> Absences:
    """Read the open gaps.

    Args:
        state: missing, empty, outage or unlisted; all if not given.
        symbol: unified symbol; all if not given.
        timeframe: one of ours; all if not given.
        limit: most gaps to list.

    Raises:
        PermanentError: no bars of the symbol are tracked, so that none can be absent.
    """
    wanted = {"state": state, "symbol": symbol, "timeframe": timeframe}
    predicate = pl.col("resolved_at").is_null()
    for name, value in wanted.items():
        if value is not None:
            predicate &= pl.col(name) == value
    gaps = scan("market.bar_gaps", predicate=predicate).collect()
    if symbol is not None and gaps.is_empty():
        _refuse_unknown(symbol)
    order = {name: place for place, name in enumerate(TIMEFRAMES)}
    totals = (
        gaps.group_by("venue", "timeframe", "state")
        .agg(
            pl.col("symbol").n_unique().alias("symbols"),
            pl.len().alias("gaps"),
            pl.col("bars").sum(),
            pl.col("next_attempt_at").min().alias("next attempt"),
        )
        .sort("venue", pl.col("timeframe").replace_strict(order, return_dtype=pl.Int64), "state")
    )
    # The outages are listed already, not once more for each symbol.
    single = gaps if state else gaps.filter(pl.col("state") != "outage")
    listed = single.sort("gap_start", "symbol", descending=[True, False]).head(limit)
    outages = scan("market.outages").collect().sort("outage_start", descending=True).head(limit)
    return Absences(
        totals=[_said(row) for row in totals.to_dicts()],
        outages=[
            {
                "venue": row["venue"],
                "from": _moment(row["outage_start"]),
                "to": _moment(row["outage_end"]),
                "symbols": f"{row['symbols_absent']} of {row['symbols_expected']}",
                "confirmed by": row["confirmed_by"] or "-",
                "resolved": _moment(row["resolved_at"]),
            }
            for row in outages.to_dicts()
        ],
        gaps=[_gap(row) for row in listed.to_dicts()],
        more=max(0, single.height - limit),
    )


def _refuse_unknown(symbol: str) -> None:
    of_symbol = pl.col("symbol") == symbol
    tables = ("market.instruments", "market.bar_coverage")
    if all(scan(t, columns=["symbol"], predicate=of_symbol).collect().is_empty() for t in tables):
        raise PermanentError(
            f"no bars of {symbol} are tracked; market.instruments has the symbols, like BTC/USDT"
        )


def heal_now(progress: Progress) -> str:
    """Ask for the missing bars that are due; returns what failed, empty where nothing did."""
    with shared_instance() as instance:
        outcome = run_job(instance, "gap_healing", progress=progress)
    return outcome.failure or "; ".join(outcome.problems)


def _gap(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "symbol": row["symbol"],
        "tf": row["timeframe"],
        "from": _moment(row["gap_start"]),
        "bars": row["bars"],
        "state": row["state"],
        "asked": row["attempts"],
        "again": _moment(row["next_attempt_at"]),
        "why": row["last_error"] or (f"says {row['confirmed_by']}" if row["confirmed_by"] else ""),
    }


def _said(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "next attempt": _moment(row["next attempt"])}


def _moment(value: datetime | None) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}" if value else "-"
