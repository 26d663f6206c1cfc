"""Scores in the run of an hour: their status, what the UI shows of them, further networks."""

import dagster as dg

from tracker_pipeline import keys
from tracker_pipeline.storage import scan
from tracker_pipeline_tests.assets.onchain import HOURS, ONCHAIN, WHALES, failure_of, hour

ONE, NEXT = "2026-03-01-03:00", "2026-03-01-04:00"


def scores(key: str, lookback: int = 24) -> dict:
    (row,) = (
        scan("onchain.accumulation_scores", *hour(key))
        .filter(lookback_hours=lookback)
        .collect()
        .rows(named=True)
    )
    return row


def shown(result: dg.ExecuteInProcessResult) -> dict:
    metadata = {}
    for event in result.all_events:
        if event.is_step_materialization and event.asset_key == keys.ACCUMULATION_SCORES:
            metadata.update(event.materialization.metadata)
    return {name: value.value for name, value in metadata.items()}


def test_a_score_with_hardly_an_hour_between_says_that_coverage_is_low_and_keeps_its_figures(run):
    assert run(HOURS[0]).success
    result = run(HOURS[1])
    row = scores(HOURS[1])
    assert (row["status"], row["tags"]) == ("low_coverage", ["Incomplete Data"])
    assert row["score_pct"] is not None
    metadata = shown(result)
    assert metadata["total balance"].startswith("![chart](data:image/svg+xml;base64,")
    assert metadata["largest movers"].count("| `0x") == 10
    assert metadata["status"] == "low_coverage"
    assert metadata["score, %"] == float(row["score_pct"])


def test_without_a_snapshot_near_the_look_back_there_is_no_score(run, configure):
    configure(chain={"lookback_hours": [1, 24]})
    assert run(ONE).success
    assert run(NEXT).success
    assert (scores(NEXT, 24)["status"], scores(NEXT, 24)["score_pct"]) == ("no_baseline", None)


def test_only_the_largest_of_either_snapshot_are_scored(run, configure):
    configure(chain={"top": 10, "lookback_hours": [24]})
    assert run(HOURS[0]).success
    assert run(HOURS[1]).success
    row = scores(HOURS[1])
    assert 10 <= row["universe"] < 20
    assert row["universe"] == 10 + row["entrants"]
    assert row["entrants"] == row["leavers"]
    stored = scan("onchain.whale_balance_snapshots", *hour(HOURS[1])).filter(asset="ETH").collect()
    assert stored.height == WHALES  # all were read


def test_a_further_network_is_an_entry_and_its_failure_takes_nothing_from_the_first(run, configure, node):
    second = {
        "chain_id": 1337, "rpc_urls": [node], "address_lists": [f"{node}/whales.csv"], "tokens": {},
        "block_gap_seconds": 2600,
    }  # fmt: skip
    configure(networks={"arbitrum": second})
    assert run(HOURS[0]).success
    rows = scan("onchain.whale_balance_snapshots", *hour(HOURS[0])).collect()
    assert rows.group_by("network").len().sort("network").rows() == [
        ("arbitrum", WHALES),
        ("ethereum", 3 * WHALES),
    ]
    scored = scan("onchain.accumulation_scores", *hour(HOURS[0])).collect()
    assert scored.group_by("network").len().sort("network").rows() == [("arbitrum", 3), ("ethereum", 3)]

    configure(networks={"arbitrum": {**second, "chain_id": 42161}})
    result = run(HOURS[0], assets=ONCHAIN[:2])
    assert not result.success
    assert "serves chain 1337, but arbitrum is chain 42161" in failure_of(result)
    assert scan("onchain.whale_balance_snapshots", *hour(HOURS[0])).collect().equals(rows)
    assert not run(HOURS[1], assets=ONCHAIN[:2]).success
    later = scan("onchain.whale_balance_snapshots", *hour(HOURS[1])).collect()
    assert later.get_column("network").unique().to_list() == ["ethereum"]
