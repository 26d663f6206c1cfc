"""Policies of the archive: for each table either when its rows move and how, or that they never do.

What belongs here: the YAML files, their validation, and the refusal of tables that no policy names. What does not:
the moves.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.settings import ConfigurationError, explained, get_config, get_settings
from tracker_pipeline.storage.catalogue import tables_of
from tracker_pipeline.storage.database import Connection

_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1)}


def _duration(text: object) -> object:
    match = re.fullmatch(r"\s*(\d+)\s*([hd])\s*", str(text))
    if not match or int(match[1]) == 0:
        raise ValueError(f"{text!r} is not a duration: write it as 24 h or 30 d")
    return int(match[1]) * _UNITS[match[2]]


class Policy(BaseModel):
    """How the rows of one table move to the lake.

    Attributes:
        time_column: rows belong to the UTC day of this column; without a time zone it is taken for UTC.
        retention: rows stay in Postgres for this long.
        may_change_while: SQL condition on a row that may still change; such a row stays however old it is, and so
            does one for which the condition is unknown. `:cut` stands for the cut.
        mode: `row` deletes rows, `partition` drops whole native partitions.
        group: the tables that belong together, for the UI.
        sort: columns that rows are sorted by within a file.
        same_key: what a row means whose key the lake holds already. `correct`: it is a correction and replaces the
            cold row. `report`: the key was used twice; both rows are kept and the reuse is reported.
        whole_days: move a day only once all of it lies before the cut.
        allow_no_key: move rows of a table without primary key.
        cold_retention: archived days older than this are let go; none are if not given. Longer than `retention`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_column: str
    retention: Annotated[timedelta, BeforeValidator(_duration)]
    may_change_while: str | None = None
    mode: Literal["row", "partition"] = "row"
    group: str = "archive"
    sort: tuple[str, ...] = ()
    same_key: Literal["correct", "report"] = "report"
    whole_days: bool = False
    allow_no_key: bool = False
    cold_retention: Annotated[timedelta, BeforeValidator(_duration)] | None = None

    @field_validator("cold_retention")
    @classmethod
    def _outlasts_retention(cls, value: timedelta | None, info: ValidationInfo) -> timedelta | None:
        if value is not None and value <= info.data.get("retention", value - _UNITS["h"]):
            raise ValueError(
                "it must be longer than retention, or rows would be let go as soon as they are archived"
            )
        return value


class _PolicyFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    archived: Mapping[str, Policy] = Field(default_factory=dict)
    never_archived: Mapping[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Policies:
    """All policies in force.

    Attributes:
        archived: by table.
        never: why a table is never archived, by table.
    """

    archived: Mapping[str, Policy] = field(default_factory=dict)
    never: Mapping[str, str] = field(default_factory=dict)

    def of(self, table: str) -> Policy:
        """The policy of a table.

        Raises:
            PermanentError: it has none, or is never archived.
        """
        if table in self.archived:
            return self.archived[table]
        if table in self.never:
            raise PermanentError(f"{table} is not archived: {self.never[table]}")
        raise PermanentError(
            f"{table} is not archived; archived tables are {', '.join(sorted(self.archived))}"
        )

    @property
    def schemas(self) -> list[str]:
        """Schemas whose tables must all be named."""
        return sorted({name.split(".")[0] for name in (*self.archived, *self.never)})

    def refuse_unclassified(self, connection: Connection) -> None:
        """Stop where a table of these schemas is named by no policy.

        Raises:
            PermanentError: there is one; nothing may be written.
        """
        known = {*self.archived, *self.never}
        unknown = [name for name in tables_of(connection, self.schemas) if name not in known]
        if unknown:
            raise PermanentError(
                f"no archive policy names {', '.join(unknown)}: list each under archived or never_archived;"
                " until then nothing is archived"
            )

    def refuse_unknown(self, connection: Connection, names: Sequence[str]) -> None:
        """Stop where a table has neither an archived row nor a policy, for its name may be a slip of the pen.

        Raises:
            PermanentError: there is one.
        """
        there = connection.execute("SELECT DISTINCT table_name FROM archive.batches").fetchall()
        if unknown := sorted(set(names) - {name for (name,) in there} - set(self.archived)):
            raise PermanentError(
                f"{', '.join(unknown)}: nothing of it is archived, and no policy says it should be"
            )


def read_policies(files: Sequence[tuple[str, str]]) -> Policies:
    """Policies out of the text of some files.

    Args:
        files: name and text of each.

    Raises:
        ConfigurationError: a file is wrong, or a table is named twice.
    """
    archived: dict[str, Policy] = {}
    never: dict[str, str] = {}
    for name, text in files:
        content = _parse(name, text)
        twice = sorted(
            {*content.archived, *content.never_archived} & {*archived, *never}
            | set(content.archived) & set(content.never_archived)
        )
        if twice:
            raise ConfigurationError(
                f"{name}: {', '.join(twice)} may stand under archived or under never_archived, and only once"
            )
        archived.update(content.archived)
        never.update(content.never_archived)
    unqualified = sorted(table for table in (*archived, *never) if table.count(".") != 1)
    if unqualified:
        raise ConfigurationError(f"write {', '.join(unqualified)} as schema.table")
    return Policies(archived, never)


@cache
def policies_of(files: tuple[str, ...], beside: Path) -> Policies:
    """The policies of some files, read once."""
    return read_policies([(name, _text_of(name, beside)) for name in files])


def get_policies() -> Policies:
    """The policies of the files that the configuration names."""
    config = get_settings().config
    return policies_of(tuple(get_config().archive.policies), (config or Path()).expanduser().parent)


def _text_of(name: str, beside: Path) -> str:
    """A file of the user, relative to their configuration, or one that is packaged."""
    own = beside / Path(name).expanduser()
    try:
        if own.exists():
            return own.read_text("utf-8")
        if "/" not in name:
            return resources.files("tracker_pipeline").joinpath(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the archive policies {name} cannot be read: {error}") from error
    raise ConfigurationError(f"the archive policies {own} do not exist: correct archive.policies")


class _OncePerKey(yaml.SafeLoader):
    """YAML without repeated keys, which the ordinary loader takes for the last of them."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [str(key.value) for key, _ in node.value]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise yaml.YAMLError(f"{', '.join(repeated)} stands there twice")
    return loader.construct_mapping(node, deep=True)


_OncePerKey.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _parse(name: str, text: str) -> _PolicyFile:
    try:
        content = yaml.load(text, Loader=_OncePerKey)  # noqa: S506  # it is a safe loader
        return _PolicyFile.model_validate(content or {})
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{name} is not valid: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise explained(error, _PolicyFile, name) from None
