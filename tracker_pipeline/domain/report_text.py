"""A report as Markdown, from figures alone.

What belongs here: wording and layout. What does not: where figures come from (`operations.report`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal


@dataclass(frozen=True)
class Facts:
    """The figures of one span of time.

    Attributes:
        states: number of series by freshness, at the time of rendering.
        alerts: severity, title and beginning of what is wrong at the time of rendering.
        alerts_over: title, beginning and end of what stopped being wrong in the span.
        runs: number of runs of the span by status.
        coverage_pct: stored share of the 15m bars of the span; None where none is expected yet.
        move: first open, last close, high and low of the reference coin.
        regime: trend and stress at the end of the span.
        scores: hour, look-back, score, band, status, accumulators, distributors and tags of the last hour scored.
        setups: number by strategy.
        labels: strategy, outcome, number and mean net return of labels that ended in the span.
        archived: rows, bytes and files that moved to the lake.
        missing: inputs that were not there.
    """

    start: datetime
    end: datetime
    rendered_at: datetime
    states: Mapping[str, int]
    alerts: Sequence[tuple[str, str, datetime]]
    alerts_over: Sequence[tuple[str, datetime, datetime]]
    runs: Mapping[str, int]
    coverage_pct: float | None
    reference: str
    move: tuple[float, float, float, float] | None
    regime: tuple[str, str] | None
    scores: Sequence[tuple[datetime, int, Decimal | None, str | None, str, int, int, Sequence[str]]]
    setups: Mapping[str, int]
    labels: Sequence[tuple[str, str, int, float | None]]
    archived: tuple[int, int, int]
    instance_bytes: int
    missing: Sequence[str]

    @property
    def healthy_pct(self) -> float | None:
        """Share of series that are fresh or recovered."""
        total = sum(self.states.values())
        good = sum(self.states.get(state, 0) for state in ("fresh", "recovered"))
        return round(100 * good / total, 1) if total else None


def title_of(name: str, facts: Facts) -> str:
    """One line: which report, and how things are."""
    healthy = facts.healthy_pct
    # 90 and 70 % are the bounds of the health rules that traders here are used to.
    word = (
        "nothing collected yet"
        if healthy is None
        else "healthy"
        if healthy >= 90
        else "degraded"
        if healthy >= 70
        else "unhealthy"
    )
    wrong = f", {len(facts.alerts)} alerts open" if facts.alerts else ""
    return f"{name.capitalize()} report of {facts.end:%a %d %b %H:%M %Z}: {word}{wrong}"


def markdown(facts: Facts) -> str:
    """The whole report."""
    return "\n".join(
        [
            f"Span: {facts.start:%Y-%m-%d %H:%M} to {facts.end:%Y-%m-%d %H:%M %Z}.",
            "",
            *_section("Missing", [f"- {text}" for text in facts.missing]),
            *_section("Health", _health(facts)),
            *_section("Market", _market(facts)),
            *_section("Whales", _whales(facts)),
            *_section("Setups and labels", _labels(facts)),
            *_section("Storage", _storage(facts)),
        ]
    )


def _section(name: str, lines: Sequence[str]) -> list[str]:
    return [f"## {name}", *lines, ""] if lines else []


def _health(facts: Facts) -> list[str]:
    states = ", ".join(f"{count} {state}" for state, count in sorted(facts.states.items()))
    share = f" ({facts.healthy_pct:.0f} % fresh)" if facts.healthy_pct is not None else ""
    lines = [f"- series: {states or 'none'}{share}"]
    lines += [f"- **{severity}** since {at:%d %b %H:%M}: {text}" for severity, text, at in facts.alerts]
    lines += [
        f"- over: {text} ({start:%d %b %H:%M} to {end:%H:%M})" for text, start, end in facts.alerts_over
    ]
    runs = ", ".join(f"{count} {status.lower()}" for status, count in sorted(facts.runs.items()))
    return [*lines, f"- runs: {runs or 'none'}"]


def _market(facts: Facts) -> list[str]:
    lines = []
    if facts.move:
        first, last, high, low = facts.move
        change = 100 * (last / first - 1)
        lines.append(
            f"- {facts.reference}: {last:,.2f} ({change:+.2f} %), between {low:,.2f} and {high:,.2f}"
        )
    if facts.regime:
        lines.append(f"- regime: {facts.regime[0]}, stress {facts.regime[1]}")
    if facts.coverage_pct is not None:
        lines.append(f"- 15m bars stored: {facts.coverage_pct:.2f} % of those expected")
    return lines


def _whales(facts: Facts) -> list[str]:
    lines = []
    for at, lookback, score, band, status, gained, lost, tags in facts.scores:
        if status == "no_baseline":
            lines.append(f"- {lookback} h: no snapshot lies that far back of {at:%d %b %H:00} UTC")
            continue
        told = f"{score:+.4f} % ({band})" if score is not None else "unknown"
        named = f", {', '.join(tags)}" if tags else ""
        lines.append(f"- {lookback} h to {at:%d %b %H:00} UTC: {told}, {gained} gained, {lost} lost{named}")
    return lines


def _labels(facts: Facts) -> list[str]:
    lines = [f"- {strategy}: {count} setups" for strategy, count in facts.setups.items()]
    for strategy, outcome, count, mean in facts.labels:
        net = "" if mean is None else f", {mean:+.2f} % net on average"
        lines.append(f"- {strategy}: {count} {outcome}{net}")
    return lines


def _storage(facts: Facts) -> list[str]:
    rows, size, files = facts.archived
    moved = f"- moved to the lake: {rows:,} rows in {files} files, {size / 2**20:.1f} MiB" if files else ""
    own = f"- Dagster's own records: {facts.instance_bytes / 2**20:.0f} MiB"
    return [line for line in (moved, own) if line]
