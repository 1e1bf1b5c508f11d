"""A trained policy, from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torchrl.modules import ProbabilisticActor

from heteromark.config.schema import RunConfig
from heteromark.environment.groups import Group
from heteromark.modules.environment import EnvironmentFactory
from heteromark.modules.policy import PolicyFactory
from heteromark.training.checkpoint import read_policy, shape_misfit


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


def load_policy(path: Path, device: torch.device | str = "cpu") -> LoadedPolicy:
    """The trained policy of a run's checkpoint.pt or best.pt, on any device.

    Raises:
        ValueError: the file is missing, damaged, or does not fit this heteromark or environment.
    """
    path = Path(path)
    saved = read_policy(path, torch.device(device))
    try:
        config = RunConfig.model_validate(saved["config"])
    except ValidationError as error:
        raise ValueError(f"{path} holds a config that this heteromark rejects: {error}") from error
    environment = EnvironmentFactory().create(config, num_envs=1)
    try:
        policies = PolicyFactory().create(config, environment.groups, environment.state_size)
        actors = policies.actors
    finally:
        environment.close()
    if set(actors) != set(saved["actors"]):
        raise ValueError(
            f"{path} holds actors of {', '.join(saved['actors'])}, but the groups of environment "
            f"{config.environment.name!r} are now {', '.join(actors)}; train the run again"
        )
    for group, actor in actors.items():
        actor.to(device)
        if misfit := shape_misfit(actor.state_dict(), saved["actors"][group]):
            raise ValueError(
                f"the actor of {group!r} in {path} does not fit environment "
                f"{config.environment.name!r}: {misfit}; train the run again"
            )
        actor.load_state_dict(saved["actors"][group])
    return LoadedPolicy(
        config, actors, environment.groups, saved["opponent_pool"], saved["iteration"]
    )
