"""The main job as a person starts it: a subprocess, real sandbox servers, an embedded Postgres of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
TRACKER = Path(sys.executable).with_name("tracker")


def demo(home: Path, *options: str | Path) -> dict:
    done = subprocess.run(
        [TRACKER, "demo", "--format", "json", *map(str, options)],
        env={**os.environ, "TRACKER_HOME": str(home)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=1_100,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def content(report: dict) -> dict:
    names = ("rows", "hot", "cold", "content")
    return {row["asset"]: tuple(row[name] for name in names) for row in report["assets"]}


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_the_demo_fills_every_asset_and_a_second_run_changes_no_row(tmp_path):
    options = ("--symbols", "3", "--days", "9", "--hours", "25")
    first = demo(tmp_path, *options)
    assert first["succeeded"]
    rows = {row["asset"]: row for row in first["assets"]}
    assert rows["market/ohlc_15m"]["rows"] == 3 * 9 * 96
    assert rows["market/ohlc_15m"]["hot"] == 3 * 7 * 96
    assert rows["archive/market/ohlc_15m"]["cold"] == 3 * 2 * 96
    assert rows["features/ml_features_15m"]["rows"] == 3 * 9 * 96
    assert rows["onchain/whale_balance_snapshots"]["rows"] >= 25 * 1000
    # Nine days hold no whole week from Monday on for certain, so the training set may be left out.
    ran = [row for row in first["assets"] if row["asset"] != "labels/training_set" or row["rows"]]
    assert all(row["checks_passed"] and not row["checks_failed"] for row in ran)
    assert first["score"]["matched"] >= 1000
    assert content(demo(tmp_path, *options)) == content(first)
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()
    assert not (tmp_path / "sandbox" / "addresses.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_the_demo_on_a_real_year_loads_every_proven_bar(tmp_path, shared_data):
    report = demo(tmp_path, "--hours", "1", "--bars", shared_data / "ohlcv/binance_um_15m_365d.parquet")
    rows = {row["asset"]: row["rows"] for row in report["assets"]}
    assert rows["market/ohlc_15m"] == 280_312
    assert rows["features/ml_features_15m"] == 280_312
    assert rows["market/instruments"] == 8
    labels = [rows[f"labels/strategy_{name}_labels"] for name in ("dca", "swing", "channel")]
    assert sum(labels) == rows["labels/strategy_setups"]
    assert min(labels) > 50
    assert 0 < rows["labels/training_set"] < sum(labels)
    assert report["imported"]["left_out"] == {
        "the file's last bar: it may not have been closed yet (--fetched-at TIME can prove that it was)": 8
    }
