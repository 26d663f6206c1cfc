"""What every source of bars offers, and how each request to one ends.

What belongs here: the interface, its answers, and the shape of the frames. What does not: any one source
(`exchange.py`, `dumps.py`, `massive.py`, `file_source.py`) and the choice between them (`clients.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, Literal, Protocol

import polars as pl

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.domain.timeframes import GRACE, duration
from tracker_pipeline.resources.errors import PermanentError, PipelineError, TransientError

MarketType = Literal["spot", "linear"]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# What storage adds to a bar when it writes it.
_STORAGE_COLUMNS: Final = ("revision", "run_id")
_VALUES: Final = ("open", "high", "low", "close", "volume", "vwap", "trades")

INSTRUMENT_COLUMNS: Final = pl.Schema(
    {
        **dict.fromkeys(("venue", "symbol", "base", "quote", "native_symbol", "market_type"), pl.String()),
        **dict.fromkeys(("listed_from", "listed_to"), pl.Datetime("us", "UTC")),
    }
)


class Outcome(Enum):
    """How a request for bars ended."""

    OK = "ok"
    EMPTY = "empty"  # the source confirmed that it has no bars in what it covered
    RETRYABLE = "retryable"
    FATAL = "fatal"


@dataclass(frozen=True)
class Capability:
    """What a source can be asked for, by timeframe.

    Attributes:
        page_bars: most bars of one answer; None where a whole window comes at once.
        order: in which bars come within an answer.
        longest_window: that one request may span; None where only `page_bars` limits it.
        oldest: the earliest open that is served; None where history reaches back to the listing, or where only
            asking tells.
        requests_per_second: that the source allows all of us together; None where it sets no limit.
        is_sparse: whether an interval without trades has no bar at all.
    """

    page_bars: int | None
    order: Literal["ascending", "descending", "any"]
    longest_window: timedelta | None = None
    oldest: datetime | None = None
    requests_per_second: float | None = None
    is_sparse: bool = False


@dataclass(frozen=True)
class Fetched:
    """The end of one request for the bars of one symbol.

    A failure carries its message, and asking it for a frame raises: it cannot be taken for an empty answer.

    Attributes:
        venue: ccxt exchange id.
        symbol: unified symbol.
        timeframe: of the bars.
        outcome: how it ended.
        covered_from: beginning of what the source answered for; later than asked where it does not reach back
            that far.
        covered_to: end of what it answered for: the asked end, where bars were not yet closed or published, or
            where a request that failed had come to. A bar of [covered_from, covered_to) that is not in the frame
            does not exist at the source; of anything else nothing is known.
        message: one sentence on a failure or an empty answer, else empty.
    """

    venue: str
    symbol: str
    timeframe: str
    outcome: Outcome
    covered_from: datetime
    covered_to: datetime
    message: str = ""
    _frame: pl.DataFrame = field(default_factory=pl.DataFrame, repr=False)

    @property
    def failed(self) -> bool:
        """Whether it ended as RETRYABLE or FATAL."""
        return self.outcome in (Outcome.RETRYABLE, Outcome.FATAL)

    @property
    def frame(self) -> pl.DataFrame:
        """The closed bars: the bar table's columns without revision and run_id, sorted by key.

        Raises:
            TransientError: the request failed and may work later.
            PermanentError: the request failed and would fail again.
        """
        if self.outcome is Outcome.RETRYABLE:
            raise TransientError(self.message)
        if self.outcome is Outcome.FATAL:
            raise PermanentError(self.message)
        return self._frame

    @property
    def partial(self) -> pl.DataFrame:
        """The closed bars of [covered_from, covered_to), also of a request that broke off there."""
        return self._frame if self._frame.width else bar_columns(self.timeframe).to_frame()


class BarSource(Protocol):
    """Where closed bars come from. Every source is asked through this and nothing else.

    Attributes:
        venue: ccxt exchange id that the bars belong to.
        market_type: spot or linear.
    """

    venue: str
    market_type: MarketType

    def server_time(self) -> datetime:
        """The source's clock, UTC: what decides whether a bar is closed.

        Raises:
            TransientError: it did not answer.
            PermanentError: it refuses to.
        """

    def instruments(self) -> pl.DataFrame:
        """What it lists: `INSTRUMENT_COLUMNS`, sorted by symbol; times it does not tell are null.

        Raises:
            TransientError: it did not answer.
            PermanentError: it refuses to.
        """

    def capability(self, timeframe: str) -> Capability:
        """What can be asked for.

        Raises:
            ValueError: the timeframe is not one of ours.
        """

    def bars_many(
        self, symbols: Sequence[str], timeframe: str, start: datetime, end: datetime
    ) -> dict[str, Fetched]:
        """Fetch the closed bars that open in [start, end); one symbol's failure leaves the others alone.

        Never raises for a failure of the source; see `Fetched`.

        Args:
            symbols: unified symbols.
            timeframe: one of ours.
            start: aware.
            end: aware, exclusive.

        Raises:
            ValueError: a time is naive or the timeframe is not one of ours.
        """

    def close(self) -> None:
        """Give back connections; the source may be asked again afterwards."""


def checked_window(timeframe: str, start: datetime, end: datetime) -> None:
    """Refuse what no source can be asked for.

    Raises:
        ValueError: a time is naive or the timeframe is not one of ours.
    """
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError(f"the window must be of aware times, not {start} to {end}")
    duration(timeframe)


def closed_window(
    timeframe: str, start: datetime, end: datetime, server_time: datetime
) -> tuple[datetime, datetime]:
    """First open and end of opens of the bars of [start, end) that are closed by the source's clock."""
    step = duration(timeframe)
    first, stop = -((EPOCH - start) // step), -((EPOCH - end) // step)
    closed = (server_time - GRACE[timeframe] - EPOCH) // step
    return EPOCH + first * step, EPOCH + min(stop, closed) * step


def failure(
    venue: str, symbol: str, timeframe: str, start: datetime, error: PipelineError, **partial: object
) -> Fetched:
    """A request that ended with `error`; `partial` may give covered_to and _frame of what came before it."""
    outcome = Outcome.RETRYABLE if isinstance(error, TransientError) else Outcome.FATAL
    ends = {"covered_from": start, "covered_to": start, "message": str(error), **partial}
    return Fetched(venue, symbol, timeframe, outcome, **ends)  # type: ignore[arg-type]


def bar_columns(timeframe: str) -> pl.Schema:
    """The columns of a source's frames: those of the bar table but the ones that storage adds."""
    return pl.Schema(
        {c.name: c.type.polars for c in BARS[timeframe].columns if c.name not in _STORAGE_COLUMNS}
    )


def bar_frame(
    rows: pl.DataFrame, *, venue: str, symbol: str, timeframe: str, source: str, fetched_at: datetime
) -> pl.DataFrame:
    """Rows with ts (UTC) and the values that the source has, as a source's frame, sorted, each key once.

    Of a bar that occurs twice, as where pages overlap, the later row holds.
    """
    known: dict[str, pl.Expr] = {
        "venue": pl.lit(venue),
        "symbol": pl.lit(symbol),
        "ts": pl.col("ts"),
        **{name: pl.col(name) for name in _VALUES if name in rows.columns},
        "source": pl.lit(source),
        "fetched_at": pl.lit(fetched_at),
        "available_at": pl.col("ts") + duration(timeframe) + GRACE[timeframe],
    }
    return (
        rows.unique("ts", keep="last", maintain_order=True)
        .select(
            known.get(name, pl.lit(None)).cast(dtype).alias(name)
            for name, dtype in bar_columns(timeframe).items()
        )
        .sort("venue", "symbol", "ts")
    )
