"""Ctrl-C ends the demo at once, loses nothing that was finished, and the next run goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TRACKER = Path(sys.executable).with_name("tracker")


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_and_leaves_no_process(tmp_path):
    options = ["--symbols", "4", "--days", "8", "--hours", "2"]
    demo = subprocess.Popen(
        [TRACKER, "demo", *options],
        env={**os.environ, "TRACKER_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in demo.stderr:
        if line.startswith("daily history"):
            break
    time.sleep(3)
    demo.send_signal(signal.SIGINT)
    _, said = demo.communicate(timeout=30)
    assert demo.returncode == 130, said
    assert "interrupted: what was finished is stored" in said
    assert "Traceback" not in said
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()
    assert not (tmp_path / "sandbox" / "addresses.json").exists()
