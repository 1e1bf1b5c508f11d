"""Skirmish for agents that observe only the time step: an open-loop baseline.

It is a lower bound for learning, as in SMACv2's paper. If an open-loop policy wins a scenario, that
scenario is not worth training on. The agents still know which actions are legal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from heteromark.environment.skirmish import SkirmishEnv
from heteromark.environment.specs import make_specs


class OpenLoopSkirmishEnv(SkirmishEnv):
    """`SkirmishEnv` whose agents observe only the step number and their index in the group.

    Observations are one-hot, [episode_limit + n] with n agents in the group.
    """

    def __init__(self, num_envs: int, **settings: Any) -> None:
        super().__init__(num_envs=num_envs, **settings)
        self._limit = self.battles.scenario.episode_limit
        self.groups = {
            name: replace(group, observation_size=self._limit + len(group.agents))
            for name, group in self.groups.items()
        }
        specs = make_specs(self.groups, num_envs, self.state_size)
        self.observation_spec = specs.observation.to(self.device)

    def _make_outputs(self, *arguments: Any) -> dict[str, Any]:
        outputs = super()._make_outputs(*arguments)
        for name, group in self.groups.items():
            outputs[name]["observation"] = self._time(group.agents, outputs[name]["active"])
        return outputs

    def _time(self, agents: Sequence[str], active: Tensor) -> Tensor:
        step = self._steps.clamp(max=self._limit - 1).squeeze(1)
        time = torch.nn.functional.one_hot(step, self._limit).unsqueeze(1)
        who = torch.eye(len(agents)).expand(len(step), -1, -1)
        return torch.cat([time.expand(-1, len(agents), -1), who], -1) * active.unsqueeze(2)


def make(num_envs: int, **settings: Any) -> OpenLoopSkirmishEnv:
    """Return the environment with all its copies, for `environment.task`."""
    return OpenLoopSkirmishEnv(num_envs, **settings)
