"""A complete EnvBase for `env_type: custom`, and factories of other types."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from smac_stand_in import Battle
from tensordict import TensorDict
from torchrl.envs import EnvBase
from toy_environments import ToyBattle

from heteromark.environment.groups import Group
from heteromark.environment.specs import make_specs
from heteromark.seeds import stream_seed

SIZE, LIMIT = 5, 12


class Foraging(EnvBase):
    """A scout and two carriers on a line of five cells, with food on one of them.

    The scout observes the food's cell and sends a signal (continuous, -1 to 1). Carriers observe
    their cell and the signal, and go left, stay or go right (actions 0, 1, 2; never off the line).
    A carrier that reaches the food eats and leaves. The team earns 1 for each. When both have
    eaten, the episode is won; after 12 steps it is truncated.
    """

    turn_based = False
    state_size = 3

    def __init__(self, num_envs: int) -> None:
        super().__init__(device="cpu", batch_size=[num_envs])
        self.groups = {
            "scout": Group("scout", ("scout",), 1, spaces.Box(-1, 1, (1,), np.float32), False),
            "carrier": Group("carrier", ("left", "right"), 2, spaces.Discrete(3), True),
        }
        specs = make_specs(self.groups, num_envs, self.state_size)
        self.observation_spec, self.action_spec = specs.observation, specs.action
        self.reward_spec, self.done_spec = specs.reward, specs.done
        self._seeds = [None] * num_envs
        self._generators = [np.random.default_rng() for _ in range(num_envs)]
        self._food = torch.zeros(num_envs, 1, dtype=torch.int64)
        self._cells = torch.zeros(num_envs, 2, dtype=torch.int64)
        self._pointing = torch.zeros(num_envs, 1)
        self._hungry = torch.ones(num_envs, 2, dtype=torch.bool)
        self._steps = torch.zeros(num_envs, 1, dtype=torch.int64)

    def reseed(self, seed: int, *stream: int | str) -> None:
        self._seeds = [stream_seed(seed, *stream, i) for i in range(self.batch_size[0])]

    def _set_seed(self, seed: int | None) -> None:
        self.reseed(seed)

    def running_episodes(self) -> dict:
        of_now = ("_food", "_cells", "_pointing", "_hungry", "_steps")
        return {
            "now": {name: getattr(self, name) for name in of_now},
            "generators": [rng.bit_generator.state for rng in self._generators],
        }

    def continue_episodes(self, episodes: dict) -> tuple[TensorDict, dict[int, str]]:
        for name, value in episodes["now"].items():
            setattr(self, name, value)
        for rng, state in zip(self._generators, episodes["generators"], strict=True):
            rng.bit_generator.state = state
        return self._show(terminated=torch.zeros(self.batch_size[0], 1, dtype=torch.bool)), {}

    def _reset(self, tensordict=None, **_) -> TensorDict:
        # Always in new memory: returned tensors must not change.
        self._food, self._cells, self._pointing, self._hungry, self._steps = (
            of.clone()
            for of in (self._food, self._cells, self._pointing, self._hungry, self._steps)
        )
        mask = None if tensordict is None else tensordict.get("_reset", None)
        for i in range(self.batch_size[0]):
            if mask is not None and not mask[i]:
                continue
            if self._seeds[i] is not None:
                self._generators[i] = np.random.default_rng(self._seeds[i])
                self._seeds[i] = None
            self._food[i] = int(self._generators[i].integers(1, SIZE - 1))
            self._cells[i] = torch.tensor([0, SIZE - 1])
            self._pointing[i], self._hungry[i], self._steps[i] = 0, True, 0
        return self._show(terminated=torch.zeros(self.batch_size[0], 1, dtype=torch.bool))

    def _step(self, tensordict) -> TensorDict:
        moves = (tensordict["carrier", "action"] - 1) * self._hungry
        self._cells = self._cells + moves
        self._pointing = tensordict["scout", "action"][:, 0].clone()
        self._steps = self._steps + 1
        eats = self._hungry & (self._cells == self._food)
        self._hungry = self._hungry & ~eats
        shown = self._show(terminated=~self._hungry.any(-1, keepdim=True))
        earned = eats.sum(-1).float()[:, None, None]
        shown["scout", "reward"] = earned
        shown["carrier", "reward"] = earned.expand(-1, 2, 1).clone()
        return shown

    def _show(self, terminated: torch.Tensor) -> TensorDict:
        truncated = (self._steps >= LIMIT) & ~terminated
        hungry = self._hungry[..., None]
        seen = torch.stack([self._cells.float(), self._pointing.expand(-1, 2)], -1)
        left, right = self._cells > 0, self._cells < SIZE - 1
        legal = torch.stack([left, torch.ones_like(left), right], -1)
        scout_takes_part = ~terminated
        state = torch.cat([self._food, self._cells], -1).float()
        root = {
            **({} if self.state_size is None else {"state": state}),
            "episode_return": (~self._hungry).sum(-1, keepdim=True).float(),
            "step_count": self._steps.clone(),
            "won": torch.where(terminated, 1, torch.where(truncated, 0, -1)).to(torch.int8),
            "done": terminated | truncated,
            "terminated": terminated,
            "truncated": truncated,
        }
        groups = {
            "scout": {
                "observation": (self._food * scout_takes_part).float()[:, None],
                "active": scout_takes_part,
            },
            "carrier": {
                "observation": seen * hungry,
                "active": self._hungry.clone(),
                "action_mask": legal | ~hungry,
            },
        }
        return TensorDict({**root, **groups}, batch_size=self.batch_size)


class Forgetful(Foraging):
    """It cannot continue episodes."""

    running_episodes = property()  # reading it raises AttributeError, so there is none


class Stateless(Foraging):
    """It has no state."""

    state_size = None


class Selfish(Foraging):
    """One carrier is rewarded more than the others."""

    def _step(self, tensordict) -> TensorDict:
        shown = super()._step(tensordict)
        shown["carrier", "reward"][:, 1] += 1
        return shown


def parallel() -> ToyBattle:
    return ToyBattle()


def smac(seed=None) -> Battle:
    return Battle(seed=seed)


def nothing() -> object:
    return object()


def nothing_for_all(num_envs) -> object:
    return object()


def too_few() -> Foraging:
    return Foraging(1)
