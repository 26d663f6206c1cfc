"""Peak memory of a call."""

import ctypes
import gc
import multiprocessing
from collections.abc import Callable
from pathlib import Path


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


def _measured(prepare: Callable[[], Callable[[], object]]) -> float:
    run = prepare()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory freed before would hide what is taken now
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts from here
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def growth_mb(prepare: Callable[[], Callable[[], object]]) -> float:
    """By how much a fresh process grows while it runs what `prepare` returns, beyond what `prepare` itself took.

    A forked one would not do: the threads of Polars are not there after a fork.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (prepare,))
