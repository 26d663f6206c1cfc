"""The report counts every label and means only over what was traded."""

from datetime import UTC, date, datetime

import polars as pl
import pytest

from tracker_pipeline.domain.label_report import SCHEMA, as_markdown, by_month, net_bar, outcome_counts

LABELS = pl.DataFrame(
    {
        "timestamp": [datetime(2024, m, 3, tzinfo=UTC) for m in (5, 5, 5, 5, 6)],
        "outcome": ["WIN", "LOSS", "PENDING", "TIMEOUT", "UNRESOLVED"],
        "gross_return_pct": [10.0, -8.0, None, None, None],
        "actual_return": [9.0, -9.0, None, None, None],
        "hold_time_hours": [2.0, 4.0, None, None, None],
    }
)


def test_counts_are_of_all_and_means_of_the_traded():
    may = by_month({"dca": LABELS}).row(0, named=True)
    assert (may["month"], may["labels"], may["traded"]) == (date(2024, 5, 1), 4, 2)
    assert (may["win"], may["loss"], may["pending"], may["timeout"]) == (1, 1, 1, 1)
    assert may["gross_mean_pct"] == pytest.approx(1.0)
    assert may["net_mean_pct"] == pytest.approx(0.0)
    assert (may["net_positive_frac"], may["hold_mean_hours"]) == (0.5, 3.0)


def test_a_month_without_trades_has_counts_and_no_means():
    june = by_month({"dca": LABELS}).row(1, named=True)
    assert (june["labels"], june["traded"], june["unresolved"]) == (1, 0, 1)
    assert june["net_mean_pct"] is None


def test_no_labels_are_an_empty_report():
    assert by_month({"dca": LABELS.clear()}).schema == SCHEMA
    assert by_month({}).is_empty()


def test_the_page_shows_a_count_beside_every_mean():
    page = as_markdown(by_month({"dca": LABELS}))
    assert "| dca | 2024-05 | 4 | 2 | 1 | 1 | 1 | 1.00 | 0.00 | 0.50 | 3.00 |" in page


@pytest.mark.parametrize(
    ("net", "bar"), [(1.6, "███"), (-0.9, "░░"), (0.1, ""), (-40.0, "░░░░░░░░"), (None, "")]
)
def test_the_chart_has_a_block_for_each_half_per_cent_hollow_below_zero(net: float | None, bar: str):
    assert net_bar(net) == bar


def test_outcomes_that_do_not_occur_are_left_out():
    assert outcome_counts(LABELS.head(2)) == {"LOSS": 1, "WIN": 1}
