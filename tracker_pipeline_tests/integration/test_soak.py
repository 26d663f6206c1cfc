"""An exchange away for a day and a stop heal by themselves, in accelerated time: benchmarks/soak.py, shortened.

The whole week runs with `python -m benchmarks.soak`.
"""

import pytest

from benchmarks import soak
from tracker_pipeline_tests.conftest import forget_settings


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_exchange_away_for_a_day_a_chain_away_for_an_hour_and_a_stop_are_made_up_for(
    own_database, tmp_path, monkeypatch
):
    for name in ("TRACKER_CONFIG", "TRACKER_ALERT_URLS", "DAGSTER_EVENT_BATCH_SIZE"):
        monkeypatch.setenv(name, "1")  # so that what the soak sets is taken back
    monkeypatch.delenv("TRACKER_ALERT_URLS")
    with soak.accelerated(soak.SHORT, coins=["BTC", "ETH"], whales=20, home=tmp_path) as (start, servers):
        forget_settings()
        outcome = soak.run(soak.SHORT, start=start, servers=servers)
    assert outcome.problems == []
    assert outcome.failures["market_day"] > 0  # the faults were felt
    assert outcome.failures["onchain_hour"] > 0
