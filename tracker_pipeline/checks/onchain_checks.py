"""Snapshots, rates and scores prove that they are of one block, complete and possible, and show how good they are.

What belongs here: checks of stored on-chain rows. What does not: thresholds and verdicts
(`domain.snapshot_quality`).

Where a wrong value would be built upon the check blocks. Where data is thin or unusual it warns; what makes values of
the hour doubtful is an error that does not block: a crash of the market must not stop its own measurement.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import dagster as dg
import polars as pl

from tracker_pipeline import keys
from tracker_pipeline.assets.accumulation_scores import TOLERANCE
from tracker_pipeline.assets.networks import HOUR
from tracker_pipeline.assets.snapshot_reads import stored_coverage
from tracker_pipeline.checks.row_checks import RowChecks, Stored, Verdict, check_window, verdict_on
from tracker_pipeline.domain import schemas
from tracker_pipeline.domain import snapshot_quality as quality
from tracker_pipeline.domain.accumulation import band
from tracker_pipeline.domain.accumulation_tags import INCOMPLETE
from tracker_pipeline.domain.holdings import WEI_PER_ETH
from tracker_pipeline.domain.snapshot_quality import Finding
from tracker_pipeline.resources.clients import ChainResource
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.settings import get_config, get_networks
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.finality import first_snapshot_hour

_SNAPSHOTS: Final = schemas.WHALE_BALANCE_SNAPSHOTS
_BLOCK: Final = ("block_number", "block_hash", "block_timestamp")
# What an address must have held an hour before to be asked about a second time when half of it is gone.
_LEAST_JUMP_WEI: Final = WEI_PER_ETH
_MOST_ASKED: Final = 1_000
_NATIVE: Final = "ETH"


def _one_block_and_nobody_missing(stored: Stored) -> dict[str, Verdict]:
    return {
        "one_block_and_nobody_missing": verdict_on(snapshot_problems(stored.rows), rows=stored.rows.height)
    }


def snapshot_problems(rows: pl.DataFrame) -> dict[str, int]:
    """What is wrong with rows of snapshots, and how often."""
    hour = ["network", "snapshot_timestamp"]
    blocks = rows.select(*hour, *_BLOCK).unique()
    listed = rows.group_by(*hour, "asset").agg(pl.col("whale_address").sort().str.join(",").hash())
    return {
        "hours of several blocks": blocks.group_by(hour).len().filter(pl.col("len") > 1).height,
        "blocks after their hour": blocks.filter(
            pl.col("block_timestamp") > pl.col("snapshot_timestamp")
        ).height,
        "hours whose assets have other addresses": listed.group_by(hour)
        .agg(pl.col("whale_address").n_unique())
        .filter(pl.col("whale_address") > 1)
        .height,
        "rows that share their key": int(rows.select(_SNAPSHOTS.key).is_duplicated().sum()),
        "known balances of a failed read, or unknown ones of a good one": rows.filter(
            (pl.col("status") == "ok") != pl.col("balance").is_not_null()
        ).height,
    }


@dg.asset_check(
    asset=keys.WHALE_BALANCE_SNAPSHOTS,
    blocking=True,
    description="Where an address lost or gained more than half of its ether within an hour, a second and independent"
    " read at the same block says the same.",
)
def jumps_are_confirmed(context: dg.AssetCheckExecutionContext, chain: ChainResource) -> dg.AssetCheckResult:
    """Ask again, address by address, for the balances that jumped in the newest hour of the run."""
    with classified():
        found = {network: _confirmed(chain, network, at) for network, at in _newest_hours(context)}
    different = [address for _, wrong in found.values() for address in wrong]
    return dg.AssetCheckResult(
        passed=not different,
        metadata={
            "jumps": sum(len(jumped) for jumped, _ in found.values()),
            "addresses": [address for jumped, _ in found.values() for address in jumped][:20],
            "not confirmed": different[:20],
        },
        description=f"a second read gives other balances of {', '.join(different[:3])}"
        if different
        else None,
    )


def _confirmed(chain: ChainResource, network: str, at: datetime) -> tuple[list[str], list[str]]:
    """Addresses that jumped, and those of them of which a second read says something else."""
    now = _native(network, at)
    jumped = quality.jumped(_native(network, at - HOUR), now, least=_LEAST_JUMP_WEI)
    if not jumped:
        return [], []
    number, block_hash = _pinned(network, at)
    client = chain.client(network)
    again = client.single_balances(jumped[:_MOST_ASKED], number, block_hash)
    return jumped, [address for address, wei in again.items() if now[address] != wei]


# What casts doubt on values of the hour itself. Hours that are missing and addresses that came do not.
_DOUBTFUL: Final = frozenset({"unknown_share", "block_gap", "jumps", "steth_rate"})

_QUALITY_SPECS: Final = [
    dg.AssetCheckSpec(name, asset=keys.WHALE_BALANCE_SNAPSHOTS, description=text)
    for name, text in {
        "density": "Share of (address, hour) pairs of the last 24 hours that are stored, each counted once; hours"
        " before the first snapshot are not expected. 85 % and more is healthy, 70 % and more degraded.",
        "unknown_share": "Balances that could not be read: none is healthy, up to the allowed share degraded.",
        "block_gap": "Seconds between the hour and its block, against what is usual on the network.",
        "jumps": "Addresses that moved more than half of their ether within the hour.",
        "universe_drift": "Addresses that came or went since the hour before.",
        "steth_rate": "stETH rates of the last 24 hours that are unknown, stale or outside 0.90 to 1.10.",
        "overall_quality": "All of these as one status and one score, which never contradict each other.",
    }.items()
]


@dg.multi_asset_check(specs=_QUALITY_SPECS)
def snapshot_quality(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Judge the newest hour of the run on each network; what is worst counts."""
    with classified():
        found = {network: _findings(network, at) for network, at in _newest_hours(context)}
    everything = [finding for findings in found.values() for finding in findings]
    for spec in _QUALITY_SPECS[:-1]:
        own = [
            (network, f) for network, findings in found.items() for f in findings if f.subject == spec.name
        ]
        status, score = quality.overall([finding for _, finding in own])
        figures = {network: finding.figure for network, finding in own}
        yield _quality_result(spec, status, score, figures, own=[finding for _, finding in own])
    status, score = quality.overall(everything)
    words = {
        f"{network} {f.subject}": f"{f.quality}: {f.figure}" for network, fs in found.items() for f in fs
    }
    yield _quality_result(_QUALITY_SPECS[-1], status, score, words, own=everything)


def _quality_result(
    spec: dg.AssetCheckSpec, status: str, score: int, figures: Mapping[str, str], *, own: Sequence[Finding]
) -> dg.AssetCheckResult:
    passed = not own or status == "healthy"
    doubtful = any(finding.quality == "critical" and finding.subject in _DOUBTFUL for finding in own)
    return dg.AssetCheckResult(
        passed=passed,
        asset_key=spec.asset_key,
        check_name=spec.name,
        severity=dg.AssetCheckSeverity.ERROR if doubtful else dg.AssetCheckSeverity.WARN,
        metadata={"status": status if own else "nothing stored", "score": score, **figures},
        description=None if passed else f"{status} ({score}): {'; '.join(figures.values())}",
    )


def _findings(network: str, at: datetime) -> list[Finding]:
    config, found = get_config().chain, get_networks()[network]
    wanted = pl.col("network") == network
    columns = ["asset", "whale_address", "balance", "block_timestamp"]
    rows = scan(_SNAPSHOTS.name, at, at + HOUR, predicate=wanted, columns=columns).collect()
    then, now = _native(network, at - HOUR), _native(network, at)
    first = first_snapshot_hour(network) or at
    hours = quality.expected_hours(first, at)
    rates = scan(
        schemas.STETH_RATES.name, at - 23 * HOUR, at, predicate=wanted, columns=["status", "rate"]
    ).collect()
    usable = [(status, None if rate is None else Decimal(rate)) for status, rate in rates.iter_rows()]
    return [
        quality.density(stored_coverage(network, at, hours=hours)),
        quality.unknown_share(
            rows.get_column("balance").null_count(), rows.height, allowed=config.max_unknown_frac
        ),
        quality.block_gap(
            (at - rows.item(0, "block_timestamp")).total_seconds(), usual=found.block_gap_seconds
        ),
        quality.jumps(len(quality.jumped(then, now, least=_LEAST_JUMP_WEI)), 0),
        quality.universe_drift(_addresses(network, at - HOUR), _addresses(network, at)),
        # The rate of this very hour is read after its balances; it is judged with those of the next hour.
        quality.steth_rate(usable, configured=found.steth_feed is not None and bool(usable)),
    ]


def _rates_are_possible_and_of_their_block(stored: Stored) -> dict[str, Verdict]:
    """Compare the rates of the run with their statuses and with the blocks of the balances."""
    rates, key = stored.rows, ["network", "snapshot_timestamp"]
    balances = scan(_SNAPSHOTS.name, stored.start, stored.end, columns=[*key, "block_hash"])
    longest = {
        name: network.steth_feed.max_age_hours * 3600
        for name, network in get_networks().items()
        if network.steth_feed
    }
    strangers = rates.join(balances.unique().collect(), on=[*key, "block_hash"], how="anti").height
    problems = {**rate_problems(rates, longest), "rates of another block": strangers}
    return {"rates_are_possible_and_of_their_block": verdict_on(problems, rates=rates.height)}


def rate_problems(rates: pl.DataFrame, longest_seconds: Mapping[str, float]) -> dict[str, int]:
    """What is wrong with rows of stETH rates, and how often.

    Args:
        rates: rows of `onchain.steth_rates`.
        longest_seconds: network to how old an answer may be.
    """
    found = {"rates that do not fit their status": 0, "answers that are too old": 0}
    for row in rates.iter_rows(named=True):
        rate = None if row["rate"] is None else Decimal(row["rate"])
        usable = rate is not None and Decimal("0.90") <= rate <= Decimal("1.10")
        expected = {"ok": usable, "out_of_range": rate is not None and not usable}
        found["rates that do not fit their status"] += not expected.get(row["status"], rate is None)
        if row["status"] == "ok" and row["answered_at"] is not None and row["network"] in longest_seconds:
            age = (row["block_timestamp"] - row["answered_at"]).total_seconds()
            found["answers that are too old"] += age > longest_seconds[row["network"]]
    return found


def _status_and_figures_agree(stored: Stored) -> dict[str, Verdict]:
    """Hold every score of the run against its own words."""
    problems = Counter(what for row in stored.rows.iter_rows(named=True) for what in contradictions(row))
    return {"status_and_figures_agree": verdict_on(problems, scores=stored.rows.height)}


def contradictions(row: Mapping[str, Any]) -> list[str]:
    """What a row of `onchain.accumulation_scores` says against itself."""
    score = None if row["score_pct"] is None else Fraction(row["score_pct"])
    has_baseline, at = row["baseline_timestamp"] is not None, row["snapshot_timestamp"]
    shares = [row[name] for name in ("gini", "trend_score") if row[name] is not None]
    sides = row["accumulators"] + row["distributors"] + row["neutral"]
    stands = {
        "no baseline, yet another status": has_baseline == (row["status"] != "no_baseline"),
        "no baseline, yet figures": has_baseline
        or (score is None and row["band"] is None and not row["tags"]),
        "a baseline beside the look-back": not has_baseline
        or abs(at - row["lookback_hours"] * HOUR - row["baseline_timestamp"]) <= TOLERANCE,
        "a band of another score": row["band"] == band(score) or _at_an_edge(score),
        "more sides than matched addresses": sides <= row["matched"],
        "more matched than there are": row["matched"] <= row["universe"],
        "missing addresses that were matched": max(row["missing_current"], row["missing_historical"])
        <= row["universe"] - row["matched"],
        "a share outside of 0 to 1": all(0 <= Fraction(share) <= 1 for share in shares),
        "low coverage, yet other tags": (row["status"] == "low_coverage") == (row["tags"] == [INCOMPLETE]),
        "an anomaly without a driver": not row["is_anomaly"] or row["driver"] is not None,
    }
    return [what for what, holds in stands.items() if not holds]


def _at_an_edge(score: Fraction | None) -> bool:
    """Whether rounding to ten decimals may have moved the score onto the border of two bands."""
    return score is not None and any(abs(score - edge) <= Fraction(1, 10**10) for edge in _EDGES)


_EDGES: Final = (Fraction(2), Fraction(1, 2), Fraction(-1, 2), Fraction(-2))


def _newest_hours(context: dg.AssetCheckExecutionContext) -> list[tuple[str, datetime]]:
    """Network and newest stored hour of the run's partitions."""
    start, end = check_window(context, _SNAPSHOTS)
    stored = scan(_SNAPSHOTS.name, start, end, columns=["network", "snapshot_timestamp"])
    newest = stored.group_by("network").agg(pl.col("snapshot_timestamp").max()).collect()
    known = get_networks()
    return [(network, at) for network, at in newest.sort("network").iter_rows() if network in known]


def _native(network: str, at: datetime) -> dict[str, int]:
    wanted = (pl.col("network") == network) & (pl.col("asset") == _NATIVE)
    rows = scan(
        _SNAPSHOTS.name, at, at + HOUR, predicate=wanted, columns=["whale_address", "balance"]
    ).collect()
    return {address: int(balance) for address, balance in rows.iter_rows() if balance is not None}


def _addresses(network: str, at: datetime) -> frozenset[str]:
    wanted = pl.col("network") == network
    rows = scan(_SNAPSHOTS.name, at, at + HOUR, predicate=wanted, columns=["whale_address"]).collect()
    return frozenset(rows.get_column("whale_address"))


def _pinned(network: str, at: datetime) -> tuple[int, str]:
    wanted = pl.col("network") == network
    rows = scan(_SNAPSHOTS.name, at, at + HOUR, predicate=wanted, columns=list(_BLOCK)).head(1).collect()
    return rows.item(0, "block_number"), rows.item(0, "block_hash")


ROWS: Final = {
    _SNAPSHOTS.name: RowChecks(
        {
            "one_block_and_nobody_missing": "All balances of an hour and network are of one block, of the hour"
            " or before; each asset has the same addresses, each once; a balance is known exactly where its status"
            " is ok."
        },
        _one_block_and_nobody_missing,
    ),
    schemas.STETH_RATES.name: RowChecks(
        {
            "rates_are_possible_and_of_their_block": "A rate is stored exactly where the feed gave one of its time;"
            " it is one that stETH can have, or says that it is not; it is of the block of the hour's balances, and"
            " no older than the feed may be."
        },
        _rates_are_possible_and_of_their_block,
    ),
    schemas.ACCUMULATION_SCORES.name: RowChecks(
        {
            "status_and_figures_agree": "Status, figures, band and tags of a score say the same: without a"
            " baseline there is no figure, with one it lies within an hour of the look-back, the band is that of the"
            " score, and counts add up."
        },
        _status_and_figures_agree,
    ),
}
ALL: Final = [jumps_are_confirmed, snapshot_quality]
