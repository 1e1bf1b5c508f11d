"""The environment factory."""

from __future__ import annotations

import torch
from torchrl.envs import EnvBase

from heteromark.config.models.components import OpponentConfig
from heteromark.config.models.run import RunConfig
from heteromark.environment.registry import ENVIRONMENTS, EnvironmentRequest


class EnvironmentFactory:
    """Creates the batched environment that a run config asks for."""

    def create(
        self,
        config: RunConfig,
        num_envs: int | None = None,
        opponent: OpponentConfig | None = None,
        render: bool = False,
        first: int = 0,
        device: torch.device | None = None,
    ) -> EnvBase:
        """An unseeded environment of batch size [num_envs].

        Its keys and its attributes besides EnvBase's: `heteromark.environment.contract`.

        Args:
            config: the run.
            num_envs: number of copies; by default `environment.num_parallel_envs`.
            opponent: who plays the other seats of a turn-based game; by default
                `environment.opponent`.
            render: make copy 0 so that `render()` draws it.
            first: number of the first copy, where others of the run are made elsewhere.
            device: where Skirmish fights, by default the CPU, where all others are.

        Raises:
            ModuleNotFoundError, ValueError: the task cannot be imported, its agents do not fit the
                groups of the config, or it cannot draw.
            TypeError: the task makes something else than its env_type says.
            RuntimeError: StarCraft II cannot be started.
        """
        copies = config.environment.num_parallel_envs if num_envs is None else num_envs
        if opponent is not None:
            environment = config.environment.model_copy(update={"opponent": opponent})
            config = config.model_copy(update={"environment": environment})
        return ENVIRONMENTS[config.env_type](
            config, EnvironmentRequest(copies, first, render, device or torch.device("cpu"))
        )
