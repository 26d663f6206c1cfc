"""Imports point one way, and loading the definitions loads no slow library."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def test_imports_point_one_way():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(lint)], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_loading_the_definitions_imports_no_slow_library():
    script = (
        "import sys, tracker_pipeline.definitions;"
        "print([m for m in ('ccxt', 'web3', 'pandas', 'eth_tester', 'eth') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
