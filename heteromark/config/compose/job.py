"""Turn a composed config into a job: one run and its labels, or all of its faults.

Importing this module imports Hydra.
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

from heteromark.config.compose.env_values import from_environment
from heteromark.config.compose.hydra_loader import (
    COMMAND_LINE,
    Loader,
    as_config_errors,
    command_line_overrides,
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
    ineffective_team_keys,
    is_team,
    team_job_data,
)
from heteromark.config.rules.effect import ineffective_key_faults, ineffective_keys, why_ignored
from heteromark.config.rules.kinds import run_faults
from heteromark.config.rules.packages import package_faults

# Keys of an agent config that select components; the components do not refer to them.
_SELECTORS = ("agent.algorithm", "agent.network.policy")
_REFERENCE = re.compile(r"^\$\{([\w.]+)\}$")


class Job(RunConfig):
    """A run config and the labels of the run."""

    project: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=64)] = Field(
        "heteromark", description="Folder below outputs/."
    )
    experiment_name: str | None = Field(None, description="Display name of the experiment.")
    tags: list[str] = Field([], description="Tags to find the run by.")

    @property
    def run_config(self) -> RunConfig:
        """The run config without the labels."""
        return RunConfig.model_validate(self.model_dump(include=set(RunConfig.model_fields)))


def job_of(tree: DictConfig, loader: Loader) -> Job:
    """Return the job of a composed tree.

    Raises:
        ConfigError: all faults, each with the source of its value.
    """
    if OmegaConf.is_missing(tree, "agent"):
        known = ", ".join(loader.groups()["agent"])
        message = f"is not set; add +agent=NAME. Available: {known}"
        raise ConfigError([Fault(loader.file_of(tree.hydra.job.config_name), message, "agent")])
    try:
        data = _resolved(tree)
    except ConfigError as error:
        raise ConfigError(_with_origin(error.faults, tree, loader)) from error
    type_faults = list(loader.type_faults(tree))
    try:
        job = _build_job(data, tree)
        # The rules between sections depend on the types: skip them if a type is unknown.
        faults = [] if type_faults else [*run_faults(job), *package_faults(job)]
    except ConfigError as error:
        faults = _without_echoes(tree, error.faults)
    if type_faults or faults:
        raise ConfigError([*type_faults, *locate_faults(faults, tree, loader)])
    return job


def read_job(tree: DictConfig) -> Job:
    """Return the job of a tree, with or without its hydra node.

    Raises:
        ConfigError: any fault. Unlike `job_of`, without the source of the value.
    """
    return _build_job(_resolved(tree), tree)


def locate_faults(faults: Iterable[Fault], tree: DictConfig, loader: Loader) -> list[Fault]:
    """Report faults of a run config under the keys of the composed tree, with their sources.

    Args:
        faults: faults of the run config.
        tree: the composed tree that the run config was built from.
        loader: the loader that composed it.
    """
    faults, data = list(faults), _resolved(tree)
    with suppress(ConfigError):  # faults of a team config's own rules already have its keys
        if translation := _translation_of(data):
            faults = as_documented(faults, translation, data)
    return _with_origin(faults, tree, loader)


def with_tree_keys(text: str, tree: DictConfig) -> str:
    """Replace the run-config keys in a message by the keys of the tree."""
    translation = _translation_of(_resolved(tree))
    return translation.with_documented_keys(text) if translation else text


def has_valid_types(tree: DictConfig) -> bool:
    """Return whether a config is a team config with valid types, so that its rules were checked."""
    data = _resolved(tree)
    try:
        return is_team(data) and bool(TeamSections.model_validate(data))
    except ValidationError:
        return False


def ineffective_overrides(tree: DictConfig, loader: Loader, job: Job) -> Iterator[Fault]:
    """Yield a fault for each command-line override that has no effect on this job."""
    yield from _deletion_faults(tree, loader, job)
    references = json.dumps(OmegaConf.to_container(_without_hydra(tree), resolve=False))
    translation = _translation_of(_resolved(tree))
    for override in loader.parse(command_line_overrides(tree)):
        if override.is_delete() or loader.is_choice(override):
            continue
        given = flatten({override.key_or_group: override.value()})
        if translation is not None:
            yield from ineffective_team_keys(
                given, ineffective_keys(job), translation, COMMAND_LINE
            )
            continue
        yield from ineffective_key_faults(job, given, COMMAND_LINE)
        for key, value in given.items():
            if reason := _why_ineffective(key, job, references):
                yield Fault(COMMAND_LINE, f"has no effect: {reason}", key, value)


def _deletion_faults(tree: DictConfig, loader: Loader, job: Job) -> Iterator[Fault]:
    """Yield a fault for each deleted key that the schema would fill with its default."""
    data = _resolved(tree)
    model: Job | TeamSections = TeamSections.model_validate(data) if is_team(data) else job
    filled = model.model_dump(mode="json")
    for override in loader.parse(command_line_overrides(tree)):
        key = override.key_or_group
        node = value_at(filled, key)
        if override.is_delete() and node not in (None, {}, []):
            default = "defaults" if isinstance(node, dict) else f"default, {node},"
            message = f"cannot be deleted: its {default} would apply. Set it instead"
            if description := description_of(type(model), key):
                message += f" ({description})"
            yield Fault(COMMAND_LINE, message, key)


def _why_ineffective(key: str, job: Job, references: str) -> str:
    """Return why a hyperparameter of the agent config has no effect; empty for all other keys."""
    section, _, hyperparameter = key.partition(".")
    is_hyperparameter = hyperparameter.partition(".")[0] in Hyperparameters.model_fields
    if section != "agent" or not is_hyperparameter or key in _SELECTORS:
        return ""
    if reason := why_ignored(job.agent, hyperparameter):
        return f"{job.agent.short_name} {reason}"
    row = ROW_OF.get(job.agent.algorithm)
    if row and row.section and lies_in(hyperparameter, row.section):
        return ""
    if key not in references:
        return "the components that use it by default override it here"
    return ""


def _build_job(data: dict[str, Any], tree: DictConfig) -> Job:
    """Build the job from the resolved values of a run config or team config.

    Raises:
        ConfigError: all faults, without a file.
    """
    job = _validated(data)
    taken = from_environment(tree, lambda: _validated(_resolved(tree)).model_dump())
    return job.model_copy(update={"from_environment": taken})


def _validated(data: dict[str, Any]) -> Job:
    try:
        return Job.model_validate(team_job_data(data)[0] if is_team(data) else data)
    except ValidationError as error:
        raise ConfigError(faults_of(error, Job, "")) from error


def _translation_of(data: dict[str, Any]) -> Translation | None:
    """Return the translation of a team config; None: `data` is a run config.

    Raises:
        ConfigError: the team config is invalid.
    """
    return team_job_data(data)[1] if is_team(data) else None


def _resolved(tree: DictConfig) -> dict[str, Any]:
    """Return the values of a tree with all references resolved.

    Raises:
        ConfigError: a reference cannot be resolved.
    """
    with as_config_errors():
        values: Any = OmegaConf.to_container(_without_hydra(tree), resolve=True)
    return values


def _without_hydra(tree: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(tree, [str(key) for key in tree if key != "hydra"])


def _without_echoes(tree: DictConfig, faults: Iterable[Fault]) -> list[Fault]:
    """Drop faults of values that only refer to another faulty value."""
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
    """Return the source of a key's value: COMMAND_LINE, or the last file that sets it.

    A reference such as `${agent.gamma}` has the source of the key that it refers to.
    """
    overrides = command_line_overrides(tree)
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
    """Return the unresolved value at a dotted key; None if it is missing.

    If the path ends early, at a list or a number, that is returned.
    """
    node: Any = OmegaConf.to_container(tree, resolve=False)
    for part in key.split("."):
        if not isinstance(node, dict):
            return node
        node = node.get(part)
    return node
