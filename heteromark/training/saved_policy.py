"""What a policy's file holds, whatever kind of agents it is for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import nn

from heteromark.config.models.run import RunConfig
from heteromark.training.checkpoint import read_policy, shape_misfit


class SavedPolicy(NamedTuple):
    """What a policy's file holds, before networks are built for it."""

    path: Path  # of the file
    config: RunConfig  # of the run that wrote it
    content: dict[str, Any]  # see `read_policy`


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
