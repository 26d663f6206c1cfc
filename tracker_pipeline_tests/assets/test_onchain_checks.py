"""The on-chain checks pass what the pipeline stores, and find each kind of wrong row."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import polars as pl
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker_pipeline.checks.onchain_checks import contradictions, rate_problems, snapshot_problems
from tracker_pipeline.domain import snapshot_quality as quality
from tracker_pipeline.storage import scan
from tracker_pipeline_tests.assets.onchain import ONCHAIN
from tracker_pipeline_tests.resources.test_chain_client import Proxy
from tracker_pipeline_tests.serving import served

ETH = 10**18
HOUR = timedelta(hours=1)
T = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS = ("2026-03-01-03:00", "2026-03-01-04:00")
A, B, C = (f"0x{letter * 40}" for letter in "abc")


def results(run_result) -> dict[str, object]:
    return {one.check_name: one for one in run_result.get_asset_check_evaluations()}


def stored(table: str) -> pl.DataFrame:
    return scan(f"onchain.{table}").collect()


def test_what_the_pipeline_stores_passes_every_check_and_figures_are_shown(run, own_database):
    assert run(KEYS[0]).success
    second = run(KEYS[1])
    assert second.success
    found = results(second)
    assert {name for name, one in found.items() if not one.passed} == set()
    assert found["overall_quality"].metadata["score"].value == 100
    assert found["density"].metadata["ethereum"].value == "100.0% of the last 24 hours"
    judged = found["one_block_and_nobody_missing"].metadata["judged"].value
    assert judged == "2026-03-01 04:00 to 2026-03-01 05:00 UTC"


def triple_the_largest(url: str) -> None:
    """An hour before, so that it seems to have lost two thirds since."""
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        connection.execute(
            "UPDATE onchain.whale_balance_snapshots SET balance = balance * 3"
            " WHERE asset = 'ETH' AND rank = 1 AND snapshot_timestamp = '2026-03-01 03:00+00'"
        )


def test_a_jump_that_a_second_read_confirms_is_shown_and_blocks_nothing(run, own_database):
    assert run(KEYS[0]).success
    triple_the_largest(own_database)
    result = run(KEYS[1], assets=ONCHAIN)
    assert result.success
    found = results(result)
    assert found["jumps_are_confirmed"].passed
    assert found["jumps_are_confirmed"].metadata["jumps"].value == 1
    assert not found["jumps"].passed
    assert found["overall_quality"].metadata["status"].value == "degraded"
    assert 60 <= found["overall_quality"].metadata["score"].value <= 84


def test_a_jump_that_a_second_read_does_not_confirm_blocks_the_score(
    run,
    own_database,
    configure,
    node,
):
    assert run(KEYS[0]).success
    triple_the_largest(own_database)
    proxy = Proxy(node)
    proxy.behave = lambda request: {"result": "0x1"} if request["method"] == "eth_getBalance" else None
    with served(proxy.app()) as proxy.url:
        configure(rpc_urls=[proxy.url])
        result = run(KEYS[1], assets=ONCHAIN)
    assert not result.success
    assert not results(result)["jumps_are_confirmed"].passed
    assert stored("accumulation_scores").filter(pl.col("snapshot_timestamp").dt.hour() == 4).is_empty()


def test_a_snapshot_of_two_blocks_or_with_an_address_missing_is_found(run, own_database):
    assert run(KEYS[0], assets=ONCHAIN[:2]).success
    rows = stored("whale_balance_snapshots")
    assert not any(snapshot_problems(rows).values())
    spoilt = {
        "hours of several blocks": rows.with_columns(
            block_hash=pl.when(pl.col("rank") == 1).then(pl.lit("0xother")).otherwise("block_hash")
        ),
        "hours whose assets have other addresses": rows.filter(
            ~((pl.col("asset") == "WETH") & (pl.col("rank") == 2))
        ),
        "blocks after their hour": rows.with_columns(block_timestamp=pl.col("snapshot_timestamp") + HOUR),
        "rows that share their key": pl.concat([rows, rows.head(1)]),
        "known balances of a failed read, or unknown ones of a good one": rows.with_columns(
            status=pl.lit("rpc_error")
        ),
    }
    for what, frame in spoilt.items():
        assert snapshot_problems(frame)[what], what


@pytest.mark.parametrize(
    ("status", "rate", "age_hours", "problem"),
    [
        ("ok", "0.999", 1, None),
        ("ok", "0.89", 1, "rates that do not fit their status"),
        ("out_of_range", "0.89", 1, None),
        ("out_of_range", "1.0", 1, "rates that do not fit their status"),
        ("stale", None, 30, None),
        ("stale", "0.999", 30, "rates that do not fit their status"),
        ("ok", "0.999", 26, "answers that are too old"),
        ("no_feed", None, None, None),
    ],
)
def test_a_rate_fits_its_status_and_age(status, rate, age_hours, problem):
    answered = None if age_hours is None else T - age_hours * HOUR
    row = {
        "network": "ethereum",
        "status": status,
        "rate": rate,
        "answered_at": answered,
        "block_timestamp": T,
    }
    found = rate_problems(pl.DataFrame([row]), {"ethereum": 25 * 3600})
    assert [what for what, count in found.items() if count] == ([problem] if problem else [])


GOOD = {
    "snapshot_timestamp": T, "lookback_hours": 24, "baseline_timestamp": T - 24 * HOUR, "status": "ok",
    "score_pct": "0.6", "band": "accumulation", "tags": [], "gini": "0.4", "trend_score": "0.5", "universe": 10,
    "matched": 8, "missing_current": 1, "missing_historical": 1, "accumulators": 3, "distributors": 3, "neutral": 2,
    "is_anomaly": False, "driver": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        ({}, []),
        ({"score_pct": "0.4"}, ["a band of another score"]),
        ({"score_pct": "0.5", "band": "neutral"}, []),
        ({"status": "no_baseline"}, ["no baseline, yet another status"]),
        ({"baseline_timestamp": None, "status": "no_baseline"}, ["no baseline, yet figures"]),
        (
            {"baseline_timestamp": None, "status": "no_baseline", "score_pct": None, "band": None},
            [],
        ),
        ({"baseline_timestamp": T - 22 * HOUR}, ["a baseline beside the look-back"]),
        ({"accumulators": 9}, ["more sides than matched addresses"]),
        ({"missing_current": 3}, ["missing addresses that were matched"]),
        ({"gini": "1.1"}, ["a share outside of 0 to 1"]),
        ({"status": "low_coverage"}, ["low coverage, yet other tags"]),
        ({"status": "low_coverage", "tags": ["Incomplete Data"]}, []),
        ({"is_anomaly": True}, ["an anomaly without a driver"]),
    ],
)
def test_a_score_that_contradicts_itself_is_found(change, problems):
    assert contradictions({**GOOD, **change}) == problems


# Thresholds and verdicts.


def test_eighteen_hours_each_run_three_times_are_three_quarters_and_degraded():
    pairs = [(A, T + hour * HOUR) for hour in range(18)] * 3
    share = quality.coverage(pairs, addresses=1)
    assert share == Fraction(3, 4)
    assert quality.density(share).quality == "degraded"


@pytest.mark.parametrize(
    ("hours", "verdict"),
    [(24, "healthy"), (21, "healthy"), (20, "degraded"), (17, "degraded"), (16, "critical")],
)
def test_density_is_judged_at_85_and_70_per_cent(hours, verdict):
    assert quality.density(Fraction(hours, 24)).quality == verdict


def test_hours_before_the_first_snapshot_are_not_missed():
    assert quality.expected_hours(T, T) == 1
    assert quality.expected_hours(T - 5 * HOUR, T) == 6
    assert quality.expected_hours(T - 500 * HOUR, T) == 24


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [(0, "healthy"), (35, "healthy"), (36, "degraded"), (72, "critical"), (-1, "critical")],
)
def test_the_gap_is_judged_at_36_and_72_seconds_where_a_minute_is_usual(seconds, verdict):
    assert quality.block_gap(seconds, usual=60).quality == verdict


@pytest.mark.parametrize(
    ("confirmed", "different", "verdict"),
    [(0, 0, "healthy"), (3, 0, "degraded"), (40, 0, "degraded"), (1, 1, "critical")],
)
def test_a_panic_is_no_corruption_but_a_read_that_is_not_confirmed_is(confirmed, different, verdict):
    assert quality.jumps(confirmed, different).quality == verdict


def test_a_jump_is_a_change_by_more_than_half():
    then, now = {A: 4 * ETH, B: 4 * ETH, C: 1}, {A: 2 * ETH, B: 2 * ETH - 1, C: 100 * ETH}
    assert quality.jumped(then, now, least=ETH) == [B]


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [
        ([("ok", Decimal(1))] * 3, "healthy"),
        ([("ok", Decimal(1)), ("stale", None)], "degraded"),
        ([("out_of_range", Decimal("0.8"))] * 3, "critical"),
        ([], "degraded"),
    ],
)
def test_rates_that_are_unknown_or_out_of_range_are_counted(rates, verdict):
    assert quality.steth_rate(rates, configured=True).quality == verdict
    assert quality.steth_rate(rates, configured=False).quality == "healthy"


def test_drift_counts_those_who_came_and_those_who_went():
    hundred = frozenset(str(n) for n in range(100))
    assert quality.universe_drift(frozenset(), hundred).quality == "healthy"
    assert quality.universe_drift(hundred, hundred | {"new"}).quality == "healthy"
    assert quality.universe_drift(hundred, frozenset(sorted(hundred)[:85])).quality == "degraded"
    assert quality.universe_drift(hundred, frozenset(sorted(hundred)[:50])).quality == "critical"


SUBJECTS = ("density", "unknown_share", "block_gap", "jumps", "universe_drift", "steth_rate")


@given(st.lists(st.sampled_from(("healthy", "degraded", "critical")), min_size=6, max_size=6))
def test_status_and_score_never_disagree(qualities):
    findings = [quality.Finding(subject, q, "") for subject, q in zip(SUBJECTS, qualities, strict=True)]
    status, score = quality.overall(findings)
    assert status == max(qualities, key=["healthy", "degraded", "critical"].index)
    assert ("healthy" if score >= 85 else "degraded" if score >= 60 else "critical") == status
