"""Loops compiled to machine code.

What belongs here: how functions are compiled and where the code is kept. What does not: the functions.

Importing numba takes 0.6 s, so modules with compiled functions are imported where they are called, not at the top.
"""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba

# Formulas are called by way of pointers, which numba has had since 2019.
warnings.filterwarnings("ignore", category=numba.NumbaExperimentalFeatureWarning)

_Function = TypeVar("_Function", bound=Callable[..., Any])


# All modules whose functions or constants are in compiled code.
SOURCES: Final = (
    "barrier_trade",
    "barrier_trades",
    "compiling",
    "copy_binary",
    "day_products",
    "feature_catalogue",
    "feature_days",
    "feature_formulas",
    "feature_kernel",
    "feature_values",
    "feature_windows",
    "first_touch",
    "grid_trade",
    "grid_trades",
    "moment_lookup",
    "postgres_hash",
    "trade",
)


def _kept_code() -> Path | None:
    """Folder of the code compiled from these sources; None where nothing can be written.

    numba looks at the date of a function's own file alone, but the code has the constants and functions of other
    modules in it: a folder for each state of the sources never serves what was compiled from another one.
    """
    here = Path(__file__).parent
    sources = hashlib.sha256(b"".join((here / f"{name}.py").read_bytes() for name in SOURCES))
    folder = here / "__pycache__" / f"compiled-{sources.hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


_KEPT: Final = _kept_code()


def compiled(function: _Function) -> _Function:
    """Compile a function at its first call; later processes find the code, threads run it side by side.

    Operations stay in the order they are written in, so results are the same on every machine. A quotient by 0 is
    infinite or NaN, as in NumPy. The original is `py_func`, for tests.
    """
    settings: Any = numba.config
    usual = settings.CACHE_DIR
    settings.CACHE_DIR = str(_KEPT or usual)
    try:
        return cast(
            _Function,
            numba.njit(cache=_KEPT is not None, nogil=True, error_model="numpy")(function),
        )
    finally:
        settings.CACHE_DIR = usual
