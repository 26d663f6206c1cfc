"""The strategies' configuration: the packaged defaults, what the YAML file changes, and the tiers of the universe.

What belongs here: putting the three together. What does not: the rules (`domain.setups`, `domain.labels`).
"""

from dataclasses import fields
from functools import cache

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from tracker_pipeline.domain.setups import STRATEGIES
from tracker_pipeline.domain.strategy_config import StrategyConfig
from tracker_pipeline.settings import ConfigurationError, get_config


@cache
def strategy_configs() -> dict[str, StrategyConfig]:
    """Configuration by strategy.

    Raises:
        ConfigurationError: a strategy or a field is unknown, a field has a wrong type, or a target lies below its
            costs.
    """
    config = get_config()
    return {
        name: _strategy(name, dict(values), config.universe.tiers())
        for name, values in config.strategies.items()
    }


def _strategy(name: str, values: dict[str, object], tiers: dict[str, str]) -> StrategyConfig:
    if name not in STRATEGIES:
        raise ConfigurationError(f"strategies has no {name}; known are {', '.join(STRATEGIES)}")
    kind = STRATEGIES[name].config
    known = {field.name for field in fields(kind)} - {"tiers"}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigurationError(
            f"strategies.{name} has no {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    try:
        return TypeAdapter(kind).validate_python({**values, "tiers": tiers})
    except ValidationError as error:
        problems = "; ".join(_sentence(problem) for problem in error.errors())
        raise ConfigurationError(f"strategies.{name} is wrong: {problems}") from None


def _sentence(problem: ErrorDetails) -> str:
    """What is wrong with a value, after its name if it has one."""
    said = problem["msg"].removeprefix("Value error, ").removeprefix("strategy configuration: ")
    return f"{'.'.join(map(str, problem['loc']))} {said}".strip()
