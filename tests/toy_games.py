"""A toy game against an opponent, with past selves and pictures: what a turn-based one offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from heteromark.config.schema import OpponentConfig, RunConfig
from heteromark.environment.pettingzoo import PettingZooParallelEnv

PICTURE = (6, 9, 3)


class ToyPool:
    """Past selves, each remembered by one number."""

    def __init__(self) -> None:
        self.strengths: list[float] = []

    def add(self, actors: Mapping[str, torch.nn.Module]) -> None:
        weights = torch.nn.utils.parameters_to_vector(actors["player"].parameters())
        self.strengths.append(float(weights.detach().double().sum()))

    def state_dict(self) -> dict[str, Any]:
        return {"strengths": list(self.strengths)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.strengths = list(state["strengths"])


class Duel(ParallelEnv):
    """Rock, paper, scissors: the last of `length` moves counts; `length` None: it never ends.

    A heuristic opponent always wins. What the player sees depends on the past selves.
    """

    metadata = {"name": "duel"}  # noqa: RUF012 - PettingZoo's way

    def __init__(self, opponent: OpponentConfig, pool: ToyPool | None, length: int | None) -> None:
        self.opponent, self.pool, self.length = opponent, pool, length
        self.possible_agents = ["player_0"]
        self.agents = []
        self.rng = np.random.default_rng()
        self._spaces = spaces.Box(-np.inf, np.inf, (3,), np.float32), spaces.Discrete(3)

    def observation_space(self, agent):
        return self._spaces[0]

    def action_space(self, agent):
        return self._spaces[1]

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.agents, self.steps = ["player_0"], 0
        return self._observations(), {"player_0": {}}

    def step(self, actions):
        self.steps += 1
        theirs = int(self.rng.integers(3))
        over = self.steps == self.length
        result = 0.0
        if over:
            result = (0.0, 1.0, -1.0)[(int(actions["player_0"]) - theirs) % 3]
            result = -1.0 if self.opponent.kind == "heuristic" else result
            self.agents = []
        flags, infos = {"player_0": over}, {"player_0": {"won": result > 0} if over else {}}
        return self._observations(), {"player_0": result}, flags, {"player_0": False}, infos

    def _observations(self):
        strength = np.tanh(sum(self.pool.strengths)) if self.pool else 0.0
        return {"player_0": np.array([self.steps, self.rng.normal(), strength], np.float32)}


class ToyGame(PettingZooParallelEnv):
    """Copies of a duel; copy 0 paints the number of its moves."""

    def __init__(self, num_envs: int, opponent: OpponentConfig, length: int | None) -> None:
        pool = ToyPool() if opponent.kind == "past_self" else None
        duels = []

        def make_duel() -> Duel:
            duels.append(Duel(opponent, pool, length))
            return duels[-1]

        super().__init__(make_duel, num_envs)
        self.turn_based = True
        self.opponent_pool = pool
        self._copy_0 = duels[0]

    def render(self) -> np.ndarray:
        return np.full(PICTURE, 50 * self._copy_0.steps, np.uint8)


def create_toy_game(
    _factory: object,
    config: RunConfig,
    num_envs: int | None = None,
    opponent: OpponentConfig | None = None,
    render: bool = False,
) -> ToyGame:
    """In place of `EnvironmentFactory.create`."""
    return ToyGame(
        num_envs or config.environment.num_parallel_envs,
        opponent or config.environment.opponent,
        config.environment.kwargs.get("length", 2),
    )
