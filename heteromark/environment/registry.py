"""What makes environments, by `env_type`. Each lies in a folder of its own, with its `factory`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torchrl.envs import EnvBase

from heteromark.config.models.run import RunConfig
from heteromark.import_paths import Registry


class Wanted(NamedTuple):
    """The copies that an environment is made of.

    Attributes:
        num_envs: how many, N.
        first: number of the first among all copies of the run.
        render: copy 0 has to draw itself.
        device: where copies are that can be anywhere.
    """

    num_envs: int
    first: int = 0
    render: bool = False
    device: torch.device = torch.device("cpu")


EnvironmentMaker = Callable[[RunConfig, Wanted], EnvBase]
ENVIRONMENTS: Registry[EnvironmentMaker] = Registry(
    "env_type",
    {name: f"environment.{name}.factory" for name in ("skirmish", "pettingzoo", "smac", "custom")},
)
