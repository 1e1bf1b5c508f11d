"""The environment factory."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torchrl.envs import EnvBase

from heteromark.config.schema import EnvironmentConfig, RunConfig
from heteromark.environment.pettingzoo import PettingZooParallelEnv
from heteromark.modules.registry import Registry, import_path

ENVIRONMENTS: Registry[Callable[[EnvironmentConfig, int], EnvBase]] = Registry("env_type")


class EnvironmentFactory:
    """Creates the batched environment that a run config asks for."""

    def create(self, config: RunConfig, num_envs: int | None = None) -> EnvBase:
        """An unseeded environment of batch size [num_envs], on the CPU.

        Args:
            config: the run.
            num_envs: number of copies; by default `environment.num_parallel_envs`.

        Raises:
            ModuleNotFoundError, ValueError: the task cannot be imported, or its agents do not fit
                the groups of the config.
        """
        copies = config.environment.num_parallel_envs if num_envs is None else num_envs
        return ENVIRONMENTS[config.env_type](config.environment, copies)


@ENVIRONMENTS.register("pettingzoo")
def _pettingzoo(config: EnvironmentConfig, num_envs: int) -> EnvBase:
    return PettingZooParallelEnv(
        functools.partial(import_path(config.task, "environment.task"), **config.kwargs),
        num_envs,
        group_by=config.group_by,
        groups=config.groups,
        team_reward=config.reward == "team",
        name=config.name,
    )
