"""Read policy files, for any kind of agents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import nn

from heteromark.config.models.run import RunConfig
from heteromark.training.checkpoint import read_policy, shape_misfit
from heteromark.training.trust import require_trusted


class SavedPolicy(NamedTuple):
    """The content of a policy file, before networks are built."""

    path: Path  # of the file
    config: RunConfig  # of the run that wrote it
    content: dict[str, Any]  # see `read_policy`


def read_saved(path: Path, device: torch.device | str = "cpu") -> SavedPolicy:
    """Read a run's checkpoint.pt or best.pt, with its tensors on any device.

    Raises:
        ValueError: the file is missing or damaged, this heteromark cannot read it, or it names code
            that must be trusted first (see `training.trust`).
    """
    path = Path(path)
    content = read_policy(path, torch.device(device))
    try:
        config = RunConfig.from_record(content["config"])
    except ValidationError as error:
        raise ValueError(f"this heteromark rejects the config in {path}: {error}") from error
    require_trusted(config, path)
    return SavedPolicy(path, config, content)


def restore(actors: Mapping[str, nn.Module], saved: SavedPolicy) -> None:
    """Load saved weights into actors.

    Raises:
        ValueError: the actors differ from the saved ones.
    """
    path, states = saved.path, saved.content["actors"]
    environment = saved.config.environment.name
    if set(actors) != set(states):
        raise ValueError(
            f"{path} has actors for the groups {', '.join(states)}, but environment "
            f"{environment!r} now has the groups {', '.join(actors)}; train the run again"
        )
    for group, actor in actors.items():
        if misfit := shape_misfit(actor.state_dict(), states[group]):
            raise ValueError(
                f"the actor of {group!r} in {path} does not fit environment "
                f"{environment!r}: {misfit}; train the run again"
            )
        actor.load_state_dict(states[group])
