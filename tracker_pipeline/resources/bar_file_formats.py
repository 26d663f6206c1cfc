"""Bar files of any supported format as lazy frames with one set of columns.

What belongs here: CSV, gzip, zip, Parquet and Feather, header rows, units of time, names of columns. What does
not: which bars of a file may be loaded (`bar_files.py`) and what its name tells (`symbols.py`).
"""

import hashlib
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol

import polars as pl

from tracker_pipeline.resources.errors import PermanentError

# The twelve columns of Binance's kline dumps; spot dumps come without a header row.
_DUMP_COLUMNS: Final = (
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "ignore",
)
_NUMBERS: Final = ("open", "high", "low", "close", "volume")
_TIMES: Final = ("ts", "open_time", "date")
_TEXTS: Final = {
    "venue": ("venue", "exchange"),
    "market_type": ("market_type", "market"),
    "symbol": ("symbol",),
    "timeframe": ("timeframe", "tf"),
}
_OPTIONAL_NUMBERS: Final = {
    "vwap": ("vwap",),
    "quote_volume": ("quote_volume", "turnover", "quote_asset_volume"),
    "trades": ("trades", "count", "number_of_trades"),
}
_UTC: Final = pl.Datetime("us", "UTC")
# Rows of a CSV are kept in groups of this size, so that a part of them can be read without the rest.
_GROUP_ROWS: Final = 50_000
_CONTENT: Final = "content.csv"
_TEXT_TIMES: Final = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")


class _Readable(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


@dataclass(frozen=True)
class RawBars:
    """A file's rows before anything is judged.

    Attributes:
        rows: lazy frame with ts (UTC), open, high, low, close, volume, vwap, trades (null where unknown) and,
            where the file has them, the text columns venue, market_type, symbol, timeframe.
        has_header: whether a CSV file has a header row; true for other formats.
        is_dump: whether the columns are those of Binance's kline dumps.
    """

    rows: pl.LazyFrame
    has_header: bool
    is_dump: bool


@contextmanager
def open_bar_file(path: Path) -> Iterator[RawBars]:
    """Open a bar file by its suffix: .parquet, .feather, .csv, .csv.gz or .zip with one CSV inside.

    Times are datetimes, dates, text or epoch numbers, whose unit is told row by row from their magnitude, since
    Binance's spot dumps changed from ms to µs within one archive. A time without a zone is UTC. The rows of a CSV are
    read once into a Parquet file beside, which is gone when the block ends: whatever the file's size, its parts can
    then be read one by one.

    Raises:
        PermanentError: the file is absent, damaged, of no known format, lacks a column, or is not the one that the
            checksum file beside it (its name and .CHECKSUM) was made of.
    """
    if not path.is_file():
        raise PermanentError(f"{path} is not there; check the path")
    _verify_checksum(path)
    with TemporaryDirectory(prefix="tracker-bars-") as folder:
        try:
            raw = _open(path, Path(folder))
        except (
            pl.exceptions.PolarsError,
            OSError,
            EOFError,
            zlib.error,
            zipfile.BadZipFile,
            UnicodeError,
        ) as error:
            first_line = (str(error).splitlines() or [""])[0]
            text = f"{path.name} cannot be read ({type(error).__name__}: {first_line}); fetch the file again"
            raise PermanentError(text) from error
        yield raw


def _open(path: Path, folder: Path) -> RawBars:
    raw, has_header, is_csv = _scan(path, folder)
    names = raw.collect_schema().names()
    renamed = raw.rename({name: name.strip().lower().replace(" ", "_") for name in names})
    rows = _normalised(renamed, path)
    if is_csv:
        read_once = folder / "rows.parquet"
        rows.sink_parquet(read_once, row_group_size=_GROUP_ROWS, compression="lz4")
        (folder / _CONTENT).unlink(missing_ok=True)
        rows = pl.scan_parquet(read_once)
    return RawBars(rows, has_header, _is_dump(renamed))


def _verify_checksum(path: Path) -> None:
    """Compare a file with the checksum file beside it, as public dumps come with, where there is one."""
    beside = path.with_name(f"{path.name}.CHECKSUM")
    if not beside.is_file():
        return
    words = beside.read_text("utf-8", errors="replace").split()
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not words or words[0].lower() != found:
        raise PermanentError(f"{path.name} is not the file that {beside.name} was made of; fetch both again")


def collect(rows: pl.LazyFrame, path: Path) -> pl.DataFrame:
    """Read rows of an opened file.

    Raises:
        PermanentError: the file is damaged further down.
    """
    try:
        return rows.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        first_line = (str(error).splitlines() or [""])[0]
        raise PermanentError(f"{path.name} cannot be read ({first_line}); fetch the file again") from error


def _scan(path: Path, folder: Path) -> tuple[pl.LazyFrame, bool, bool]:
    """The file as it is, whether it has a header row, and whether it is a CSV."""
    match path.suffix.lower():
        case ".parquet":
            return pl.scan_parquet(path), True, False
        case ".feather" | ".arrow" | ".ipc":
            return pl.scan_ipc(path), True, False
        case ".csv":
            return *_csv(path, path.name), True
        case ".gz" if path.name.lower().endswith(".csv.gz"):
            import gzip

            with gzip.open(path) as content:
                return *_csv(_unpacked(content, folder), path.name), True
        case ".zip":
            with zipfile.ZipFile(path) as archive:
                members = [name for name in archive.namelist() if name.lower().endswith(".csv")]
                if len(members) != 1:
                    raise PermanentError(f"{path.name} holds {len(members)} CSV files; it must hold one")
                with archive.open(members[0]) as content:
                    return *_csv(_unpacked(content, folder), path.name), True
    raise PermanentError(
        f"{path.name} is not CSV (.csv, .csv.gz, .zip), Parquet or Feather; convert the file"
    )


def _unpacked(content: _Readable, folder: Path) -> Path:
    target = folder / _CONTENT
    with target.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
    return target


def _csv(source: Path, name: str) -> tuple[pl.LazyFrame, bool]:
    """A CSV with every column as text, and whether it has a header row."""
    with source.open("rb") as file:
        fields = file.readline().decode("utf-8-sig").strip().split(",")
    has_header = not fields[0].strip().isdigit()
    if not has_header and len(fields) != len(_DUMP_COLUMNS):
        raise PermanentError(
            f"{name} has {len(fields)} columns and no header row, so nothing says what they are; add a header row"
        )
    frame = pl.scan_csv(
        source,
        has_header=has_header,
        infer_schema=False,
        new_columns=None if has_header else list(_DUMP_COLUMNS),
    )
    return frame, has_header


def _is_dump(rows: pl.LazyFrame) -> bool:
    return {"open_time", "close_time", "count", "ignore"} <= set(rows.collect_schema().names())


def _normalised(rows: pl.LazyFrame, path: Path) -> pl.LazyFrame:
    schema = rows.collect_schema()
    time = next((name for name in _TIMES if name in schema), None)
    absent = [name for name in _NUMBERS if name not in schema] + ([] if time else ["ts, open_time or date"])
    if time is None or absent:
        raise PermanentError(
            f"{path.name} has no column {', '.join(absent)} (it has {', '.join(schema.names())}); "
            "bar files need a time, open, high, low, close and volume"
        )
    texts = {kind: _first(names, schema) for kind, names in _TEXTS.items()}
    optional = {kind: _first(names, schema) for kind, names in _OPTIONAL_NUMBERS.items()}
    volume = pl.col("volume").cast(pl.Float64, strict=False)
    quote_volume = _number(optional["quote_volume"])
    vwap = (
        pl.when(volume > 0).then(quote_volume / volume)
        if optional["vwap"] is None
        else _number(optional["vwap"])
    )
    return rows.select(
        *(pl.col(name).cast(pl.String).alias(kind) for kind, name in texts.items() if name is not None),
        _time(time, schema[time]).alias("ts"),
        *(pl.col(name).cast(pl.Float64, strict=False) for name in _NUMBERS),
        vwap.alias("vwap"),
        _number(optional["trades"]).cast(pl.Int64, strict=False).alias("trades"),
    )


def _first(names: tuple[str, ...], schema: pl.Schema) -> str | None:
    return next((name for name in names if name in schema), None)


def _number(name: str | None) -> pl.Expr:
    return pl.lit(None, pl.Float64) if name is None else pl.col(name).cast(pl.Float64, strict=False)


def _time(name: str, dtype: pl.DataType) -> pl.Expr:
    """The column as UTC times; null where a text is no time."""
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime):
        aware = column.dt.replace_time_zone("UTC") if dtype.time_zone is None else column
        return aware.dt.convert_time_zone("UTC").cast(_UTC)
    if dtype == pl.Date:
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if dtype.is_numeric():
        return _epoch(column.cast(pl.Int64))
    text = column.str.strip_chars().str.replace("T", " ").str.replace(r"\s*(Z|UTC|\+00:?00)$", "")
    plain = pl.coalesce(
        text.str.to_datetime(form, time_unit="us", strict=False).dt.replace_time_zone("UTC")
        for form in _TEXT_TIMES
    )
    shifted = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", time_unit="us", strict=False)
    return pl.coalesce(_epoch(text.cast(pl.Int64, strict=False)), plain, shifted.dt.convert_time_zone("UTC"))


def _epoch(number: pl.Expr) -> pl.Expr:
    """Epoch numbers as UTC times: seconds below 10^11 (the year 5138), then ms, µs, ns at 1,000 times each."""
    micros = (
        pl.when(number < 10**11)
        .then(number * 1_000_000)
        .when(number < 10**14)
        .then(number * 1_000)
        .when(number < 10**17)
        .then(number)
        .otherwise(number // 1_000)
    )
    return micros.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
