"""Features prove that they know nothing of the future, and show how well they are filled.

What belongs here: checks of stored features. What does not: formulas (`domain.features`).
"""

from datetime import datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.features import features_between
from tracker_pipeline.checks.row_checks import RowChecks, Stored, Verdict, check_window
from tracker_pipeline.domain import feature_catalogue
from tracker_pipeline.domain.schemas import BARS, ML_FEATURES_15M
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage import scan

# Each sampled moment costs a computation of its day's rows, about 0.1 s for 90 symbols.
_SAMPLED_MOMENTS: Final = 4
_KEY: Final = list(ML_FEATURES_15M.key)
# Values that a feature cannot have, from its definition; others may be anything.
_RANGES: Final = {
    "rsi_14": (0.0, 100.0),
    "rsi_30": (0.0, 100.0),
    "stoch_k": (0.0, 100.0),
    "flow_24h": (-1.0, 1.0),
    "corr_btc_30d": (-1.0, 1.0),
    "hour_sin": (-1.0, 1.0),
    "hour_cos": (-1.0, 1.0),
    "atr_14": (0.0, float("inf")),
    "vol_24h": (0.0, float("inf")),
}
_MOST_DRIFT: Final = 4.0  # standard deviations of the week before


def known_no_earlier_than_its_bar(stored: Stored) -> Verdict:
    """Compare `available_at` of each row with that of its bar."""
    columns = [*_KEY, "available_at"]
    rows = stored.rows.select(columns)
    bars = scan(BARS["15m"].name, stored.start, stored.end, columns=columns).collect()
    strangers = rows.join(bars, on=columns, how="anti").height
    return _verdict(
        not strangers,
        f"{strangers} rows without their bar",
        rows=rows.height,
        rows_without_their_bar=strangers,
    )


def equal_when_the_future_is_cut_off(stored: Stored) -> Verdict:
    """Compute the rows of some moments again from what was known then, and compare them byte for byte."""
    moments = sampled_moments(stored.rows)
    different = sum(_differences(stored.rows, moment) for moment in moments)
    shown = ", ".join(f"{moment:%Y-%m-%d %H:%M}" for moment in moments)
    return _verdict(
        not different, f"{different} rows differ", moments_computed_again=shown, rows_that_differ=different
    )


@dg.asset_check(
    asset=keys.ML_FEATURES_15M,
    description="No feature has a value outside its definition; NULL rates and drift against the week before are"
    " shown and warned of.",
)
def filled_and_within_range(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Count NULLs and impossible values, and compare means with the week before."""
    with classified():
        start, end = check_window(context, ML_FEATURES_15M)
        rows = scan(ML_FEATURES_15M.name, start, end).collect()
        before = (
            scan(ML_FEATURES_15M.name, start - timedelta(days=7), start).collect() if start else rows.clear()
        )
    names = [feature.name for feature in feature_catalogue.CATALOGUE]
    numbers = feature_catalogue.NUMBERS
    outside = {name: count for name in numbers if (count := _outside(rows, name))}
    drifted = {name: z for name in numbers if (z := _drift(rows, before, name)) and abs(z) > _MOST_DRIFT}
    nulls = {name: rows.get_column(name).null_count() / max(1, rows.height) for name in names}
    return dg.AssetCheckResult(
        passed=not outside and not drifted,
        severity=dg.AssetCheckSeverity.ERROR if outside else dg.AssetCheckSeverity.WARN,
        metadata={
            "share of NULL, 0 to 1": nulls,
            "values outside their range": outside,
            "drifted (standard deviations)": drifted,
        },
        description=f"outside their range: {outside}; drifted: {drifted}" if outside or drifted else None,
    )


def sampled_moments(rows: pl.DataFrame) -> list[datetime]:
    """A few moments of the rows, evenly spread and the same each time."""
    moments = rows.get_column("ts").unique().sort()
    if moments.is_empty():
        return []
    step = max(1, moments.len() // _SAMPLED_MOMENTS)
    return moments.reverse().gather_every(step).head(_SAMPLED_MOMENTS).to_list()


def _differences(stored: pl.DataFrame, moment: datetime) -> int:
    """How many stored rows of a moment are not what was known then."""
    own = stored.filter(pl.col("ts") == moment)
    known = own.item(0, "available_at")
    again = features_between(moment, moment + timedelta(minutes=15), as_of=known)
    return own.join(again, on=own.columns, how="anti", nulls_equal=True).height + abs(
        again.height - own.height
    )


def _outside(rows: pl.DataFrame, name: str) -> int:
    low, high = _RANGES.get(name, (float("-inf"), float("inf")))
    values = rows.get_column(name)
    return int((values.is_nan() | values.is_infinite() | (values < low) | (values > high)).sum())


def _drift(rows: pl.DataFrame, before: pl.DataFrame, name: str) -> float | None:
    """Distance of the means in standard deviations of the week before; None where either is unknown."""
    mean, former = rows.get_column(name).mean(), before.get_column(name).mean()
    spread = before.get_column(name).std()
    if (
        not isinstance(mean, float)
        or not isinstance(former, float)
        or not isinstance(spread, float)
        or not spread
    ):
        return None
    return round((mean - former) / spread, 2)


def _verdict(passed: bool, problem: str, **figures: int | str) -> Verdict:
    metadata = {name.replace("_", " "): figure for name, figure in figures.items()}
    return Verdict(passed, metadata, None if passed else problem)


def _judge(stored: Stored) -> dict[str, Verdict]:
    return {
        "known_no_earlier_than_its_bar": known_no_earlier_than_its_bar(stored),
        "equal_when_the_future_is_cut_off": equal_when_the_future_is_cut_off(stored),
    }


ROWS: Final = {
    ML_FEATURES_15M.name: RowChecks(
        {
            "known_no_earlier_than_its_bar": "Every row belongs to a stored bar and may be used exactly from when"
            " that bar may be used.",
            "equal_when_the_future_is_cut_off": "Rows of a sample of moments are what comes out when all bars that"
            " became available later are taken away: no value has seen the future.",
        },
        _judge,
    )
}
ALL: Final = [filled_and_within_range]
