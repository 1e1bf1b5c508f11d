"""The environment factory."""

from __future__ import annotations

import torch
from torchrl.envs import EnvBase

from heteromark.config.models.components import OpponentConfig
from heteromark.config.models.run import RunConfig
from heteromark.environment.registry import ENVIRONMENTS, EnvironmentRequest


class EnvironmentFactory:
    """Creates the batched environment of a run."""

    def create(
        self,
        config: RunConfig,
        num_envs: int | None = None,
        opponent: OpponentConfig | None = None,
        render: bool = False,
        first: int = 0,
        device: torch.device | None = None,
    ) -> EnvBase:
        """Create an unseeded environment of batch size [num_envs].

        `heteromark.environment.contract` documents its keys and additional attributes.

        Args:
            config: the run.
            num_envs: number of copies; default: `environment.num_parallel_envs`.
            opponent: who plays the other seats of a turn-based game; default:
                `environment.opponent`.
            render: create copy 0 so that `render()` works.
            first: number of the first copy, if other copies of the run are created elsewhere.
            device: device of Skirmish; default: CPU. All other environments are on the CPU.

        Raises:
            ModuleNotFoundError, ValueError: the task cannot be imported, its agents do not fit the
                groups of the config, or it cannot render.
            TypeError: the task creates an object that does not fit its env_type.
            RuntimeError: StarCraft II cannot be started.
        """
        copies = config.environment.num_parallel_envs if num_envs is None else num_envs
        if opponent is not None:
            environment = config.environment.model_copy(update={"opponent": opponent})
            config = config.model_copy(update={"environment": environment})
        return ENVIRONMENTS[config.env_type](
            config, EnvironmentRequest(copies, first, render, device or torch.device("cpu"))
        )
