"""What commands print can be read: no figure is cut, on a terminal of any width and in a file."""

import re
from datetime import date
from io import StringIO

import polars as pl
import pytest
from rich.console import Console

from tracker_pipeline.commands.summary import print_archive, print_label_report, write_rows
from tracker_pipeline.domain.label_report import SCHEMA
from tracker_pipeline_tests.frames import bars

ARCHIVED = {
    "table": "onchain.whale_balance_snapshots",
    "retention_days": 30.0,
    "hot_rows": 97_200,
    "hot_bytes": 36_700_000,
    "cold_rows": 26_496_000,
    "files": 365,
    "bytes": 1_100_000_000,
    "saved_bytes": 8_900_000_000,
    "compression": 9.5,
    "oldest_day": date(2025, 11, 26),
    "newest_day": date(2026, 11, 25),
    "held_days": 7,
}


def printed(show, *, width: int = 80, terminal: bool = True) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=terminal, no_color=True)
    show(console)
    return re.sub("\x1b\\[[0-9;]*m", "", console.file.getvalue())


def test_rows_that_fit_stand_side_by_side():
    rows = pl.DataFrame({"symbol": ["BTC/USDT"], "brackets": ["[red]"], "unknown": [None]})
    assert "│ BTC/USDT │ [red]    │         │" in printed(lambda c: write_rows(c, rows, "table", None))


def test_rows_that_do_not_fit_the_terminal_stand_one_below_the_other():
    lines = printed(lambda c: write_rows(c, bars(count=2), "table", None)).splitlines()
    assert [line for line in lines if line.startswith("row")] == ["row 1", "row 2"]
    assert "  available_at  2024-05-01 00:17:00+00:00" in lines


def test_a_file_has_room_for_any_row():
    text = printed(lambda c: write_rows(c, bars(count=1), "table", None), terminal=False)
    assert "│ 2024-05-01 00:00:00+00:00 │ 100.0 │ 102.0 │" in text
    assert "…" not in text


@pytest.mark.parametrize(("width", "terminal"), [(80, True), (80, False), (140, True)])
def test_the_archive_is_shown_with_all_its_figures(width, terminal):
    text = printed(lambda c: print_archive(c, [ARCHIVED]), width=width, terminal=terminal)
    for figure in ("whale_balance_snapshots", "30 d", "97,200", "36.7 MB", "26,496,000", "365", "1.1 GB"):
        assert figure in text
    for figure in ("8.9 GB", "9.5", "2025-11-26 … 2026-11-25", "7 d"):
        assert figure in text


@pytest.mark.parametrize("terminal", [True, False])
def test_an_empty_archive_is_shown_without_cutting_a_word(terminal):
    empty = dict.fromkeys(ARCHIVED, 0) | {
        "table": "onchain.whale_balance_snapshots", "compression": None, "retention_days": 1460, "hot_rows": 97_200,
    }  # fmt: skip
    text = printed(lambda c: print_archive(c, [empty]), terminal=terminal)
    assert "…" not in text
    assert "97,200" in text
    assert "1460 d" in text


def test_labels_by_month_are_whole_in_80_columns_and_the_bar_gives_way():
    figures = (1149, 125, 153, 112, 125, 134, 10, 1113, -1.23, -12.54, 0.39, 143.93)
    months = pl.DataFrame([("channel", date(2026, 11, 1), *figures)], schema=SCHEMA, orient="row")
    line = printed(lambda c: print_label_report(c, months, "table")).splitlines()[1]
    shown = "channel 2026-11 1149 1113 125 153 112 125 134 10 -1.23 -12.54 0.39 143.9"
    assert " ".join(line.split()).startswith(shown)
