"""Bars in a real storage of their own: an embedded Postgres and a lake in a temporary folder."""

import os
import tempfile
from datetime import UTC, datetime, time
from pathlib import Path
from types import TracebackType

import polars as pl

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.resources.postgres import EmbeddedPostgres
from tracker_pipeline.settings import get_config, get_settings
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect, ready_url
from tracker_pipeline.storage.lake_store import store_at
from tracker_pipeline.storage.writing import write_window

TABLE = BARS["15m"]


def _forget_settings() -> None:
    """What was read when assets were imported names the store of the checkout, which is nobody's to write to."""
    for cached in (get_settings, get_config, ready_url, store_at):
        cached.cache_clear()


class Stored:
    """Holds bars while it is entered.

    Args:
        bars: 15m bars.
    """

    def __init__(self, bars: pl.DataFrame) -> None:
        self._bars = bars

    def __enter__(self) -> "Stored":
        self._folder = tempfile.TemporaryDirectory()
        home = Path(self._folder.name)
        os.environ["TRACKER_HOME"] = str(home / "home")
        os.environ["TRACKER_SETTING"] = "sandbox"
        self._server = EmbeddedPostgres(home / "postgres")
        self._server.start()
        os.environ["TRACKER_DATABASE_URL"] = self._server.url
        _forget_settings()
        rows = self._bars.with_columns(
            source=pl.lit("benchmark"),
            run_id=pl.lit("benchmark"),
            fetched_at=pl.lit(datetime(2025, 1, 1, tzinfo=UTC)),
        )
        window = (rows["ts"].min(), rows["ts"].max() + (rows["ts"][1] - rows["ts"][0]))
        with connect() as connection:
            write_window(connection, TABLE, rows, window, run_id="benchmark")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop_if_unused()
        self._folder.cleanup()

    def bars(self, start: datetime, end: datetime) -> pl.DataFrame:
        """All bars of a span."""
        return scan(TABLE.name, start, end).collect()

    def closes(self, start: datetime, end: datetime) -> pl.DataFrame:
        """The last bars of the days of a span."""
        return scan(TABLE.name, start, end, predicate=pl.col("ts").dt.time() == time(23, 45)).collect()
