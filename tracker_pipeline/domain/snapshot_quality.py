"""How good the stored snapshots are: one judgement for each subject, and one for all that never contradicts them.

What belongs here: figures, thresholds, verdicts. What does not: reading rows (`checks.onchain_checks`).

Each subject is healthy (100), degraded (75) or critical (40). The overall status is the worst of them; the overall
score is their weighted mean, held within the band of that status, so that status and score cannot disagree: 85 and
more is healthy, 60 to 84 degraded, less critical.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final, Literal

from tracker_pipeline.domain.holdings import usable_rate

Quality = Literal["healthy", "degraded", "critical"]

HOURS: Final = 24
_HEALTHY_COVERAGE, _DEGRADED_COVERAGE = Fraction(85, 100), Fraction(70, 100)
_HEALTHY_GAP, _DEGRADED_GAP = (
    Fraction(6, 10),
    Fraction(12, 10),
)  # of the largest usual gap: 36 s and 72 s of 60
_MOST_JUMPS: Final = 3
_MOST_BAD_RATES: Final = 2
_HEALTHY_DRIFT, _DEGRADED_DRIFT = Fraction(5, 100), Fraction(20, 100)
_JUMP: Final = Fraction(1, 2)

_SCORES: Final[Mapping[Quality, int]] = {"healthy": 100, "degraded": 75, "critical": 40}
_HIGHEST: Final[Mapping[Quality, int]] = {"healthy": 100, "degraded": 84, "critical": 59}
_LOWEST: Final[Mapping[Quality, int]] = {"healthy": 85, "degraded": 60, "critical": 0}
_SEVERITY: Final[Mapping[Quality, int]] = {"healthy": 0, "degraded": 1, "critical": 2}
_WEIGHTS: Final[Mapping[str, int]] = {
    "density": 25,
    "unknown_share": 25,
    "block_gap": 20,
    "jumps": 15,
    "universe_drift": 5,
    "steth_rate": 10,
}


@dataclass(frozen=True)
class Finding:
    """What was found about one subject.

    Attributes:
        subject: a key of the weights.
        quality: the verdict.
        figure: what it rests on, in words.
    """

    subject: str
    quality: Quality
    figure: str

    @property
    def score(self) -> int:
        """0 to 100."""
        return _SCORES[self.quality]


def coverage_quality(coverage: Fraction) -> Quality:
    """Return the verdict on a share of hours that were read: 0.85 and more is healthy, 0.70 and more degraded."""
    if coverage >= _HEALTHY_COVERAGE:
        return "healthy"
    return "degraded" if coverage >= _DEGRADED_COVERAGE else "critical"


def coverage(pairs: Iterable[tuple[str, datetime]], *, addresses: int, hours: int = HOURS) -> Fraction:
    """Return the share of (address, hour) pairs that are there, each counted once.

    Args:
        pairs: address and hour of each stored row; repeated ones count once.
        addresses: how many are watched.
        hours: how many hours were expected.
    """
    expected = addresses * hours
    return min(Fraction(1), Fraction(len(set(pairs)), expected)) if expected else Fraction(0)


def expected_hours(first: datetime, at: datetime) -> int:
    """Return how many hours up to `at` can be there at all, when the first snapshot is of `first`: 24 at most."""
    return max(1, min(HOURS, int((at - first) / timedelta(hours=1)) + 1))


def density(share: Fraction) -> Finding:
    """Judge the coverage of the last 24 hours."""
    return Finding("density", coverage_quality(share), f"{float(share):.1%} of the last 24 hours")


def unknown_share(unknown: int, rows: int, *, allowed: float) -> Finding:
    """Judge how many balances of an hour could not be read: none is healthy, up to the allowed share degraded."""
    share = Fraction(unknown, rows) if rows else Fraction(1)
    quality: Quality = "healthy" if not share else "degraded" if float(share) <= allowed else "critical"
    return Finding("unknown_share", quality, f"{unknown} of {rows} balances unknown")


def block_gap(seconds: float, *, usual: float) -> Finding:
    """Judge how long before the hour its block is, against the largest gap that is usual on the network."""
    share = Fraction(seconds) / Fraction(usual)
    bad = seconds < 0 or share >= _DEGRADED_GAP
    quality: Quality = "critical" if bad else "healthy" if share < _HEALTHY_GAP else "degraded"
    return Finding("block_gap", quality, f"block {seconds:.0f} s before the hour, usual are {usual:.0f}")


def jumped(then: Mapping[str, int], now: Mapping[str, int], *, least: int) -> list[str]:
    """Return the addresses whose balance changed by more than half of what they held an hour before.

    Args:
        then: address to balance, the hour before.
        now: likewise.
        least: what an address must have held to be looked at.
    """
    return sorted(
        address
        for address, held in then.items()
        if held >= least and address in now and Fraction(abs(now[address] - held), held) > _JUMP
    )


def jumps(confirmed: int, different: int) -> Finding:
    """Judge hour-over-hour jumps: real ones may be a panic; one that a second read does not confirm is an error."""
    quality: Quality = "healthy"
    if different or confirmed > _MOST_JUMPS:
        quality = "critical" if different else "degraded"
    elif confirmed:
        quality = "degraded"
    return Finding("jumps", quality, f"{confirmed} confirmed by a second read, {different} not")


def steth_rate(rates: Sequence[tuple[str, Decimal | None]], *, configured: bool) -> Finding:
    """Judge the rates of the last hours: status and value of each; those unknown or out of range are bad."""
    if not configured:
        return Finding("steth_rate", "healthy", "no feed, or nothing read of it yet")
    bad = sum(status != "ok" or usable_rate(rate) is None for status, rate in rates)
    quality: Quality = (
        "healthy" if rates and not bad else "degraded" if bad <= _MOST_BAD_RATES else "critical"
    )
    return Finding("steth_rate", quality, f"{bad} of {len(rates)} unknown, stale or out of range")


def universe_drift(then: frozenset[str], now: frozenset[str]) -> Finding:
    """Judge how much of the watched universe changed since the hour before."""
    if not then:
        return Finding("universe_drift", "healthy", "no hour before")
    share = Fraction(len(then ^ now), max(1, len(then | now)))
    degraded: Quality = "degraded" if share <= _DEGRADED_DRIFT else "critical"
    quality: Quality = "healthy" if share <= _HEALTHY_DRIFT else degraded
    return Finding("universe_drift", quality, f"{len(now - then)} new, {len(then - now)} gone")


def overall(findings: Sequence[Finding]) -> tuple[Quality, int]:
    """Return status and score of all: the worst status, and the weighted mean within the band of that status."""
    qualities: list[Quality] = [finding.quality for finding in findings] or ["critical"]
    worst = max(qualities, key=lambda quality: _SEVERITY[quality])
    weights = sum(_WEIGHTS[finding.subject] for finding in findings)
    mean = sum(_WEIGHTS[f.subject] * f.score for f in findings) // weights if weights else 0
    return worst, min(max(mean, _LOWEST[worst]), _HIGHEST[worst])
