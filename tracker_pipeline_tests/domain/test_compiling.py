"""Compiled code is never older than the sources it was made of."""

import ast
from pathlib import Path

from tracker_pipeline.domain import compiling

DOMAIN = Path(compiling.__file__).parent
# Types and plain arrays: nothing of these is in compiled code.
TYPES_ONLY = {"windows", "bar_grid"}


def imported(name: str) -> set[str]:
    """Modules of the domain that a module imports."""
    prefix = "tracker_pipeline.domain."
    nodes = ast.walk(ast.parse((DOMAIN / f"{name}.py").read_text("utf-8")))
    found = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {module.removeprefix(prefix) for module in found if module.startswith(prefix)} - TYPES_ONLY


def test_a_change_of_any_module_that_compiled_code_is_made_of_compiles_it_again() -> None:
    compiled = {path.stem for path in DOMAIN.glob("*.py") if "compiling" in imported(path.stem)}
    assert "feature_kernel" in compiled
    reached, waiting = {"compiling"}, compiled
    while waiting:
        reached |= waiting
        waiting = set().union(*map(imported, waiting)) - reached
    assert reached <= set(compiling.SOURCES)
