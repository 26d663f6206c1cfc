"""Bars from files: public dumps, exports of other tools, our own exports.

What belongs here: what of a file may be loaded, and what is left out and why. What does not: formats
(`bar_file_formats.py`), names (`symbols.py`), and storing bars.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from tracker_pipeline.domain.bars import KEY, rejected, sane
from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.domain.timeframes import GRACE, TIMEFRAMES, duration
from tracker_pipeline.resources.bar_file_formats import RawBars, collect, open_bar_file
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.resources.symbols import MarketType, NameFacts, facts_of_name, unified_symbol

_VALUES: Final = ("open", "high", "low", "close", "volume", "vwap", "trades")
_STORAGE_COLUMNS: Final = ("revision", "run_id")  # what storage adds when it writes a bar
# Rows held in memory at once, about 8 MB with what is made of them; a file beyond it is read a few symbols at a
# time, and a symbol beyond it a few days at a time.
_BATCH_ROWS: Final = 20_000
# A bar that opens further ahead than clocks differ does not prove that the one before it is closed.
_AHEAD: Final = timedelta(minutes=2)

_UNPROVEN: Final = (
    "the file's last bar: it may not have been closed yet (--fetched-at TIME can prove that it was)"
)
_NOT_CLOSED: Final = "it was not closed yet when the file was fetched"
_CONTRADICTED: Final = "it occurs more than once with different values"


@dataclass(frozen=True)
class BarFileOptions:
    """What the user says about a file where the file does not: columns win over these, these over its name.

    Attributes:
        venue: ccxt exchange id.
        market_type: spot or linear.
        symbol: native or unified.
        timeframe: of all its bars.
        fetched_at: when the file was fetched from the venue, aware; bars that were closed then are.
    """

    venue: str | None = None
    market_type: MarketType | None = None
    symbol: str | None = None
    timeframe: str | None = None
    fetched_at: datetime | None = None


@dataclass(frozen=True)
class FileBars:
    """Bars of one timeframe from one file; of a large file, those of some of its symbols.

    Attributes:
        path: the file.
        timeframe: of the bars, as the file spells it.
        frame: what may be loaded: the bar table's columns without revision and run_id, each key once, sorted.
        left_out: what may not: venue, symbol, ts, open, high, low, close, volume, reason, and whether it is rejected:
            not sane or contradicted, rather than merely not known to be closed or of no use here.
        complete: whether the file ends where its period does, as a dump does by definition.
    """

    path: Path
    timeframe: str
    frame: pl.DataFrame
    left_out: pl.DataFrame
    complete: bool


def read_bar_file(path: Path, options: BarFileOptions | None = None) -> Iterator[FileBars]:
    """Read a bar file, timeframe by timeframe, in parts that fit in memory.

    Left out, with a reason each: the last bar of every symbol unless the file is a dump or `fetched_at` proves
    it closed; bars that are not sane; bars that occur with contradicting values (identical repeats count once);
    and all bars of a timeframe that is not ours.

    Args:
        path: a file in a format of `open_bar_file`.
        options: what the file itself does not tell.

    Raises:
        PermanentError: the file cannot be read, or venue, market, symbol or timeframe cannot be told.
    """
    options = options or BarFileOptions()
    if options.fetched_at is not None and options.fetched_at.tzinfo is None:
        raise PermanentError(f"--fetched-at {options.fetched_at} has no time zone; write it as UTC, with a Z")
    path = Path(path)
    facts = facts_of_name(path)
    if facts.other_series is not None:
        raise PermanentError(
            f"{path.name} holds {facts.other_series} prices, not bars of trades; leave it out"
        )
    with open_bar_file(path) as raw:
        is_dump = raw.is_dump and facts.is_dump
        rows = _labelled(raw, path, options, facts)
        for timeframe, chosen, last in _parts(rows, path):
            part = _unified(collect(rows.filter(chosen).join(last.lazy(), on="native"), path), path)
            yield _judged(part.drop("timeframe"), path, timeframe, options, complete=is_dump)


def _labelled(raw: RawBars, path: Path, options: BarFileOptions, facts: NameFacts) -> pl.LazyFrame:
    """The rows with venue, market_type, native and timeframe from columns, options or the name."""
    columns = set(raw.rows.collect_schema().names())
    market_type = options.market_type or facts.market_type
    if market_type is None and raw.is_dump:
        # Binance's futures dumps have a header row and its spot dumps do not.
        market_type = "linear" if raw.has_header else "spot"
    told = {
        "venue": options.venue or facts.venue,
        "market_type": market_type,
        "symbol": options.symbol or facts.symbol,
        "timeframe": options.timeframe or facts.timeframe,
    }
    for name, option in (("venue", "--venue"), ("symbol", "--symbol")):
        if name not in columns and told[name] is None:
            raise PermanentError(f"{path.name} does not say its {name}; add {option}")
    labelled = raw.rows.with_columns(
        pl.lit(text, pl.String).alias(name) for name, text in told.items() if name not in columns
    ).rename({"symbol": "native"})
    if "timeframe" in columns or told["timeframe"] is not None:
        return labelled
    return labelled.with_columns(timeframe=pl.lit(_spacing(labelled, path)))


def _spacing(rows: pl.LazyFrame, path: Path) -> str:
    """The timeframe of rows that do not say it: the smallest step between two bars of a symbol."""
    times = collect(rows.select("native", "ts"), path).unique().sort("ts")
    smallest = times.select(pl.col("ts").diff().over("native").min()).item()
    if not isinstance(smallest, timedelta):
        raise PermanentError(f"{path.name} does not say its timeframe and holds no two bars; add --timeframe")
    ours = next((name for name, length in TIMEFRAMES.items() if length == smallest), None)
    return ours or f"{smallest.total_seconds() / 60:g}m"


def _parts(rows: pl.LazyFrame, path: Path) -> Iterator[tuple[str, pl.Expr, pl.DataFrame]]:
    """The file in parts that fit in memory: timeframe, which rows, and the last bar of each of their symbols.

    Raises:
        PermanentError: a row has no time, symbol or timeframe.
    """
    now = datetime.now(UTC) + _AHEAD
    days = collect(
        rows.group_by("timeframe", "native", pl.col("ts").dt.truncate("1d").alias("day")).agg(
            pl.len(), pl.col("ts").filter(pl.col("ts") <= now).max().alias("last")
        ),
        path,
    ).sort("timeframe", "native", "day")
    if days["day"].null_count():
        raise PermanentError(
            f"{path.name} has times that are none; write them as 2024-01-31T12:00:00Z or epoch ms"
        )
    if days.select(pl.any_horizontal(pl.col("timeframe", "native").is_null()).any()).item():
        raise PermanentError(f"{path.name} has rows without a symbol or a timeframe; fill them in")
    for (timeframe,), part in days.group_by("timeframe", maintain_order=True):
        last = part.group_by("native").agg(pl.col("last").max())
        for symbols, bounds in _batches(part):
            chosen = (pl.col("timeframe") == timeframe) & pl.col("native").is_in(symbols)
            if bounds is not None:
                chosen &= pl.col("ts").is_between(*bounds, closed="left")
            yield str(timeframe), chosen, last.filter(pl.col("native").is_in(symbols))


def _batches(days: pl.DataFrame) -> Iterator[tuple[list[str], tuple[datetime, datetime] | None]]:
    """Symbols whose rows are few enough together, or one with some of its days: [first, end)."""
    sizes = days.group_by("native", maintain_order=True).agg(pl.col("len").sum())
    large = sizes.filter(pl.col("len") > _BATCH_ROWS)["native"].to_list()
    rest = sizes.filter(~pl.col("native").is_in(large))
    for _, symbols in rest.with_columns(batch=_batch_numbers(rest)).group_by("batch", maintain_order=True):
        yield symbols["native"].to_list(), None
    for symbol in large:
        mine = days.filter(native=symbol)
        for _, some in mine.with_columns(batch=_batch_numbers(mine)).group_by("batch", maintain_order=True):
            yield [symbol], (some["day"][0], some["day"][-1] + timedelta(days=1))


def _batch_numbers(sizes: pl.DataFrame) -> pl.Series:
    """Rising numbers that are alike for neighbours who have `_BATCH_ROWS` together."""
    return (sizes["len"].cum_sum() - sizes["len"]) // _BATCH_ROWS


def _unified(rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The rows with unified symbols.

    Raises:
        PermanentError: a symbol cannot be read.
    """
    pairs = rows.select("native", "market_type").unique()
    symbols = [unified_symbol(native, market) for native, market in pairs.iter_rows()]
    named = pairs.with_columns(symbol=pl.Series(symbols, dtype=pl.String))
    unknown = named.filter(pl.col("symbol").is_null())
    if len(unknown):
        native, market = unknown.select("native", "market_type").row(0)
        problem = "is not a pair that is known" if market else "may be spot or linear"
        raise PermanentError(f"{path.name}: {native} {problem}; add --market and, for a single one, --symbol")
    return rows.join(named, on=["native", "market_type"], nulls_equal=True).drop("native", "market_type")


def _judged(
    rows: pl.DataFrame, path: Path, timeframe: str, options: BarFileOptions, *, complete: bool
) -> FileBars:
    if timeframe not in TIMEFRAMES:
        reason = pl.lit(f"{timeframe} is not one of the timeframes {', '.join(TIMEFRAMES)}")
        nothing = _bars(rows.clear(), path, "1m", options)
        return FileBars(path, timeframe, nothing, _left_out(rows, reason, rejected=False), complete)
    now = datetime.now(UTC)
    refused = rejected(rows, timeframe=timeframe, now=now)
    kept = sane(rows, timeframe=timeframe, now=now)
    proven = pl.lit(value=True) if complete else _proven(timeframe, options.fetched_at)
    unproven = kept.filter(~proven)
    kept = kept.filter(proven).unique([*KEY, *_VALUES], keep="first", maintain_order=True)
    contradicted = pl.struct(KEY).is_duplicated()
    left_out = pl.concat(
        [
            _left_out(refused, pl.col("reason"), rejected=True),
            _left_out(kept.filter(contradicted), pl.lit(_CONTRADICTED), rejected=True),
            _left_out(unproven, pl.lit(_NOT_CLOSED if options.fetched_at else _UNPROVEN), rejected=False),
        ]
    )
    frame = _bars(kept.filter(~contradicted), path, timeframe, options)
    return FileBars(path, timeframe, frame, left_out.unique().sort(KEY), complete)


def _proven(timeframe: str, fetched_at: datetime | None) -> pl.Expr:
    """Whether a bar of a file that is no dump is known to be closed."""
    if fetched_at is None:
        return pl.col("ts") < pl.col("last")
    return pl.col("ts") + duration(timeframe) + GRACE[timeframe] <= fetched_at


def _left_out(rows: pl.DataFrame, reason: pl.Expr, *, rejected: bool) -> pl.DataFrame:
    columns = (*KEY, "open", "high", "low", "close", "volume")
    return rows.select(*columns, reason.alias("reason"), pl.lit(rejected).alias("rejected"))


def _bars(rows: pl.DataFrame, path: Path, timeframe: str, options: BarFileOptions) -> pl.DataFrame:
    """Rows as bars of the declared columns."""
    declared = {c.name: c.type.polars for c in BARS[timeframe].columns if c.name not in _STORAGE_COLUMNS}
    known = {
        **{name: pl.col(name) for name in (*KEY, *_VALUES)},
        "source": pl.lit(f"file:{path.name}"),
        "fetched_at": pl.lit(options.fetched_at or datetime.now(UTC)),
        "available_at": pl.col("ts") + duration(timeframe) + GRACE[timeframe],
    }
    return rows.select(
        known.get(name, pl.lit(None)).cast(dtype).alias(name) for name, dtype in declared.items()
    ).sort(KEY)
