"""Gymnasium environments of several agents as PettingZoo environments. Imports no torch.

Level-Based Foraging and RWARE, for example, are Gymnasium environments whose spaces are Tuples,
with one part for each agent. config/environment/lbf_8x8.yaml shows how to use one.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class GymnasiumTeam(ParallelEnv):
    """Agents agent_0, agent_1, … of a Gymnasium environment with a Tuple of spaces.

    Rewards and flags may be one for all agents, or a sequence with one for each.

    Args:
        env: the environment.

    Raises:
        TypeError: a space is not a Tuple, or they have different numbers of parts.
    """

    metadata = {"name": "gymnasium_team"}  # noqa: RUF012 - PettingZoo's way

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self._env = env
        observed, acted = env.observation_space, env.action_space
        for what, space in (("observation", observed), ("action", acted)):
            if not isinstance(space, spaces.Tuple):
                raise TypeError(
                    f"the {what} space of {env} is {space}, but must be a Tuple with one space per "
                    "agent; for an environment with one agent, use Stable-Baselines3"
                )
        assert isinstance(observed, spaces.Tuple)
        assert isinstance(acted, spaces.Tuple)
        if len(observed) != len(acted):
            raise TypeError(f"{env} has {len(observed)} observation and {len(acted)} action spaces")
        self.possible_agents = [f"agent_{k}" for k in range(len(acted))]
        self.agents: list[str] = []
        self._observed = dict(zip(self.possible_agents, observed, strict=True))
        self._acted = dict(zip(self.possible_agents, acted, strict=True))
        self.render_mode = env.render_mode

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self._observed[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self._acted[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        observations, info = self._env.reset(seed=seed, options=options)
        self.agents = list(self.possible_agents)
        return self._by_agent(observations), dict.fromkeys(self.agents, info)

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        together = tuple(actions[agent] for agent in self.possible_agents)
        observations, rewards, terminated, truncated, info = self._env.step(together)
        terminations, truncations = self._by_agent(terminated), self._by_agent(truncated)
        infos = dict.fromkeys(self.possible_agents, info)
        over = [terminations[agent] or truncations[agent] for agent in self.agents]
        if any(over) and not all(over):
            raise ValueError(
                f"agent {self.agents[over.index(True)]!r} of {self._env} ended before the others, "
                "but an environment with a Tuple of spaces needs the actions of all; let the flags "
                "be those of the team, or write a PettingZoo environment"
            )
        if all(over):
            self.agents = []
        return (
            self._by_agent(observations),
            self._by_agent(rewards),
            terminations,
            truncations,
            infos,
        )

    def _by_agent(self, values: Any) -> dict[str, Any]:
        """Return each agent's part of a sequence, or the same value for all."""
        if isinstance(values, tuple | list) or np.ndim(values):
            return dict(zip(self.possible_agents, values, strict=True))
        return dict.fromkeys(self.possible_agents, values)

    def render(self) -> Any:
        return self._env.render()

    def close(self) -> None:
        self._env.close()


def make(id: str, render_mode: str | None = None, **kwargs: Any) -> GymnasiumTeam:
    """Create the Gymnasium environment `id`, or `module:id`.

    Args:
        id: see `gymnasium.make`.
        render_mode: how to render; None: not at all.
        kwargs: arguments of the environment, and `max_episode_steps`.
    """
    # The checker objects to rewards and flags that are sequences.
    return GymnasiumTeam(
        gymnasium.make(id, render_mode=render_mode, disable_env_checker=True, **kwargs)
    )
