"""A wrong setting is one clear sentence."""

import pytest

from tracker_pipeline import settings
from tracker_pipeline.assets.strategies import strategy_configs
from tracker_pipeline.settings import ConfigurationError
from tracker_pipeline_tests.conftest import forget_settings


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    path = tmp_path / "own.yaml"

    def write(text: str) -> None:
        path.write_text(text)
        monkeypatch.setenv("TRACKER_CONFIG", str(path))
        forget_settings()
        strategy_configs.cache_clear()

    yield write
    strategy_configs.cache_clear()


def test_the_packaged_universe_has_its_ninety_coins_in_four_groups():
    universe = settings.get_config().universe
    groups = [symbol.group for symbol in universe.symbols]
    counts = [groups.count(group) for group in dict.fromkeys(groups)]
    assert counts == [20, 20, 20, 30]
    tiers = [symbol.tier for symbol in universe.symbols]
    assert [tiers.count(t) for t in ("large_cap", "mid_cap", "small_cap", "memecoin")] == [6, 57, 7, 20]


def test_a_sample_of_the_universe_has_every_group_and_the_reference_coin():
    sample = settings.get_config().universe.spread(12)
    assert len(sample) == 12
    assert len({symbol.group for symbol in sample}) == 4
    assert sample[0].base == settings.get_config().market.reference


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("TRACKER_SETTING", "production", "TRACKER_SETTING: Input should be 'sandbox' or 'live'")],
)
def test_an_unknown_setting_is_named(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    forget_settings()
    with pytest.raises(ConfigurationError, match=message):
        settings.get_settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("history_start: [", "is not valid YAML"),
        ("- a\n- b", "must hold a mapping"),
        (
            "history_begin: 2024-01-01",
            "history_begin: there is no such key, only archive, automation, chain, ",
        ),
        (
            "market: {venu: bybit}",
            "market.venu: there is no such key, only market_type, native_timeframes, quote, ",
        ),
        (
            "endpoints: {live: {networks: {base: {chain_id: 1, rpc_url: x}}}}",
            "networks.base.rpc_url: there is no such key, only address_lists, block_gap_seconds, chain_id, ",
        ),
        (
            "market: {venue: bybit, market_type: options}",
            "market.market_type: Input should be 'spot' or 'linear'",
        ),
        ("chain: {max_unknown_frac: 2}", "chain.max_unknown_frac: Input should be less than or equal to 1"),
        (
            "universe: {version: 2, groups: {g: 2}, symbols: [&a {base: A, group: g, tier: mid_cap}, *a]}",
            "universe.symbols: these coins are listed twice: A",
        ),
        (
            "universe: {version: 2, groups: {g: 2, h: 1}, symbols: [{base: A, group: g, tier: mid_cap}]}",
            "g has 1 coins, not 2; h has 0 coins, not 1",
        ),
        (
            "universe: {version: 2, groups: {g: 1}, symbols: [{base: A, group: f, tier: mid_cap}]}",
            "A: the group is not one of g",
        ),
        (
            "universe: {version: 2, groups: {g: 1}, symbols: [{base: A, group: g, tier: huge}]}",
            "universe.symbols.0.tier: Input should be 'large_cap', 'mid_cap', 'small_cap' or 'memecoin'",
        ),
        ("universe: elsewhere.yaml", "elsewhere.yaml) that TRACKER_CONFIG"),
        ("market: {source: {kind: carrier_pigeon}}", "market.source: Input tag 'carrier_pigeon'"),
    ],
)
def test_a_malformed_configuration_file_is_named_with_what_is_wrong(config_file, text, message):
    config_file(text)
    with pytest.raises(ConfigurationError, match=r"own\.yaml.*"):
        settings.get_config()
    with pytest.raises(ConfigurationError) as failure:
        settings.get_config()
    assert message in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_file_may_name_a_universe_of_its_own(config_file, tmp_path):
    (tmp_path / "coins.yaml").write_text(
        "version: 7\ngroups: {all: 1}\nsymbols: [{base: BTC, group: all, tier: large_cap}]\n"
    )
    config_file("universe: coins.yaml")
    universe = settings.get_config().universe
    assert (universe.version, [symbol.base for symbol in universe.symbols]) == (7, ["BTC"])


def test_a_tier_is_found_by_every_name_that_a_coin_goes_by():
    tiers = settings.get_config().universe.tiers()
    assert {tiers[name] for name in ("PEPE", "1000PEPE", "SHIB1000", "1000NEIROCTO")} == {
        "memecoin",
        "small_cap",
    }
    assert tiers["MATIC"] == tiers["POL"]


def test_a_file_changes_only_what_it_names(config_file):
    config_file("market: {quote: USDC}")
    assert settings.get_config().market.quote == "USDC"
    assert settings.get_config().market.venue == "bybit"


def test_a_missing_configuration_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TRACKER_CONFIG", str(tmp_path / "nowhere.yaml"))
    forget_settings()
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml\) cannot be read: No such file"):
        settings.get_config()


def test_the_live_setting_names_the_variable_that_must_hold_the_endpoints(monkeypatch):
    monkeypatch.setenv("TRACKER_SETTING", "live")
    monkeypatch.delenv("ETHEREUM_RPC_URLS", raising=False)
    forget_settings()
    with pytest.raises(ConfigurationError, match="set ETHEREUM_RPC_URLS"):
        settings.rpc_urls(settings.get_endpoints())


def test_endpoints_keep_their_order_and_are_secret(monkeypatch):
    monkeypatch.setenv("TRACKER_SETTING", "live")
    monkeypatch.setenv("ETHEREUM_RPC_URLS", "https://a/key1, https://b/key2")
    forget_settings()
    urls = settings.rpc_urls(settings.get_endpoints())
    assert [url.get_secret_value() for url in urls] == ["https://a/key1", "https://b/key2"]
    assert "key1" not in repr(urls)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strategies: {dca: {drop: -5}}", "strategies.dca has no drop"),
        (
            "strategies: {dca: {exits: {large_cap: {tp_pct: 0.5, sl_pct: 8}}}}",
            "^strategies.dca is wrong: exits must name exactly the tiers",
        ),
        (
            "strategies: {swing: {costs: {fee: 0.1}}}",
            "^strategies.swing is wrong: costs.fee Unexpected keyword argument$",
        ),
        ("strategies: {dca: {grid: {level: 3}}}", "grid.level Unexpected keyword argument"),
        ("strategies: {dca: {default_tier: giant}}", r"^strategies.dca is wrong: unknown tiers \['giant'\]"),
        ("strategies: {dca: {horizon_hours: soon}}", "strategies.dca is wrong: horizon_hours"),
    ],
)
def test_a_wrong_strategy_is_named_with_its_field(config_file, text, message):
    config_file(text)
    with pytest.raises(ConfigurationError, match=message):
        strategy_configs()
