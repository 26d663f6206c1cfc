"""The hourly chain from address list to score, on a real node, a real database and Dagster's own machinery."""

from datetime import timedelta
from decimal import Decimal

import pytest
from aiohttp import web

from tracker_pipeline import keys
from tracker_pipeline.resources.chain import Chain
from tracker_pipeline.storage import scan
from tracker_pipeline_tests.assets.onchain import (
    FEED,
    HOURS,
    NOW,
    STETH,
    WETH,
    WHALES,
    failure_of,
    hour,
)
from tracker_pipeline_tests.resources.test_chain_client import Proxy, on_call
from tracker_pipeline_tests.serving import served


def test_an_hour_holds_ether_and_tokens_of_every_whale_at_one_block(run, node):
    assert run().success
    rows = scan("onchain.whale_balance_snapshots", *hour(HOURS[0])).collect()
    assert rows.group_by("asset").len().sort("asset").rows() == [
        (a, WHALES) for a in ("ETH", "STETH", "WETH")
    ]
    assert rows.select("block_number", "block_hash", "block_timestamp").n_unique() == 1
    assert rows.get_column("balance").null_count() == 0
    tokens = {"WETH": WETH, "STETH": STETH}
    with Chain("ethereum", 1337, [node], tokens=tokens, clock=lambda: NOW) as client:
        again = client.balances(
            rows.get_column("whale_address").to_list(),
            client.assets,
            block := client.block_at(hour(HOURS[0])[0]),
        )
    assert rows.item(0, "block_hash") == block.hash
    assert rows.select(again.columns).sort("asset", "whale_address").equals(again)
    assert (rows.filter(asset="WETH").get_column("balance") != "0").sum() >= WHALES / 4


def test_scores_value_steth_at_the_rate_of_the_hour(run):
    assert run(HOURS[0]).success
    assert run(HOURS[1]).success
    (rate,) = scan("onchain.steth_rates", *hour(HOURS[1])).collect().rows(named=True)
    assert rate["status"] == "ok"
    assert Decimal("0.997") <= Decimal(rate["rate"]) <= Decimal("1.001")
    assert timedelta(0) <= rate["block_timestamp"] - rate["answered_at"] < timedelta(hours=1)
    score = scan("onchain.accumulation_scores", *hour(HOURS[1])).filter(lookback_hours=24).collect()
    (score,) = score.rows(named=True)
    assert Decimal(score["steth_rate"]) == Decimal(rate["rate"])
    assert score["lst_score_pct"] is not None
    assert score["lst_score_pct"] != score["score_pct"]
    wealth = wealth_of(HOURS[0], Decimal(rate["rate"])), wealth_of(HOURS[1], Decimal(rate["rate"]))
    assert int(score["lst_change_wei"]) == wealth[1] - wealth[0]


def wealth_of(key: str, rate: Decimal) -> int:
    """Wealth of all whales in wei, address by address as the definition has it."""
    micro = int((rate * 10**6).to_integral_value())
    total = 0
    rows = scan("onchain.whale_balance_snapshots", *hour(key)).collect()
    for asset, balance in rows.select("asset", "balance").iter_rows():
        total += int(balance) * micro // 10**6 if asset == "STETH" else int(balance)
    return total


def test_the_same_hour_again_changes_no_row(run):
    tables = ("onchain.whale_balance_snapshots", "onchain.steth_rates", "onchain.accumulation_scores")
    assert run().success
    before = [scan(table).collect() for table in tables]
    assert run().success
    assert all(scan(table).collect().equals(rows) for table, rows in zip(tables, before, strict=True))


def test_without_a_feed_the_rate_and_what_needs_it_is_null(run, configure):
    configure(steth_feed=None)
    assert run(HOURS[0]).success
    assert run(HOURS[1]).success
    (rate,) = scan("onchain.steth_rates", *hour(HOURS[1])).collect().rows(named=True)
    assert (rate["rate"], rate["status"]) == (None, "no_feed")
    score = scan("onchain.accumulation_scores", *hour(HOURS[1])).filter(lookback_hours=24).collect()
    assert score.select("steth_rate", "lst_score_pct").row(0) == (None, None)
    assert score.item(0, "score_pct") is not None


@pytest.mark.parametrize(
    ("feed", "status"),
    [({"address": WETH}, "no_answer"), ({"address": FEED, "max_age_hours": 1e-6}, "stale")],
)
def test_a_feed_that_gives_no_price_of_the_hour_is_no_rate(run, configure, feed, status):
    configure(steth_feed=feed)
    assert run().success
    assert scan("onchain.steth_rates").select("rate", "status").collect().row(0) == (None, status)


def test_a_token_without_code_fails_by_name_and_nothing_is_stored(run, configure):
    nobody = "0x" + "77" * 20
    configure(tokens={"WETH": {"address": nobody}})
    result = run()
    assert not result.success
    assert f"WETH has no contract at {nobody}" in failure_of(result)
    assert scan("onchain.whale_balance_snapshots").collect().is_empty()


def test_an_endpoint_of_another_chain_fails_and_nothing_is_stored(run, configure):
    configure(chain_id=1)
    assert not run().success
    assert scan("onchain.whale_balance_snapshots").collect().is_empty()


@pytest.mark.parametrize("spoilt", ["html", "truncated", "latest"])
def test_a_spoilt_answer_fails_the_hour_and_nothing_is_stored(run, configure, node, spoilt):
    def answer(request: dict) -> web.Response | None:
        if spoilt == "latest":
            request["params"][1] = "latest"
            return None
        text = "<html>busy</html>" if spoilt == "html" else '{"jsonrpc": "2.0", "id": 1, "result": "0x00'
        return web.Response(text=text)

    proxy = Proxy(node)
    proxy.behave = on_call(answer)
    with served(proxy.app()) as proxy.url:
        configure(rpc_urls=[proxy.url])
        assert not run(assets=[keys.WHALE_UNIVERSE, keys.WHALE_BALANCE_SNAPSHOTS]).success
    assert scan("onchain.whale_balance_snapshots").collect().is_empty()
