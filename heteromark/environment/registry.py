"""Environment factories by `env_type`. Each has its own folder with a module `factory`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torchrl.envs import EnvBase

from heteromark.config.models.run import RunConfig
from heteromark.import_paths import Registry, Task


class EnvironmentRequest(NamedTuple):
    """The copies an environment must consist of."""

    num_envs: int  # number of copies, N
    first: int = 0  # index of the first copy among all copies of the run
    render: bool = False  # whether copy 0 must be able to render
    device: torch.device = torch.device("cpu")  # used by environments that support a GPU


def task_of(config: RunConfig) -> Task:
    """Return the task of a run whose env_type needs one."""
    environment = config.environment
    assert environment.task is not None, f"RunConfig requires a task with {config.env_type}"
    return Task(environment.task, environment.kwargs)


EnvironmentMaker = Callable[[RunConfig, EnvironmentRequest], EnvBase]
ENVIRONMENTS: Registry[EnvironmentMaker] = Registry(
    "env_type",
    {
        name: f"environment.{name}.factory"
        for name in ("skirmish", "pettingzoo", "smac", "vmas", "custom")
    },
)
