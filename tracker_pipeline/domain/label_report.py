"""What labels say in sum: counts, outcomes and returns by strategy and month. No figure without its count.

What belongs here: sums over labels. What does not: the labels themselves (`labels`), printing.
"""

from collections.abc import Mapping
from typing import Final

import polars as pl

_FINAL: Final = ("WIN", "LOSS", "BREAKEVEN", "TIMEOUT")
OUTCOMES: Final = (*_FINAL, "PENDING", "UNRESOLVED")

SCHEMA: Final = pl.Schema(
    {
        "strategy": pl.String(),
        "month": pl.Date(),
        "labels": pl.Int64(),
        **{outcome.lower(): pl.Int64() for outcome in OUTCOMES},
        "traded": pl.Int64(),
        "gross_mean_pct": pl.Float64(),
        "net_mean_pct": pl.Float64(),
        "net_positive_frac": pl.Float64(),
        "hold_mean_hours": pl.Float64(),
    }
)


def outcome_counts(labels: pl.DataFrame) -> dict[str, int]:
    """How often each outcome occurs, those that do not left out."""
    counted = labels.group_by("outcome").len().sort("outcome")
    return dict(counted.iter_rows())


def by_month(labels_by_strategy: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Sum up labels by strategy and UTC month of the signal.

    Means are over `traded`: final labels that were entered and left. A label without a fill, pending or
    unresolved has no return and is in none of them.

    Args:
        labels_by_strategy: for each strategy, rows of its label table.

    Returns:
        A frame of `SCHEMA`, sorted by strategy and month.
    """
    traded = pl.col("outcome").is_in(_FINAL) & pl.col("actual_return").is_not_null()
    parts = [
        labels.with_columns(strategy=pl.lit(strategy), month=pl.col("timestamp").dt.date().dt.month_start())
        .group_by("strategy", "month")
        .agg(
            pl.len().cast(pl.Int64).alias("labels"),
            *(
                (pl.col("outcome") == outcome).sum().cast(pl.Int64).alias(outcome.lower())
                for outcome in OUTCOMES
            ),
            traded.sum().cast(pl.Int64).alias("traded"),
            pl.col("gross_return_pct").filter(traded).mean().alias("gross_mean_pct"),
            pl.col("actual_return").filter(traded).mean().alias("net_mean_pct"),
            (pl.col("actual_return").filter(traded) > 0).mean().alias("net_positive_frac"),
            pl.col("hold_time_hours").filter(traded).mean().alias("hold_mean_hours"),
        )
        for strategy, labels in labels_by_strategy.items()
    ]
    return pl.concat([SCHEMA.to_frame(), *(part.select(SCHEMA.names()) for part in parts)]).sort(
        "strategy", "month"
    )


def as_markdown(report: pl.DataFrame) -> str:
    """The report as a Markdown table with a bar of the net mean, for the UI.

    Args:
        report: from `by_month`.
    """
    lines = [
        "| strategy | month | labels | traded | win | loss | pending | gross % | net % | net > 0 | hold h | net |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in report.iter_rows(named=True):
        figures = (
            row["gross_mean_pct"],
            row["net_mean_pct"],
            row["net_positive_frac"],
            row["hold_mean_hours"],
        )
        shown = ["" if figure is None else f"{figure:.2f}" for figure in figures]
        counts = " | ".join(str(row[name]) for name in ("labels", "traded", "win", "loss", "pending"))
        bar = net_bar(row["net_mean_pct"])
        lines.append(f"| {row['strategy']} | {row['month']:%Y-%m} | {counts} | {' | '.join(shown)} | {bar} |")
    return "\n".join(lines)


def net_bar(net_mean_pct: float | None) -> str:
    """One block for each half per cent, at most eight; hollow below zero, nothing where the mean is not known."""
    if net_mean_pct is None:
        return ""
    return ("█" if net_mean_pct > 0 else "░") * min(8, round(abs(net_mean_pct) / 0.5))
