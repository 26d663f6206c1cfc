"""Closed OHLC bars: fetched from the exchange, or rolled up from finer ones where the exchange is not ours to ask.

Symbols of the configured exchange and market are fetched. Where 15m bars of a symbol came from files
(`tracker import-bars`), the files stand: longer bars over them are rolled up from them, complete ones only, and a
fetch begins after the last of them, so that one series never mixes the two.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import dagster as dg
import polars as pl
from pydantic import Field

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import blocks_of_days, days_of, table_asset
from tracker_pipeline.assets.instruments import listed_instruments
from tracker_pipeline.domain.bars import rejected, resample, sane
from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.domain.timeframes import TIMEFRAMES
from tracker_pipeline.partitions import DAILY
from tracker_pipeline.resources.clients import ExchangeResource
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.io_managers import PartitionFrames

if TYPE_CHECKING:
    from tracker_pipeline.resources.bar_source import Fetched

_FINEST: Final = "15m"
# 30 days of 15m bars of 90 symbols are 259,200 rows, about 40 MB; a block is also what a broken run repeats.
_BLOCK: Final = timedelta(days=30)
_MOST_REJECTED: Final = 0.001

_DESCRIPTIONS: Final = {
    "15m": "Closed 15-minute bars of every instrument: what features, regimes and labels are computed from.",
    "1h": "Closed hourly bars of every instrument.",
    "1d": "Closed daily bars of every instrument, UTC days; a day's bar is known 10 minutes after midnight.",
}


class BarsConfig(dg.Config):
    """Which instruments are fetched."""

    symbols: list[str] = Field(
        default=[], description="Unified symbols; all recorded instruments if not given."
    )


def _bars_asset(timeframe: str) -> dg.AssetsDefinition:
    table = BARS[timeframe]

    @table_asset(
        table,
        kinds={"polars"},
        partitions=DAILY,
        deps=[keys.INSTRUMENTS, *([] if timeframe == _FINEST else [keys.OHLC_15M])],
        pool="exchange",
        description=_DESCRIPTIONS[timeframe],
    )
    def bars(
        context: dg.AssetExecutionContext, config: BarsConfig, exchange: ExchangeResource
    ) -> PartitionFrames:
        """Fetch or roll up the bars of the run's days, block by block."""
        return PartitionFrames(_days(context, exchange, timeframe, config.symbols))

    return bars


def _days(
    context: dg.AssetExecutionContext, exchange: ExchangeResource, timeframe: str, symbols: list[str]
) -> Iterator[tuple[str, pl.DataFrame]]:
    with classified():
        wanted = symbols or _own_symbols(exchange)
        for start, end, day_keys in blocks_of_days(context, _BLOCK):
            from_files = scan(
                BARS[_FINEST].name, start, end, predicate=pl.col("source").str.starts_with("file:")
            ).collect()
            frame = pl.concat(
                [
                    _fetched(
                        context,
                        exchange,
                        _fetch_starts(exchange.venue, wanted, from_files, start),
                        timeframe,
                        end,
                    ),
                    _rolled_up(context, from_files, timeframe),
                ]
            )
            yield from days_of(frame, "ts", day_keys)


def _own_symbols(exchange: ExchangeResource) -> list[str]:
    """What is tracked; before instruments were ever materialized, the whole universe as the exchange lists it."""
    tracked = scan("market.instruments").collect()
    if tracked.is_empty():
        tracked = listed_instruments(exchange, None)
    own = (pl.col("venue") == exchange.venue) & (pl.col("market_type") == exchange.market_type)
    return tracked.filter(own, pl.col("listed_to").is_null()).get_column("symbol").sort().to_list()


def _fetch_starts(
    venue: str, symbols: list[str], from_files: pl.DataFrame, start: datetime
) -> dict[datetime, list[str]]:
    """Where the fetch of each symbol begins: at `start`, or after the last bar that came from a file."""
    ends = (
        from_files.filter(pl.col("venue") == venue)
        .group_by("symbol")
        .agg(pl.col("ts").max() + TIMEFRAMES[_FINEST])
    )
    after_files = dict(ends.iter_rows())
    starts: dict[datetime, list[str]] = {}
    for symbol in symbols:
        starts.setdefault(after_files.get(symbol, start), []).append(symbol)
    return starts


def _fetched(
    context: dg.AssetExecutionContext,
    exchange: ExchangeResource,
    starts: dict[datetime, list[str]],
    timeframe: str,
    end: datetime,
) -> pl.DataFrame:
    """Closed bars from the exchange; a symbol that fails fails the block, never leaves a hole."""
    frames = [BARS[timeframe].polars_schema.to_frame()]
    for start, symbols in starts.items():
        if start >= end:
            continue
        answers = exchange.client().bars_many(symbols, timeframe, start, end)
        _refuse_failures(list(answers.values()))
        frame = pl.concat(answer.frame for answer in answers.values())
        frames.append(_with_provenance(_sane(context, frame, timeframe), timeframe, context.run.run_id))
    return pl.concat(frames)


def _sane(context: dg.AssetExecutionContext, frame: pl.DataFrame, timeframe: str) -> pl.DataFrame:
    """Leave out bars that no market can have made, such as a high below the low, and say which.

    A few such bars are the venue's glitches; more than one in a thousand mean that it is not serving bars.
    """
    refused = rejected(frame, timeframe=timeframe)
    if refused.is_empty():
        return frame
    first = refused.row(0, named=True)
    text = f"{refused.height} of {frame.height} bars are not sane, such as {first['symbol']} at {first['ts']}"
    if refused.height > _MOST_REJECTED * frame.height:
        raise PermanentError(f"{text}: {first['reason']}; nothing was stored for these days")
    context.log.warning(f"{text}: {first['reason']}; they were left out")
    return sane(frame, timeframe=timeframe)


def _refuse_failures(answers: list["Fetched"]) -> None:
    failed = [answer for answer in answers if answer.failed]
    if not failed:
        return
    # One permanent failure is not cured by the retry that the transient ones would get.
    permanent = [answer for answer in failed if answer.outcome.name == "FATAL"]
    kind = PermanentError if permanent else TransientError
    first = (permanent or failed)[0]
    raise kind(
        f"{len(failed)} of {len(answers)} symbols could not be fetched ({', '.join(a.symbol for a in failed[:5])}):"
        f" {first.message}"
    )


def _rolled_up(context: dg.AssetExecutionContext, finer: pl.DataFrame, timeframe: str) -> pl.DataFrame:
    """Bars made of the 15m bars of files, where every child is present."""
    if timeframe == _FINEST or finer.is_empty():
        return BARS[timeframe].polars_schema.to_frame()
    complete = TIMEFRAMES[timeframe] // TIMEFRAMES[_FINEST]
    rolled = resample(finer, timeframe).filter(pl.col("n_src") == complete)
    stamped = rolled.with_columns(
        source=pl.lit("rollup"), fetched_at=pl.lit(datetime.now(UTC), pl.Datetime("us", "UTC"))
    )
    return _with_provenance(stamped, timeframe, context.run.run_id)


def _with_provenance(frame: pl.DataFrame, timeframe: str, run_id: str) -> pl.DataFrame:
    return BARS[timeframe].conform(frame.with_columns(revision=pl.lit(1, pl.Int64), run_id=pl.lit(run_id)))


ohlc_15m = _bars_asset("15m")
ohlc_1h = _bars_asset("1h")
ohlc_1d = _bars_asset("1d")
