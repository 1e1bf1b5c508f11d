"""What makes environments, by `env_type`. Each lies in a folder of its own, with its `factory`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torchrl.envs import EnvBase

from heteromark.config.models.run import RunConfig
from heteromark.import_paths import Registry


class Wanted(NamedTuple):
    """The copies that an environment is made of."""

    num_envs: int  # how many, N
    first: int = 0  # number of the first among all copies of the run
    render: bool = False  # copy 0 has to draw itself
    device: torch.device = torch.device("cpu")  # where copies are that can be anywhere


EnvironmentMaker = Callable[[RunConfig, Wanted], EnvBase]
ENVIRONMENTS: Registry[EnvironmentMaker] = Registry(
    "env_type",
    {name: f"environment.{name}.factory" for name in ("skirmish", "pettingzoo", "smac", "custom")},
)
