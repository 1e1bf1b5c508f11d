"""A composed config as what it stands for: one run, its labels, and everything wrong with it.

Importing this imports Hydra.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pydantic import Field, ValidationError

from heteromark.config.compose.hydra_loader import (
    COMMAND_LINE,
    Loader,
    told_as_config_errors,
    typed_overrides,
)
from heteromark.config.errors import ConfigError, Fault, description_of, faults_of
from heteromark.config.models.agent import Hyperparameters
from heteromark.config.models.algorithms import ROW_OF
from heteromark.config.models.run import RunConfig
from heteromark.config.nested import flatten, lies_in, overlap, value_at
from heteromark.config.pettingllms.sections import TeamSections
from heteromark.config.pettingllms.translation import (
    Translation,
    as_documented,
    idle_documented,
    is_team,
    team_job_data,
)
from heteromark.config.rules.effect import idle_faults, idle_keys, ignored_by
from heteromark.config.rules.kinds import run_faults
from heteromark.config.rules.packages import package_faults

# Keys of an agent config that select rather than being referred to.
_SELECTORS = ("agent.algorithm", "agent.network.policy")
_REFERENCE = re.compile(r"^\$\{([\w.]+)\}$")


class Job(RunConfig):
    """A run config, and what people call the run."""

    project: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=64)] = Field(
        "heteromark", description="Folder below outputs/."
    )
    experiment_name: str | None = Field(None, description="Name of an experiment, for people.")
    tags: list[str] = Field([], description="Words to find it by.")

    @property
    def run_config(self) -> RunConfig:
        """What determines the run."""
        return RunConfig.model_validate(self.model_dump(include=set(RunConfig.model_fields)))


def job_of(tree: DictConfig, loader: Loader) -> Job:
    """The job that a tree, as the loader composed it, describes.

    Raises:
        ConfigError: all faults, each with where its value stands.
    """
    if OmegaConf.is_missing(tree, "agent"):
        known = ", ".join(loader.groups()["agent"])
        message = f"is not chosen; add +agent=NAME. There are: {known}"
        raise ConfigError([Fault(loader.file_of(tree.hydra.job.config_name), message, "agent")])
    try:
        data = _resolved(tree)
    except ConfigError as error:
        raise ConfigError(_with_origin(error.faults, tree, loader)) from error
    untyped = list(loader.type_faults(tree))
    try:
        job = _made_of(data)
        # of an unknown type, what must agree with it is not known either
        faults = [] if untyped else [*run_faults(job), *package_faults(job)]
    except ConfigError as error:
        faults = _without_echoes(tree, error.faults)
    if untyped or faults:
        raise ConfigError([*untyped, *located(faults, tree, loader)])
    return job


def read_job(tree: DictConfig) -> Job:
    """The job of a tree, which may be without its hydra node.

    Raises:
        ConfigError: any fault; `job_of` tells where its value stands.
    """
    return _made_of(_resolved(tree))


def located(faults: Iterable[Fault], tree: DictConfig, loader: Loader) -> list[Fault]:
    """Faults of a run config, under the keys that are in the tree, with where their values stand.

    Args:
        tree: what was composed, of which a run config was made.
    """
    faults, data = list(faults), _resolved(tree)
    with suppress(ConfigError):  # of a team config's own rules, whose faults have documented keys
        if translation := _translation_of(data):
            faults = as_documented(faults, translation, data)
    return _with_origin(faults, tree, loader)


def in_its_words(text: str, tree: DictConfig) -> str:
    """What a run says of its keys, with the keys that are in the tree it was made of."""
    translation = _translation_of(_resolved(tree))
    return translation.in_documented_words(text) if translation else text


def has_right_types(tree: DictConfig) -> bool:
    """Whether a config is a team config whose rules were looked at: its types are right."""
    data = _resolved(tree)
    try:
        return is_team(data) and bool(TeamSections.model_validate(data))
    except ValidationError:
        return False


def unfelt_overrides(tree: DictConfig, loader: Loader, job: Job) -> Iterator[Fault]:
    """Values given on the command line that change nothing in this job."""
    yield from _taken_away(tree, loader, job)
    references = json.dumps(OmegaConf.to_container(_without_hydra(tree), resolve=False))
    translation = _translation_of(_resolved(tree))
    for override in loader.parse(typed_overrides(tree)):
        if override.is_delete() or loader.is_choice(override):
            continue
        given = flatten({override.key_or_group: override.value()})
        if translation is not None:
            yield from idle_documented(given, idle_keys(job), translation, COMMAND_LINE)
            continue
        yield from idle_faults(job, given, COMMAND_LINE)
        for key, value in given.items():
            if reason := _unfelt_hyperparameter(key, job, references):
                yield Fault(COMMAND_LINE, f"has no effect: {reason}", key, value)


def _taken_away(tree: DictConfig, loader: Loader, job: Job) -> Iterator[Fault]:
    """Keys that were taken away, but that the schema fills in again with a value of its own."""
    data = _resolved(tree)
    model: Job | TeamSections = TeamSections.model_validate(data) if is_team(data) else job
    filled = model.model_dump(mode="json")
    for override in loader.parse(typed_overrides(tree)):
        key = override.key_or_group
        node = value_at(filled, key)
        if override.is_delete() and node not in (None, {}, []):
            default = "its defaults apply" if isinstance(node, dict) else f"it would be {node}"
            message = f"cannot be taken away: {default} then. Set it instead"
            if description := description_of(type(model), key):
                message += f" ({description})"
            yield Fault(COMMAND_LINE, message, key)


def _unfelt_hyperparameter(key: str, job: Job, references: str) -> str:
    """Why a key of the agent config does nothing; empty when it does something, or is no such."""
    section, _, hyperparameter = key.partition(".")
    is_hyperparameter = hyperparameter.partition(".")[0] in Hyperparameters.model_fields
    if section != "agent" or not is_hyperparameter or key in _SELECTORS:
        return ""
    if reason := ignored_by(job.agent, hyperparameter):
        return f"{job.agent.short_name} {reason}"
    row = ROW_OF.get(job.agent.algorithm)
    if row and row.section and not row.is_mirrored and lies_in(hyperparameter, row.section):
        return ""
    if key not in references:
        return "the components that refer to it by default have values of their own here"
    return ""


def _made_of(data: dict[str, Any]) -> Job:
    """The job of resolved values, be they a run config's or a team config's.

    Raises:
        ConfigError: all faults, of unknown file.
    """
    try:
        return Job.model_validate(team_job_data(data)[0] if is_team(data) else data)
    except ValidationError as error:
        raise ConfigError(faults_of(error, Job, "")) from error


def _translation_of(data: dict[str, Any]) -> Translation | None:
    """What the keys of a team config mean; None: the values are a run config's own.

    Raises:
        ConfigError: the team config is faulty.
    """
    return team_job_data(data)[1] if is_team(data) else None


def _resolved(tree: DictConfig) -> dict[str, Any]:
    """The values of a tree, every reference followed.

    Raises:
        ConfigError: a reference to nothing.
    """
    with told_as_config_errors():
        return OmegaConf.to_container(_without_hydra(tree), resolve=True)


def _without_hydra(tree: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(tree, [key for key in tree if key != "hydra"])


def _without_echoes(tree: DictConfig, faults: Iterable[Fault]) -> list[Fault]:
    """Leave out faults of values that only refer to another faulty value."""
    faults = list(faults)

    def is_echo(fault: Fault) -> bool:
        raw = str(_raw_value(tree, fault.key))
        return "${" in raw and any(
            other.key in raw for other in faults if not overlap(other.key, fault.key)
        )

    return [fault for fault in faults if not is_echo(fault)]


def _with_origin(faults: Iterable[Fault], tree: DictConfig, loader: Loader) -> list[Fault]:
    return [
        replace(fault, file=_origin_of(tree, fault.key, loader)) if fault.key else fault
        for fault in faults
    ]


def _origin_of(tree: DictConfig, key: str, loader: Loader) -> str:
    """The command line, or the file that has the last word on a key.

    A value that only refers to another key, as in `${agent.gamma}`, stands where that one does.
    """
    overrides = typed_overrides(tree)
    given = [o.key_or_group for o in loader.parse(overrides) if not loader.is_choice(o)]
    if any(overlap(written, key) for written in given):
        return COMMAND_LINE
    if reference := _REFERENCE.match(str(_raw_value(tree, key))):
        return _origin_of(tree, reference[1], loader)
    primary = tree.hydra.job.config_name
    composed = loader.compute_defaults_list(primary, overrides, RunMode.RUN).defaults
    for default in reversed(composed):
        if not default.config_path or default.config_path.startswith("hydra/"):
            continue
        if _raw_value(loader.content_of(default), key) is not None:
            return loader.file_of(default.config_path)
    return loader.file_of(primary)


def _raw_value(tree: DictConfig, key: str) -> Any:
    """What stands at a dotted key, references as they are written; None where nothing stands.

    Where the key ends early, at a list or a number, it is that.
    """
    node: Any = OmegaConf.to_container(tree, resolve=False)
    for part in key.split("."):
        if not isinstance(node, dict):
            return node
        node = node.get(part)
    return node
