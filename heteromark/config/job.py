"""A composed config as what it stands for: one run, its labels, and everything wrong with it.

Importing this imports Hydra.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Annotated

from omegaconf import DictConfig, OmegaConf
from pydantic import Field, ValidationError

from heteromark.config.agent import Hyperparameters
from heteromark.config.backends import package_faults
from heteromark.config.compose import selector_faults
from heteromark.config.effect import idle_faults, ignored_by
from heteromark.config.errors import ConfigError, Fault, faults_of
from heteromark.config.hydra_loader import (
    COMMAND_LINE,
    Loader,
    told_as_config_errors,
    typed_overrides,
)
from heteromark.config.nested import flatten
from heteromark.config.origin import origin_of, overlap, raw_value
from heteromark.config.schema import RunConfig

# Keys of an agent config that select rather than being referred to.
_SELECTORS = ("agent.algorithm", "agent.network.policy")


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
        job = read_job(tree)
        faults = [*selector_faults(job), *package_faults(job)]
    except ValidationError as error:
        faults = _without_echoes(tree, faults_of(error, Job, ""))
    if faults:
        located = (replace(fault, file=origin_of(tree, fault.key, loader)) for fault in faults)
        raise ConfigError(located)
    return job


def read_job(tree: DictConfig) -> Job:
    """The job of a tree, which may be without its hydra node.

    Raises:
        ConfigError: a reference to nothing.
        pydantic.ValidationError: any other fault; `job_of` tells them.
    """
    with told_as_config_errors():
        data = OmegaConf.to_container(_without_hydra(tree), resolve=True)
    return Job.model_validate(data)


def unfelt_overrides(tree: DictConfig, loader: Loader, job: Job) -> Iterator[Fault]:
    """Values given on the command line that change nothing in this job."""
    references = json.dumps(OmegaConf.to_container(_without_hydra(tree), resolve=False))
    for override in loader.parse(typed_overrides(tree)):
        if override.is_delete() or loader.is_choice(override):
            continue
        given = flatten({override.key_or_group: override.value()})
        yield from idle_faults(job, given, COMMAND_LINE)
        for key, value in given.items():
            if reason := _unfelt_hyperparameter(key, job, references):
                yield Fault(COMMAND_LINE, f"has no effect: {reason}", key, value)


def _unfelt_hyperparameter(key: str, job: Job, references: str) -> str:
    """Why a key of the agent config does nothing; empty when it does something, or is no such."""
    section, _, hyperparameter = key.partition(".")
    is_hyperparameter = hyperparameter.partition(".")[0] in Hyperparameters.model_fields
    if section != "agent" or not is_hyperparameter or key in _SELECTORS:
        return ""
    if reason := ignored_by(job.agent, hyperparameter):
        return f"{job.agent.short_name} {reason}"
    if key not in references:
        return "the components that refer to it by default have values of their own here"
    return ""


def _without_hydra(tree: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(tree, [key for key in tree if key != "hydra"])


def _without_echoes(tree: DictConfig, faults: Iterable[Fault]) -> list[Fault]:
    """Leave out faults of values that only refer to another faulty value."""
    faults = list(faults)

    def is_echo(fault: Fault) -> bool:
        raw = str(raw_value(tree, fault.key))
        return "${" in raw and any(
            other.key in raw for other in faults if not overlap(other.key, fault.key)
        )

    return [fault for fault in faults if not is_echo(fault)]
