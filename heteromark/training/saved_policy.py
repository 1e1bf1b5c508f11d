"""A trained policy, from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import nn
from torchrl.modules import ProbabilisticActor

from heteromark.config.models.run import RunConfig
from heteromark.environment.groups import Group
from heteromark.modules.environment import EnvironmentFactory
from heteromark.modules.policy import PolicyFactory
from heteromark.training.checkpoint import read_policy, shape_misfit


class SavedPolicy(NamedTuple):
    """What a policy's file holds, before networks are built for it.

    Attributes:
        path: of the file.
        config: of the run that wrote it.
        content: see `read_policy`.
    """

    path: Path
    config: RunConfig
    content: dict[str, Any]


class LoadedPolicy(NamedTuple):
    """A trained policy, from a file.

    Attributes:
        config: of the run that trained it.
        actors: by group.
        groups: of its environment, by name.
        opponent_pool: state of the past selves that it was trained against; None: it was not.
        iteration: after which it was taken.
    """

    config: RunConfig
    actors: dict[str, ProbabilisticActor]
    groups: Mapping[str, Group]
    opponent_pool: dict[str, Any] | None
    iteration: int


def read_saved(path: Path, device: torch.device | str = "cpu") -> SavedPolicy:
    """The content of a run's checkpoint.pt or best.pt, its tensors on any device.

    Raises:
        ValueError: the file is missing, damaged, or not of this heteromark.
    """
    path = Path(path)
    content = read_policy(path, torch.device(device))
    try:
        return SavedPolicy(path, RunConfig.model_validate(content["config"]), content)
    except ValidationError as error:
        raise ValueError(f"{path} holds a config that this heteromark rejects: {error}") from error


def load_policy(path: Path, device: torch.device | str = "cpu") -> LoadedPolicy:
    """The trained policy of a run's checkpoint.pt or best.pt, on any device.

    Raises:
        ValueError: the file is missing, damaged, does not fit this heteromark or environment, or
            holds a team of language-model agents, see `load_team`.
    """
    saved = read_saved(path, device)
    config, content = saved.config, saved.content
    if config.env_type == "text":
        raise ValueError(
            f"{saved.path} holds language-model agents for the task {config.environment.name}, who "
            "act in no other environment; name the checkpoint of a run that was trained in one"
        )
    environment = EnvironmentFactory().create(config, num_envs=1)
    try:
        policies = PolicyFactory().create(config, environment.groups, environment.state_size)
        actors = policies.actors
    finally:
        environment.close()
    for actor in actors.values():
        actor.to(device)
    restore(actors, saved)
    return LoadedPolicy(
        config, actors, environment.groups, content["opponent_pool"], content["iteration"]
    )


def restore(actors: Mapping[str, nn.Module], saved: SavedPolicy) -> None:
    """Give actors their trained weights.

    Raises:
        ValueError: these are other actors than were saved.
    """
    path, states = saved.path, saved.content["actors"]
    environment = saved.config.environment.name
    if set(actors) != set(states):
        raise ValueError(
            f"{path} holds actors of {', '.join(states)}, but the groups of environment "
            f"{environment!r} are now {', '.join(actors)}; train the run again"
        )
    for group, actor in actors.items():
        if misfit := shape_misfit(actor.state_dict(), states[group]):
            raise ValueError(
                f"the actor of {group!r} in {path} does not fit environment "
                f"{environment!r}: {misfit}; train the run again"
            )
        actor.load_state_dict(states[group])
