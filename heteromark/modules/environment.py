"""The environment factory."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from torchrl.envs import EnvBase

from heteromark.config.schema import EnvironmentConfig, OpponentConfig, RunConfig
from heteromark.environment.pettingzoo import PettingZooParallelEnv
from heteromark.modules.registry import Registry

ENVIRONMENTS: Registry[Callable[[EnvironmentConfig, int], EnvBase]] = Registry("env_type")


class EnvironmentFactory:
    """Creates the batched environment that a run config asks for."""

    def create(
        self,
        config: RunConfig,
        num_envs: int | None = None,
        opponent: OpponentConfig | None = None,
        render: bool = False,
    ) -> EnvBase:
        """An unseeded environment of batch size [num_envs], on the CPU.

        Args:
            config: the run.
            num_envs: number of copies; by default `environment.num_parallel_envs`.
            opponent: who plays the other seats of a turn-based game; by default
                `environment.opponent`.
            render: make copy 0 so that `render()` draws it.

        Raises:
            ModuleNotFoundError, ValueError: the task cannot be imported, its agents do not fit the
                groups of the config, or it cannot draw.
        """
        if render:
            raise ValueError(f"environment {config.environment.name!r} cannot draw itself")
        copies = config.environment.num_parallel_envs if num_envs is None else num_envs
        return ENVIRONMENTS[config.env_type](config.environment, copies)


@ENVIRONMENTS.register("pettingzoo")
def _pettingzoo(config: EnvironmentConfig, num_envs: int) -> EnvBase:
    return PettingZooParallelEnv(
        functools.partial(import_task(config.task), **config.kwargs),
        num_envs,
        group_by=config.group_by,
        groups=config.groups,
        team_reward=config.reward == "team",
        name=config.name,
    )


def import_task(task: str) -> Callable[..., Any]:
    """The environment's own factory, from its import path `module:callable`.

    Raises:
        ValueError: the path has no colon, or the module no such callable.
        ModuleNotFoundError: the module, or one that it imports, is not installed.
    """
    module_name, colon, attribute = task.partition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(
            f"environment.task is {task!r}; it must be an import path `module:callable`, such as "
            "mpe2.simple_spread_v3:parallel_env"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"environment.task is {task!r}, but there is no module {error.name!r}; install the "
            "package that provides it, or correct environment.task",
            name=error.name,
        ) from error
    make_env = getattr(module, attribute, None)
    if not callable(make_env):
        raise ValueError(
            f"environment.task is {task!r}, but module {module_name!r} has no callable "
            f"{attribute!r}"
        )
    return make_env
