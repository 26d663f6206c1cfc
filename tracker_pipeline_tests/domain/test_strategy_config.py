from typing import Any

import pytest
from pydantic import TypeAdapter

from tracker_pipeline.domain.channel import ChannelConfig
from tracker_pipeline.domain.dca import DcaConfig, Grid
from tracker_pipeline.domain.setups import STRATEGIES
from tracker_pipeline.domain.strategy_config import Band, Costs, Exits, StrategyConfig, by_tier
from tracker_pipeline.domain.swing import SwingConfig

DCA, SWING, CHANNEL = DcaConfig(), SwingConfig(), ChannelConfig()


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (
            DcaConfig,
            {"exits": {**DCA.exits, "memecoin": Exits(2, 10)}},
            "the memecoin target of 2 % is not above its costs of 2.12 %",
        ),
        (
            DcaConfig,
            {"exits": {**DCA.exits, "mid_cap": Exits(float("nan"), 8)}},
            "the mid_cap target of nan % is not above",
        ),
        (DcaConfig, {"tiers": {"BTC": "blue_chip"}}, "unknown tiers"),
        (DcaConfig, {"exits": {"large_cap": Exits(10, 8)}}, "exits must name exactly the tiers"),
        (DcaConfig, {"exits": {**DCA.exits, "mid_cap": Exits(10, 0)}}, "mid_cap stop"),
        (DcaConfig, {"drop_pct": 5.0}, "drop_pct must be between"),
        (DcaConfig, {"grid": Grid(levels=0)}, "grid.levels"),
        (DcaConfig, {"costs": Costs(fee_pct=-1)}, "costs must be"),
        (DcaConfig, {"cool_down_bars": 10_000}, "cool_down_bars must be at most 7 days"),
        (
            SwingConfig,
            {"exits": {**SWING.exits, "stable": Exits(2, 3)}},
            "the memecoin stable target of 2 % is not above its costs of 2.12 %",
        ),
        (SwingConfig, {"exits": {"stable": Exits(5, 3)}}, "exits must name exactly the volatility classes"),
        (SwingConfig, {"trail_pct": {"large_cap": 2.5}}, "trail_pct must name exactly the tiers"),
        (SwingConfig, {"rsi_band": by_tier(*[Band(80, 20)] * 4)}, "rsi_band must be a range"),
        (
            SwingConfig,
            {"moderate_from_pct": 6.0},
            "moderate_from_pct must lie between 0 and volatile_from_pct",
        ),
        (SwingConfig, {"cool_down_bars": 169}, "cool_down_bars must be at most 7 days"),
        (SwingConfig, {"horizon_hours": 0}, "horizon_hours must be positive"),
        (
            ChannelConfig,
            {"width_frac": {**CHANNEL.width_frac, "memecoin": Band(0.02, 0.15)}},
            "the memecoin narrowest-channel target of 1.526 % is not above its costs of 2.12 %",
        ),
        (ChannelConfig, {"half_width_ratio": Band(1.1, 1.3)}, "half_width_ratio must be a range around 1"),
        (ChannelConfig, {"target_frac": 0.0}, "target_frac must be above 0"),
        (ChannelConfig, {"min_stop_pct": 0.0}, "stop of 0 % must be between"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_one_clear_error(
    config: type[StrategyConfig], change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config(**change)  # type: ignore[arg-type]


def test_one_wrong_value_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"^strategy configuration: .*not above its costs") as error:
        SwingConfig(exits={**SWING.exits, "stable": Exits(1.7, 3)})
    assert str(error.value).count("not above") == 1


def test_a_target_of_five_percent_pays_the_costs_of_every_tier() -> None:
    costs = [round(SWING.costs.break_even_pct(tier), 2) for tier in SWING.trail_pct]
    assert costs == [0.90, 1.11, 1.61, 2.12]
    assert SWING.exits["stable"].tp_pct == 5


def test_the_version_follows_the_rules_and_not_the_universe_or_the_spelling_of_numbers() -> None:
    assert DcaConfig(tiers={"BTC": "large_cap"}).config_version == DCA.config_version
    assert DcaConfig(drop_pct=-5).config_version == DCA.config_version
    assert DcaConfig(drop_pct=-4).config_version != DCA.config_version
    assert SwingConfig(max_atr_pct=9).config_version != SWING.config_version


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_can_be_read_from_plain_values(name: str) -> None:
    kind: Any = STRATEGIES[name].config
    values = {"tiers": {"BTC": "large_cap"}, "horizon_hours": 24, "costs": {"fee_pct": 0.1}}
    read = TypeAdapter(kind).validate_python(values)
    assert (type(read), read.strategy) == (kind, name)
    assert read == kind(tiers={"BTC": "large_cap"}, horizon_hours=24, costs=Costs(fee_pct=0.1))


def test_nested_values_are_read_into_their_types() -> None:
    values = {"exits": {name: {"tp_pct": 9, "sl_pct": 4} for name in SWING.exits}}
    assert TypeAdapter(SwingConfig).validate_python(values).exits["stable"] == Exits(9, 4)
    channel = TypeAdapter(ChannelConfig).validate_python({"half_width_ratio": {"low": 0.8, "high": 1.2}})
    assert channel.half_width_ratio == Band(0.8, 1.2)
