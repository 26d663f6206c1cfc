"""Every setting, typed: the environment (`TRACKER_*`) and one YAML file, read once.

What belongs here: the environment, reading the file, and one clear sentence for each mistake. What does not: the keys
of the file (`configuration`), anything that acts on a setting. Secrets are read from the environment by name and held
as `SecretStr`.
"""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tracker_pipeline.configuration import Endpoints, NetworkConfig, PipelineConfig


class ConfigurationError(Exception):
    """A setting is wrong; the text says which, and what to do."""


class Settings(BaseSettings):
    """The environment."""

    model_config = SettingsConfigDict(
        env_prefix="TRACKER_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    home: Path = Path(".tracker")
    setting: Literal["sandbox", "live"] = "sandbox"
    database_url: SecretStr | None = None
    lake_uri: str | None = None
    config: Path | None = None

    @property
    def state_folder(self) -> Path:
        """`TRACKER_HOME`, absolute."""
        return self.home.expanduser().absolute()

    @property
    def lake(self) -> str:
        """Root of the lake: a folder or a URI."""
        return self.lake_uri or str(self.state_folder / "lake")


def _merge(base: dict[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


def _read_yaml(text: str, where: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{where} must hold a mapping of settings at its top level")
    return content


def _read_file(path: Path, where: str) -> dict[str, Any]:
    try:
        return _read_yaml(path.read_text("utf-8"), where)
    except OSError as error:
        raise ConfigurationError(f"{where} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{where} is not UTF-8 text") from error


def explained(error: ValidationError, model: type[BaseModel], where: str) -> ConfigurationError:
    """What is wrong with the content of a file, in a sentence for each key; for an unknown key those that there are.

    Args:
        error: of the validation.
        model: of the whole content.
        where: the file.
    """
    problems = []
    for problem in error.errors():
        words = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            words = f"there is no such key, only {', '.join(_keys_beside(model, problem['loc']))}"
        problems.append(f"{'.'.join(str(part) for part in problem['loc'])}: {words}")
    return ConfigurationError(f"{where} is wrong: {'; '.join(problems)}")


def _keys_beside(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """The keys that a mapping of the content may have; those of the deepest model on the way to `place`."""
    for part in place[:-1]:
        found = model.model_fields.get(str(part))
        model = (found and _model_in(found.annotation)) or model
    return sorted(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model of a field: itself, or of what it holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for inner in get_args(annotation) if (model := _model_in(inner))), None)


def _explain_environment(error: ValidationError) -> ConfigurationError:
    problems = "; ".join(
        f"TRACKER_{str(problem['loc'][0]).upper()}: {problem['msg']}" for problem in error.errors()
    )
    return ConfigurationError(f"the environment is wrong: {problems}")


@cache
def get_settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        ConfigurationError: a variable has a value that is not allowed.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise _explain_environment(error) from None


@cache
def get_config() -> PipelineConfig:
    """The packaged configuration with the file named by `TRACKER_CONFIG` laid over it.

    Raises:
        ConfigurationError: the file cannot be read, is not YAML, or holds a wrong value.
    """
    content = _read_yaml(
        resources.files("tracker_pipeline").joinpath("default_config.yaml").read_text("utf-8"),
        "the packaged configuration",
    )
    content["universe"] = _read_yaml(
        resources.files("tracker_pipeline").joinpath("universe.yaml").read_text("utf-8"), "the universe"
    )
    path = get_settings().config
    where = f"TRACKER_CONFIG ({path})" if path else "the packaged configuration"
    if path:
        own = _read_file(path.expanduser(), where)
        if isinstance(own.get("universe"), str):
            file = path.expanduser().parent / own["universe"]
            own["universe"] = _read_file(file, f"the universe ({file}) that {where} names")
        if "universe" in own:  # a universe is a whole: another one takes nothing from the packaged one
            del content["universe"]
        content = _merge(content, own)
    try:
        return PipelineConfig.model_validate(content)
    except ValidationError as error:
        raise explained(error, PipelineConfig, where) from None


def get_endpoints() -> Endpoints:
    """The endpoints of the setting in force."""
    setting = get_settings().setting
    try:
        return get_config().endpoints[setting]
    except KeyError:
        raise ConfigurationError(f"the configuration has no endpoints for the setting {setting!r}") from None


def get_networks() -> Mapping[str, NetworkConfig]:
    """The networks that are read, by name, in the setting in force.

    Raises:
        ConfigurationError: one is configured twice.
    """
    endpoints, first = get_endpoints(), get_config().chain.network
    if first in endpoints.networks:
        raise ConfigurationError(
            f"{first} is configured twice: as chain.network with the endpoints, and under endpoints.networks"
        )
    return {first: endpoints, **endpoints.networks}


def secret(name: str, what: str) -> SecretStr:
    """The secret that a variable holds.

    Raises:
        ConfigurationError: it is unset.
    """
    held = os.environ.get(name, "").strip()
    if not held:
        raise ConfigurationError(f"{what} is not set: set the variable {name}")
    return SecretStr(held)


def rpc_urls(endpoints: NetworkConfig) -> tuple[SecretStr, ...]:
    """The JSON-RPC URLs in order of preference; they may carry keys, so they are secrets.

    Raises:
        ConfigurationError: the variable that should hold them is unset, or none is configured.
    """
    if endpoints.rpc_urls_env is None:
        urls = endpoints.rpc_urls
    else:
        held = os.environ.get(endpoints.rpc_urls_env, "")
        urls = tuple(url.strip() for url in held.split(",") if url.strip())
    if not urls:
        name = endpoints.rpc_urls_env
        remedy = f"set {name} to one or more URLs" if name else "add rpc_urls to the configuration"
        raise ConfigurationError(f"no JSON-RPC endpoint is configured: {remedy}")
    return tuple(SecretStr(url) for url in urls)
