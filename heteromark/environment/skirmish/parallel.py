"""One Skirmish battle as a PettingZoo Parallel environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from heteromark.environment.skirmish.env import SkirmishEnv


class SkirmishParallelEnv(ParallelEnv):
    """A battle of `SkirmishEnv` with one agent per unit.

    A unit that dies has terminated and leaves `agents`; all units leave when the battle is over.
    Infos: "action_mask", int8 [actions], and at the end "battle_won".

    Args:
        scenario: see `SkirmishEnv`.
        render_mode: "rgb_array" to render, or None.
        settings: the fields of `SkirmishConfig`.

    Raises:
        ValueError: see `SkirmishEnv`.
    """

    metadata = {"name": "skirmish", "render_modes": ["rgb_array"]}  # noqa: RUF012 - PettingZoo's way

    def __init__(
        self, scenario: str = "10gen_terran", *, render_mode: str | None = None, **settings: Any
    ) -> None:
        self.render_mode = render_mode
        self._env = SkirmishEnv(scenario, num_envs=1, group_by="agent", **settings)
        self.possible_agents = list(self._env.groups)
        self.agents: list[str] = []
        layout = self._env.battles.layout
        self._state = np.zeros(layout.state_size, np.float32)
        seen = (layout.observation_size,)
        self.state_space = spaces.Box(-np.inf, np.inf, self._state.shape, np.float32)
        agents = self.possible_agents
        self._observation_spaces = {a: spaces.Box(-np.inf, np.inf, seen) for a in agents}
        self._action_spaces = {a: spaces.Discrete(layout.n_actions) for a in agents}

    def observation_space(self, agent: str) -> spaces.Box:
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Discrete:
        return self._action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
        """Start a battle; without a seed, the next battle of the previous seed."""
        if seed is not None:
            self._env.reseed(seed)
        outputs = self._env.reset()
        self.agents = [
            agent for agent in self.possible_agents if bool(outputs[agent, "active"][0, 0])
        ]
        return self._read_outputs(outputs)

    def step(
        self, actions: Mapping[str, int]
    ) -> tuple[
        dict[str, np.ndarray],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Step the battle; agents without a legal action in `actions` stop."""
        given = self._env.full_action_spec.zero()
        for agent, action in actions.items():
            given[agent, "action"] = torch.tensor([[int(action)]])
        after = self._env.step(given)["next"]
        observations, infos = self._read_outputs(after)
        over, timeout = bool(after["terminated"]), bool(after["truncated"])
        lives = {agent: bool(after[agent, "active"][0, 0]) for agent in self.agents}
        rewards = {agent: float(after[agent, "reward"][0, 0, 0]) for agent in self.agents}
        terminations = {agent: over or not lives[agent] for agent in self.agents}
        truncations = {agent: timeout and lives[agent] for agent in self.agents}
        if over or timeout:
            for info in infos.values():
                info["battle_won"] = bool(after["won"] == 1)
        stays = not (over or timeout)
        self.agents = [agent for agent in self.agents if stays and lives[agent]]
        return observations, rewards, terminations, truncations, infos

    def state(self) -> np.ndarray:
        """Return the global state, float32 [state_size]."""
        return self._state

    def render(self) -> np.ndarray:
        """Render the battle, uint8 [height, width, 3]."""
        return self._env.render()

    def close(self) -> None:
        self._env.close(raise_if_closed=False)

    def _read_outputs(
        self, outputs: Any
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
        self._state = outputs["state"][0].numpy()
        observations = {agent: outputs[agent, "observation"][0, 0].numpy() for agent in self.agents}
        infos = {
            agent: {"action_mask": outputs[agent, "action_mask"][0, 0].numpy().astype(np.int8)}
            for agent in self.agents
        }
        return observations, infos
