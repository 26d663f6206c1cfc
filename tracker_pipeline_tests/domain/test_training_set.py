"""Training rows hold what was known at the signal and a final label, weighted by how unique it is."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.training_set import training_set, with_uniqueness

START = datetime(2024, 5, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)


def setups(*rows: dict) -> pl.DataFrame:
    base = {
        "strategy": "dca",
        "venue": "bybit",
        "symbol": "BTC/USDT",
        "timeframe": "15m",
        "side": "BUY",
        "ref_price": 1.0,
        "tp_pct": 10.0,
        "sl_pct": 8.0,
        "horizon_hours": 72,
        "tier": "large_cap",
        "trend": "BULL",
        "stress": "NORMAL",
        "evidence": "{}",
        "config_version": "c",
    }
    return schemas.SETUPS.conform(pl.DataFrame([{**base, **row} for row in rows]))


def labels(*rows: dict) -> pl.DataFrame:
    base = {
        "venue": "bybit",
        "symbol": "BTC/USDT",
        "timestamp": START,
        "setup_detected": True,
        "outcome": "WIN",
        "exit_reason": "TP",
        "gross_return_pct": 10.0,
        "actual_return": 9.0,
        "entry_ts": START + QUARTER,
        "exit_ts": START + timedelta(hours=1),
        "label_version": "1",
    }
    return schemas.DCA_LABELS.conform(
        pl.DataFrame([{**base, **row} for row in rows], infer_schema_length=None)
    )


def features(*moments: datetime) -> pl.DataFrame:
    return schemas.ML_FEATURES_15M.conform(
        pl.DataFrame(
            {
                "venue": "bybit",
                "symbol": "BTC/USDT",
                "ts": list(moments),
                "available_at": [moment + QUARTER for moment in moments],
                "rsi_14": [float(i) for i in range(len(moments))],
                "null_reasons": "{}",
                "feature_set_version": "f",
                "input_revision": 0,
            }
        )
    )


def test_a_signal_of_a_15m_bar_has_the_features_of_that_bar():
    found = training_set(
        setups({"setup_id": "a", "signal_ts": START}),
        labels({"setup_id": "a"}),
        features(START - QUARTER, START, START + QUARTER),
    )
    assert found.select("setup_id", "rsi_14", "is_win", "known_at").rows() == [
        ("a", 1.0, True, START + QUARTER)
    ]


def test_a_signal_of_an_hour_has_the_features_of_its_last_quarter():
    moments = [START + i * QUARTER for i in range(6)]
    found = training_set(
        setups({"setup_id": "a", "signal_ts": START, "timeframe": "1h"}),
        labels({"setup_id": "a"}),
        features(*moments),
    )
    assert found.item(0, "rsi_14") == 3.0
    assert found.item(0, "known_at") == START + timedelta(hours=1)


@pytest.mark.parametrize(
    "label",
    [
        {"outcome": "PENDING", "actual_return": None},
        {"outcome": "UNRESOLVED", "actual_return": None},
        {"outcome": "TIMEOUT", "actual_return": None, "fills": 0},
    ],
)
def test_what_is_not_final_or_was_never_entered_is_not_learned_from(label):
    found = training_set(
        setups({"setup_id": "a", "signal_ts": START}), labels({"setup_id": "a", **label}), features(START)
    )
    assert found.is_empty()
    assert found.schema == schemas.TRAINING_SET.polars_schema


def intervals(*bounds: tuple[int, int], symbol: str = "BTC/USDT") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "strategy": "dca",
            "venue": "bybit",
            "symbol": symbol,
            "label_start": [START + first * QUARTER for first, _ in bounds],
            "label_end": [START + last * QUARTER for _, last in bounds],
        }
    )


def test_a_label_alone_has_the_whole_weight():
    assert with_uniqueness(intervals((0, 8), (8, 12))).get_column("weight").to_list() == [1.0, 1.0]


def test_labels_over_the_same_bars_share_them():
    weights = with_uniqueness(intervals((0, 8), (0, 8), (4, 12))).get_column("weight")
    # Four bars are shared by two, four by three; of the third, four by three and four are its own.
    assert weights.to_list() == pytest.approx([(4 / 2 + 4 / 3) / 8] * 2 + [(4 / 3 + 4) / 8])


def test_symbols_do_not_share():
    both = pl.concat([intervals((0, 8)), intervals((0, 8), symbol="ETH/USDT")])
    assert with_uniqueness(both).get_column("weight").to_list() == [1.0, 1.0]
