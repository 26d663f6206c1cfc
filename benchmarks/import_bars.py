"""Importing real bar files in one call: seconds, and by how much the memory of the process grows.

    python -m benchmarks.import_bars [FOLDER]

FOLDER is the folder of real data (default ../shared/data): the year of quarter hours of eight symbols and all minutes
of Binance's public dumps. They are imported into an empty database of a server of its own, then once more. What is
measured is the peak of resident memory over what the process held just before, with all modules loaded.
"""

import argparse
import os
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path

from tracker_pipeline import definitions
from tracker_pipeline.commands.import_bars import Imported, import_files
from tracker_pipeline.resources.postgres import EmbeddedPostgres
from tracker_pipeline.storage.database import connect

DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"
AIM_MB = 150


def main() -> None:
    """Import twice and print seconds and memory of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT)
    folder = parser.parse_args().folder
    files = [
        folder / "ohlcv" / "binance_um_15m_365d.parquet",
        *sorted((folder / "ohlcv_raw_binance_vision_1m").glob("*.csv.gz")),
    ]
    print(f"{len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.0f} MB")
    print(f"{len(list(definitions.ALL_ASSETS))} assets loaded beforehand")
    with tempfile.TemporaryDirectory() as home:
        os.environ["TRACKER_HOME"] = home
        server = EmbeddedPostgres(Path(home))
        server.start()
        os.environ["TRACKER_DATABASE_URL"] = server.url
        try:
            with connect() as connection:
                connection.execute("SELECT 1")
            for title in ("first import", "the same files again"):
                measure(title, files)
        finally:
            server.stop_if_unused()


def measure(title: str, files: list[Path]) -> None:
    """Import and print what it took."""
    before = resident_mb()
    reset_peak()
    started = time.perf_counter()
    imported = import_files(files)
    seconds = time.perf_counter() - started
    growth = peak_mb() - before
    print(f"{title}: {counts(imported)}, {seconds:.1f} s")
    print(f"  memory: {before:.0f} MB before, {growth:.0f} MB more at its peak (aim {AIM_MB})")


def counts(imported: Imported) -> str:
    """Rows by what became of them."""
    total: Counter[str] = Counter()
    for written in imported.written.values():
        total.update(accepted=written.inserted, identical=written.unchanged, revised=written.updated)
    return ", ".join(f"{count:,} {name}" for name, count in total.items())


def resident_mb() -> float:
    """Memory that the process holds now."""
    return _status("VmRSS") / 1024


def peak_mb() -> float:
    """The most that it held since the peak was last reset."""
    return _status("VmHWM") / 1024


def reset_peak() -> None:
    """Begin to measure the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
    print(f"peak of the whole process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
