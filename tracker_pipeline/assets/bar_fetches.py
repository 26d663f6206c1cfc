"""Bars asked of the exchange: every symbol that answered is kept, every one that did not is named.

What belongs here: from windows to bars, evidence of what does not exist, and failures. What does not: requests
(`resources.exchange`), storing.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import polars as pl

from tracker_pipeline.assets.bar_review import EVIDENCE
from tracker_pipeline.domain.bars import find_gaps, rejected, sane
from tracker_pipeline.domain.timeframes import duration
from tracker_pipeline.resources.bar_source import Fetched, Outcome, bar_columns
from tracker_pipeline.resources.clients import ExchangeResource
from tracker_pipeline.resources.errors import PermanentError, PipelineError, TransientError
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.quarantine import quarantine

_MOST_REJECTED: Final = 0.001

Window = tuple[datetime, datetime]


@dataclass
class Fetch:
    """What came of asking for bars.

    Attributes:
        frame: sane closed bars, without revision and run_id.
        evidence: what the source said about bars that it did not give, see `bar_review.EVIDENCE`.
        failed: what went wrong, by symbol.
        refused: bars that no market can have made, with the reason.
    """

    frame: pl.DataFrame
    evidence: pl.DataFrame
    failed: dict[str, PipelineError] = field(default_factory=dict)
    refused: pl.DataFrame = field(default_factory=pl.DataFrame)

    @classmethod
    def nothing(cls, timeframe: str) -> "Fetch":
        """What comes of not asking."""
        return cls(bar_columns(timeframe).to_frame(), EVIDENCE.to_frame())


def fetch(
    exchange: ExchangeResource,
    wanted: Mapping[Window, Sequence[str]],
    timeframe: str,
    *,
    listing_unknown: Collection[str] = (),
    delisted: Collection[str] = (),
) -> Fetch:
    """Ask for the bars of windows.

    Args:
        exchange: which is asked.
        wanted: the symbols of each window.
        timeframe: of the bars.
        listing_unknown: symbols of which nobody knows since when they are listed. That the exchange serves nothing so
            early then tells that they were not, and is no failure.
        delisted: symbols that are not listed any more. That the exchange does not know them is no failure; what is
            missing of them stays so in the table of gaps.
    """
    asked = [
        (window, list(exchange.client().bars_many(symbols, timeframe, *window).values()))
        for window, symbols in wanted.items()
        if symbols and window[0] < window[1]
    ]
    reaches_back = _reaches_back(exchange, timeframe)
    excused = set(listing_unknown) if reaches_back else set()
    failed = {
        answer.symbol: _failure(answer)
        for (_, end), answers in asked
        for answer in answers
        if answer.failed
        and not (answer.symbol in excused and _is_before_all(answer, end))
        and not (answer.symbol in delisted and answer.outcome is Outcome.FATAL)
    }
    given = [answer.partial for _, answers in asked for answer in answers]
    empty = bar_columns(timeframe).to_frame()
    frame = pl.concat([empty, *(bars.select(empty.columns) for bars in given)])
    refused = rejected(frame, timeframe=timeframe)
    return Fetch(
        frame=sane(frame, timeframe=timeframe) if refused.height else frame,
        evidence=_evidence(asked, frame, timeframe, reaches_back=reaches_back),
        failed=failed,
        refused=refused,
    )


def keep_refused(done: Fetch, timeframe: str, source: str, run_id: str) -> None:
    """Keep the bars that no market can have made, with the reason, where somebody can look at them."""
    if done.refused.height:
        with connect() as connection:
            quarantine(connection, done.refused, timeframe=timeframe, source=source, run_id=run_id)


def refuse_nonsense(done: Fetch) -> str:
    """Tell which bars were left out because no market can have made them; empty where none was.

    A few such bars are the venue's glitches.

    Raises:
        PermanentError: they are more than one in a thousand, so that the venue is not serving bars.
    """
    if done.refused.is_empty():
        return ""
    first = done.refused.row(0, named=True)
    asked = done.frame.height + done.refused.height
    text = (
        f"{done.refused.height} of {asked} bars are not sane and went to market.bar_quarantine, such as"
        f" {first['symbol']} at {first['ts']}"
    )
    if done.refused.height > _MOST_REJECTED * asked:
        raise PermanentError(f"{text}: {first['reason']}; nothing was stored for these days")
    return f"{text}: {first['reason']}; they were left out"


def failure_of(failed: Mapping[str, PipelineError], *, asked: int, timeframe: str) -> PipelineError:
    """One failure that names the symbols that could not be fetched.

    One permanent failure is not cured by the retry that transient ones would get, and yet the retry is worth it for
    these.
    """
    transient = [error for error in failed.values() if isinstance(error, TransientError)]
    kind = TransientError if transient else PermanentError
    first = next(iter(transient or failed.values()))
    names = ", ".join(sorted(failed)[:10]) + (" and more" if len(failed) > 10 else "")
    return kind(
        f"{len(failed)} of {asked} symbols could not be fetched ({names}): {first}. The {timeframe} bars of the"
        " others are stored, and those that are missing are in market.bar_gaps"
    )


def _failure(answer: Fetched) -> PipelineError:
    kind = TransientError if answer.outcome.name == "RETRYABLE" else PermanentError
    return kind(answer.message)


def _reaches_back(exchange: ExchangeResource, timeframe: str) -> bool:
    """Whether the source serves history from the listing on, so that what it does not serve was before that.

    Some venues serve a number of bars back from now only, and files and dumps what was put there.
    """
    return (
        get_config().market.source.kind == "exchange"
        and exchange.client().capability(timeframe).oldest is None
    )


def _is_before_all(answer: Fetched, end: datetime) -> bool:
    """Whether the source has nothing so early and something later."""
    return answer.covered_from >= end


def _evidence(
    asked: Iterable[tuple[Window, list[Fetched]]],
    frame: pl.DataFrame,
    timeframe: str,
    *,
    reaches_back: bool,
) -> pl.DataFrame:
    """What sources said about bars they did not give: confirmed holes, what they do not serve, failures."""
    # What a venue with a limited reach does not serve now it will not serve later; a file may still be put there.
    flags = {"not_served": get_config().market.source.kind == "exchange", "before_listing": reaches_back}
    said: list[dict[str, object]] = []
    for (start, end), answers in asked:
        for answer in answers:
            who = {"venue": answer.venue, "symbol": answer.symbol}
            if answer.covered_from > start:
                text = (
                    answer.message
                    or f"{answer.venue} serves none from before {answer.covered_from:%Y-%m-%d %H:%M}"
                )
                before = {"gap_start": start, "gap_end": min(answer.covered_from, end)}
                said.append({**who, **before, "error": text, **flags})
            if answer.failed and answer.covered_to < end and not _is_before_all(answer, end):
                said.append({**who, "gap_start": answer.covered_to, "gap_end": end, "error": answer.message})
    told = pl.DataFrame(said, schema=EVIDENCE)
    told = told.with_columns(_on_grid("gap_start", timeframe), _on_grid("gap_end", timeframe))
    return pl.concat([_confirmed_holes(asked, frame, timeframe), told])


def _confirmed_holes(
    asked: Iterable[tuple[Window, list[Fetched]]], frame: pl.DataFrame, timeframe: str
) -> pl.DataFrame:
    """The bars of the windows that were answered for which are not in the answer: they do not exist."""
    covered = [
        (answer.venue, answer.symbol, answer.covered_from, answer.covered_to)
        for _, answers in asked
        for answer in answers
        if answer.covered_from < answer.covered_to
    ]
    if not covered:
        return EVIDENCE.to_frame()
    time = EVIDENCE["gap_start"]
    schema = {"venue": pl.String(), "symbol": pl.String(), "listed_from": time, "listed_to": time}
    holes = find_gaps(
        frame,
        timeframe=timeframe,
        start=min(one[2] for one in covered),
        end=max(one[3] for one in covered),
        listed=pl.DataFrame(covered, schema=schema, orient="row"),
    )
    return holes.select(
        "venue",
        "symbol",
        "gap_start",
        "gap_end",
        pl.col("venue").alias("confirmed_by"),
        pl.lit(value=False).alias("not_served"),
        pl.lit(value=False).alias("before_listing"),
        pl.lit(None, pl.String).alias("error"),
    )


def _on_grid(column: str, timeframe: str) -> pl.Expr:
    floor = pl.col(column).dt.truncate(timeframe)
    return pl.when(floor == pl.col(column)).then(floor).otherwise(floor + duration(timeframe)).alias(column)
