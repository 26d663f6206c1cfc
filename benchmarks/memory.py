"""Peak memory of a call."""

import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


def growth_mb(run: Callable[[], object]) -> float:
    """By how much the process grows while `run` runs, in a child that has what the parent has and nothing freed."""
    read, written = os.pipe()
    child = os.fork()
    if not child:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # memory freed before would hide what is taken now
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts from here
        before = _status("VmRSS")
        run()
        os.write(written, f"{_status('VmHWM') - before}".encode())
        os._exit(0)
    os.close(written)
    with os.fdopen(read) as answer:
        grown = float(answer.read())
    os.waitpid(child, 0)
    return grown
