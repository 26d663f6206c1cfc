"""Bars as frames: which are closed, which are sane, how they roll up, and where they are missing.

What belongs here: rules on bars of one timeframe at a time. What does not: fetching and storing them, and what
is computed from them (`features.py`, `regimes.py`).

Frames have the columns of the bar tables of `schemas`. Times must be aware; `ts` is the open.
"""

from datetime import datetime, timedelta
from typing import Final

import polars as pl

from tracker_pipeline.domain.timeframes import GRACE, TIMEFRAMES, duration

KEY: Final = ("venue", "symbol", "ts")
_INSTRUMENT: Final = ("venue", "symbol")
_INSTRUMENT_TEXT: Final = (pl.col("venue").cast(pl.String), pl.col("symbol").cast(pl.String))
_PRICES: Final = ("open", "high", "low", "close")
_TIME: Final = pl.Datetime("us", "UTC")

_EARLIEST: Final = datetime.fromisoformat("2010-01-01T00:00:00+00:00")  # no coin traded on an exchange before
# Clocks of venues and of ours differ by seconds; a bar that opens this far ahead is a wrong time unit or zone.
_CLOCK_SKEW: Final = timedelta(minutes=2)


def closed(
    bars: pl.DataFrame, *, now: datetime, grace: timedelta, timeframe: str | None = None
) -> pl.DataFrame:
    """Return the bars with `ts + timeframe + grace <= now`, sorted by key.

    Args:
        bars: bars of one timeframe, in any order.
        now: the exchange's time, aware.
        grace: the wait after a bar's end before it counts as final.
        timeframe: theirs; without it, it is read off the frame, see `timeframe_of`.

    Raises:
        ValueError: a time is naive, or the timeframe cannot be told.
    """
    _require_aware(now=now)
    frame = _in_utc(bars)
    if frame.is_empty():
        return frame
    length = duration(timeframe or timeframe_of(frame, grace=grace))
    return _sorted(frame.filter(pl.col("ts") + length + grace <= now))


def timeframe_of(bars: pl.DataFrame, *, grace: timedelta = timedelta(0)) -> str:
    """Tell the timeframe of bars that carry none.

    `available_at`, where present, is the end of the bar plus a grace (the standing one, or `grace`), which names
    the timeframe even of a single bar. Failing that, it is the longest timeframe that fits both the smallest
    step between two bars of a symbol and the alignment of all opens; with holes between all bars that can be
    too long, and then a bar counts as closed later than it could, never earlier.

    Raises:
        ValueError: neither tells.
    """
    frame = _in_utc(bars)
    promised = _promised_timeframe(frame, grace)
    if promised is not None:
        return promised
    symbols = [name for name in _INSTRUMENT if name in frame.columns]
    step = pl.col("ts").diff()
    steps = frame.unique([*symbols, "ts"]).sort("ts").select(step.over(symbols) if symbols else step)
    smallest = steps.to_series().min()
    fitting = [
        name
        for name, length in TIMEFRAMES.items()
        if isinstance(smallest, timedelta)
        and length <= smallest
        and frame.select((pl.col("ts").dt.truncate(name) == pl.col("ts")).all()).item()
    ]
    if not fitting:
        raise ValueError("the timeframe of these bars cannot be told from them; name it")
    return fitting[-1]


def resample(bars: pl.DataFrame, timeframe: str) -> pl.DataFrame:
    """Roll bars of one finer timeframe up to `timeframe`.

    First open, highest high, lowest low, last close, sums of volume and trades, the vwap weighted by volume.
    `vwap` and `trades` are null where a source bar's are unknown; `n_src` counts the source bars used. A bucket
    with missing source bars is emitted with the `n_src` it has: whether that is enough is the caller's to say,
    since an absent bar may mean that nothing traded. Volume is rounded to 14 significant digits, which removes
    what adding binary fractions leaves behind: of real hours rolled up from minutes, 30 % equalled the venue's
    own volume without it and all do with it.

    Args:
        bars: source bars, each key once. Beside `ts` and the prices, columns may be absent.
        timeframe: what to roll up to.

    Returns:
        One row for each venue, symbol and bucket, with the columns of the bar tables that `bars` has or that
        follow from it, and `source` = "rollup" where `bars` has a source.

    Raises:
        ValueError: a key occurs twice with different values, or the bars are not finer than `timeframe`.
    """
    length = duration(timeframe)
    frame = _in_utc(bars)
    promised = _promised_timeframe(frame, timedelta(0))
    if promised is not None and duration(promised) >= length:
        raise ValueError(f"{promised} bars do not roll up to {timeframe}")
    keys = [name for name in _INSTRUMENT if name in frame.columns]
    values = [c for c in (*_PRICES, "volume", "vwap", "trades") if c in frame.columns]
    frame = frame.unique([*keys, "ts", *values], keep="first", maintain_order=True)
    if frame.select(pl.struct(*keys, "ts").is_duplicated().any()).item():
        raise ValueError("a bar occurs twice with different values; decide which one holds before rolling up")
    bucket = pl.col("ts").dt.truncate(timeframe)
    rolled = (
        frame.sort(*keys, "ts")
        .group_by(*keys, bucket, maintain_order=True)
        .agg(_rolled_columns(frame.columns))
        .with_columns(available_at=pl.col("ts") + length + GRACE[timeframe])
    )
    return _sorted(rolled)


def find_gaps(
    bars: pl.DataFrame, *, timeframe: str, start: datetime, end: datetime, listed: pl.DataFrame
) -> pl.DataFrame:
    """Find the runs of missing bars of each listed symbol: at the head, inside, at the tail, or all of them.

    A bar is expected where it lies wholly within [start, end) and wholly within an interval of its listing.

    Args:
        bars: bars of one timeframe; symbols that are not in `listed`, repeated bars and bars off the grid of
            the timeframe do not matter.
        timeframe: theirs.
        start: beginning of the window, aware.
        end: its end, exclusive.
        listed: venue, symbol, listed_from, listed_to; null is open-ended. A symbol that was delisted and came
            back has several rows.

    Returns:
        venue, symbol, gap_start, gap_end (half-open, on the grid) and bars, the number missing.

    Raises:
        ValueError: a time is naive.
    """
    _require_aware(start=start, end=end)
    length = duration(timeframe)
    spans = expected_spans(listed, timeframe, start, end)
    present = (
        _in_utc(bars)
        .select(*_INSTRUMENT_TEXT, "ts")
        .filter(pl.col("ts").dt.truncate(timeframe) == pl.col("ts"))
        .join(spans, on=_INSTRUMENT)
        .filter(pl.col("ts").is_between("span_start", "span_end", closed="left"))
    )
    # The end of a span stands for a bar that is always there, so that a missing tail is a hole like any other.
    stops = spans.with_columns(ts=pl.col("span_end"))
    span = (*_INSTRUMENT, "span_start")
    before = (pl.col("ts") + length).shift(1).over(span, order_by="ts").fill_null(pl.col("span_start"))
    missing = pl.col("ts") - pl.col("gap_start")
    return (
        pl.concat([present, stops], how="diagonal")
        .with_columns(gap_start=before)
        .filter(pl.col("gap_start") < pl.col("ts"))
        .select(
            *_INSTRUMENT,
            "gap_start",
            pl.col("ts").alias("gap_end"),
            (missing.dt.total_seconds() // int(length.total_seconds())).alias("bars"),
        )
        .sort(*_INSTRUMENT, "gap_start")
    )


def rejected(bars: pl.DataFrame, *, timeframe: str, now: datetime | None = None) -> pl.DataFrame:
    """Return the bars that must not be stored, with the column `reason`, sorted by key.

    A bar is refused when a price or the volume is unknown or NaN, a price is not positive, the volume is
    negative, high and low do not span open and close, it does not open on the grid of `timeframe`, or it opens
    before 2010 or after `now` (where given) by more than two minutes.
    """
    return _judged(bars, timeframe, now).filter(pl.col("reason") != "")


def sane(bars: pl.DataFrame, *, timeframe: str, now: datetime | None = None) -> pl.DataFrame:
    """Return the bars that `rejected` does not name, sorted by key."""
    return _judged(bars, timeframe, now).filter(pl.col("reason") == "").drop("reason")


def _judged(bars: pl.DataFrame, timeframe: str, now: datetime | None) -> pl.DataFrame:
    """All bars with the column `reason`, empty for a sane one."""
    duration(timeframe)
    numbers = [pl.col(name).cast(pl.Float64) for name in (*_PRICES, "volume")]
    unknown = pl.any_horizontal(n.is_null() | n.is_nan() | n.is_infinite() for n in numbers)
    prices = [pl.col(name) for name in _PRICES]
    top, bottom = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    reasons = {
        "a price or the volume is unknown": unknown,
        "a price is not positive": pl.any_horizontal(p <= 0 for p in prices),
        "the volume is negative": pl.col("volume") < 0,
        "high and low do not span open and close": (pl.col("high") < top) | (pl.col("low") > bottom),
        f"it does not open on the {timeframe} grid": pl.col("ts").dt.truncate(timeframe) != pl.col("ts"),
        "it opens before 2010": pl.col("ts") < _EARLIEST,
    }
    if now is not None:
        _require_aware(now=now)
        reasons["it opens in the future"] = pl.col("ts") > now + _CLOCK_SKEW
    named = [pl.when(rule.fill_null(False)).then(pl.lit(text)) for text, rule in reasons.items()]
    return _sorted(_in_utc(bars).with_columns(reason=pl.concat_str(named, separator="; ", ignore_nulls=True)))


def _promised_timeframe(frame: pl.DataFrame, grace: timedelta) -> str | None:
    """The timeframe whose end plus grace `available_at` is, or None where that names none."""
    if "available_at" not in frame.columns:
        return None
    waits = frame.select((pl.col("available_at") - pl.col("ts")).min()).item()
    for name, length in TIMEFRAMES.items():
        if waits in (length + GRACE[name], length + grace, length):
            return name
    return None


def _rolled_columns(columns: list[str]) -> list[pl.Expr]:
    """How each column that is present rolls up."""
    volume = pl.col("volume")
    weighted = (pl.col("vwap") * volume).sum() / volume.sum()
    known = (pl.col("vwap").is_not_null() | (volume == 0)).all() & (volume.sum() > 0)
    forms = {
        "open": pl.col("open").first(),
        "high": pl.col("high").max(),
        "low": pl.col("low").min(),
        "close": pl.col("close").last(),
        # Beyond 1e13 the last digits are whole coins and their sum is exact as it is.
        "volume": pl.when(volume.sum() < 1e13).then(volume.sum().round_sig_figs(14)).otherwise(volume.sum()),
        "vwap": pl.when(known).then(weighted),
        "trades": pl.when(pl.col("trades").is_not_null().all()).then(pl.col("trades").sum()),
        "n_src": pl.len().cast(pl.Int64),
        "source": pl.lit("rollup"),
        "fetched_at": pl.col("fetched_at").max(),
    }
    return [form.alias(name) for name, form in forms.items() if name in columns or name == "n_src"]


def expected_spans(listed: pl.DataFrame, timeframe: str, start: datetime, end: datetime) -> pl.DataFrame:
    """Where bars are expected: venue, symbol, span_start, span_end on the grid, none overlapping another."""
    length = duration(timeframe)
    bound = pl.Series("bound", [start, end]).dt.convert_time_zone("UTC").cast(_TIME)
    first, stop = pl.lit(bound[0], dtype=_TIME), pl.lit(bound[1], dtype=_TIME)

    def ceiled(moment: pl.Expr) -> pl.Expr:
        floor = moment.dt.truncate(timeframe)
        return pl.when(floor == moment).then(floor).otherwise(floor + length)

    clipped = (
        listed.select(*_INSTRUMENT_TEXT, _utc("listed_from", listed), _utc("listed_to", listed))
        .with_columns(
            span_start=ceiled(pl.max_horizontal("listed_from", first)),
            span_end=pl.min_horizontal("listed_to", stop).dt.truncate(timeframe),
        )
        .filter(pl.col("span_start") < pl.col("span_end"))
    )
    # Intervals that touch or overlap are one: a new one begins where all before it have ended.
    reach = pl.col("span_end").cum_max().shift(1)
    begins = (pl.col("span_start") > reach).fill_null(True).cum_sum().over(_INSTRUMENT, order_by="span_start")
    return (
        clipped.with_columns(run=begins)
        .group_by(*_INSTRUMENT, "run")
        .agg(pl.col("span_start").min(), pl.col("span_end").max())
        .drop("run")
    )


def _in_utc(bars: pl.DataFrame) -> pl.DataFrame:
    """The frame with its times in UTC and microseconds."""
    present = [name for name in ("ts", "fetched_at", "available_at") if name in bars.columns]
    return bars.with_columns(_utc(name, bars) for name in present)


def _utc(name: str, frame: pl.DataFrame) -> pl.Expr:
    """A time column in UTC; a column that is null throughout may have no type yet.

    Raises:
        ValueError: the column is naive or no time at all.
    """
    dtype = frame.schema[name]
    if dtype == pl.Null:
        return pl.col(name).cast(_TIME)
    if not isinstance(dtype, pl.Datetime) or dtype.time_zone is None:
        raise ValueError(f"{name} must hold aware times, not {dtype}")
    return pl.col(name).dt.convert_time_zone("UTC").cast(_TIME)


def _sorted(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort([name for name in KEY if name in frame.columns], maintain_order=True)


def _require_aware(**moments: datetime) -> None:
    for name, moment in moments.items():
        if moment.tzinfo is None:
            raise ValueError(f"{name} must be an aware time, not {moment}")
