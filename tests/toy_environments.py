"""Small PettingZoo environments whose numbers can be calculated by hand."""

from __future__ import annotations

import os
import random
import signal

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv

# ruff: noqa: NPY002 - some environments draw from numpy's global generator

N_ACTIONS = 4


class ToyBattle(ParallelEnv):
    """Two archers and a healer; archer_1 dies after its second step, unless `death_step` is None.

    Agent k (counted from 0) observes [k, steps so far, noise, 1], earns k + 1 at each step while it
    lives, and must never take action k. Illegal actions raise.

    Args:
        length: steps of an episode; None: draw 3 to 8.
        ends: how the survivors' episode ends: "terminated" or "truncated".
        death_step: step after which archer_1 dies; None: never.
        mask_in: where the action mask is: "observation" or "info".
        nan_at, inf_reward_at: step at which archer_0 observes NaN or earns infinity.
        says_won: report a win in the infos at the end.
    """

    metadata = {"name": "toy"}  # noqa: RUF012 - PettingZoo's way

    def __init__(
        self,
        length: int | None = 5,
        ends: str = "truncated",
        death_step: int | None = 2,
        mask_in: str = "observation",
        nan_at: int | None = None,
        inf_reward_at: int | None = None,
        says_won: bool = False,
    ) -> None:
        self.possible_agents = ["archer_0", "archer_1", "healer_0"]
        self.agents = []
        self.length, self.ends, self.death_step = length, ends, death_step
        self.mask_in, self.nan_at, self.inf_reward_at = mask_in, nan_at, inf_reward_at
        self.says_won = says_won
        self.rng = np.random.default_rng()
        self.total_steps = 0
        observation = spaces.Box(-np.inf, np.inf, (4,), np.float32)
        if mask_in == "observation":
            mask = spaces.Box(0, 1, (N_ACTIONS,), np.int8)
            observation = spaces.Dict({"observation": observation, "action_mask": mask})
        self._spaces = {a: (observation, spaces.Discrete(N_ACTIONS)) for a in self.possible_agents}

    def observation_space(self, agent):
        return self._spaces[agent][0]

    def action_space(self, agent):
        return self._spaces[agent][1]

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.steps = 0
        self.ends_at = self.length or int(self.rng.integers(3, 9))
        return self._observations(), self._infos()

    def step(self, actions):
        assert set(actions) == set(self.agents)
        for agent, action in actions.items():
            assert action != self._index(agent), f"{agent} took its illegal action"
        self.steps += 1
        self.total_steps += 1
        over = self.steps >= self.ends_at
        observations = self._observations()
        rewards = {a: float(self._index(a) + 1) for a in self.agents}
        if self.total_steps == self.inf_reward_at:
            rewards["archer_0"] = np.inf
        dies = {a: a == "archer_1" and self.steps == self.death_step for a in self.agents}
        terminations = {a: dies[a] or (over and self.ends == "terminated") for a in self.agents}
        truncations = {a: over and not terminations[a] for a in self.agents}
        infos = self._infos()
        if over and self.says_won:
            infos["healer_0"]["won"] = True
        self.agents = [a for a in self.agents if not terminations[a] and not truncations[a]]
        return observations, rewards, terminations, truncations, infos

    def _index(self, agent):
        return self.possible_agents.index(agent)

    def _mask(self, agent):
        return (np.arange(N_ACTIONS) != self._index(agent)).astype(np.int8)

    def _infos(self):
        if self.mask_in == "info":
            return {agent: {"action_mask": self._mask(agent)} for agent in self.agents}
        return {agent: {} for agent in self.agents}

    def _observations(self):
        seen = {
            a: np.array([self._index(a), self.steps, self.rng.normal(), 1], np.float32)
            for a in self.agents
        }
        if self.total_steps == self.nan_at:
            seen["archer_0"][2] = np.nan
        if self.mask_in == "info":
            return seen
        return {a: {"observation": s, "action_mask": self._mask(a)} for a, s in seen.items()}


class GlobalDice(ToyBattle):
    """A ToyBattle whose noise comes from the process's global generators.

    It draws normal numbers, which both generators create in pairs, keeping the second one for the
    next call. Steps alternate between three kinds: drawing from both generators, from Python's
    only, and from none.

    Args:
        quiet: number of steps before the first draw.
        kwargs: see `ToyBattle`.
    """

    def __init__(self, quiet: int = 0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.quiet = quiet
        self.constructed_with = random.random() + np.random.normal()

    def _observations(self):
        seen = super()._observations()
        if self.total_steps < self.quiet:
            return seen
        for agent in self.agents:
            noise = random.gauss(0, 1) if self.steps % 3 < 2 else 0.0
            noise += np.random.normal() if self.steps % 3 == 0 else 0.0
            seen[agent]["observation"][2] = noise + self.constructed_with
        return seen


class UnlikeArchers(ToyBattle):
    """A ToyBattle whose archers have different observation spaces, so they cannot be one group."""

    def observation_space(self, agent):
        if agent == "archer_1":
            return spaces.Box(-1, 1, (7,), np.float32)
        return super().observation_space(agent)


def not_parallel():
    """Return an object that is not a Parallel environment."""
    return object()


class FaultyBattle(ToyBattle):
    """A ToyBattle that does one thing wrong at its second step.

    Args:
        fault: the kind of fault; see the code.
        kwargs: see `ToyBattle`.
    """

    made = 0  # in this process

    def __init__(self, fault: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.fault = fault
        self.number, FaultyBattle.made = FaultyBattle.made, FaultyBattle.made + 1

    def action_space(self, agent):
        grown = (self.fault == "spaces" and self.number) or (
            self.fault == "reset_space" and self.total_steps
        )
        return spaces.Discrete(N_ACTIONS + 1) if grown else super().action_space(agent)

    def state(self):
        if self.fault == "no_state":
            return super().state()
        size = 6 if self.fault == "state_shape" and self.total_steps == 2 else 5
        state = np.arange(size, dtype=np.float64) + self.total_steps
        if self.fault == "state_nan" and self.total_steps == 2:
            state[0] = np.nan
        return state

    def step(self, actions):
        observations, rewards, terminations, truncations, infos = super().step(actions)
        seen = observations["archer_0"]
        if self.total_steps == 2:
            if self.fault == "raise":
                raise LookupError("the second step is missing")
            if self.fault == "exit":
                os._exit(3)
            if self.fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "shape":
                seen["observation"] = seen["observation"][:3]
            if self.fault == "mask_size":
                seen["action_mask"] = np.ones(N_ACTIONS + 1, np.int8)
            if self.fault == "no_legal_action":
                seen["action_mask"] = np.zeros(N_ACTIONS, np.int8)
            if self.fault == "stranger":
                self.agents.append("ghost_0")
            if self.fault == "no_observation":
                del observations["archer_0"]
        if self.total_steps == 3 and self.fault == "return":
            self.agents.append("archer_1")
            observations["archer_1"] = seen
        return observations, rewards, terminations, truncations, infos


class ToyRelay(AECEnv):
    """Two runners and a guard take turns; runner_1 dies in its second turn.

    When agent k (counted from 0) acts, every other living agent gets k + 1. A runner observes
    [k, turns so far], the guard [turns so far, 1, 1]. Agent k must never take action k. With all
    three alive, the order is runner_0, runner_1, guard_0.

    Args:
        length: turns of an episode.
        ends: how the survivors' episode ends: "terminated" or "truncated".
        mask_in: where the action mask is: "observation" or "info".
        fault: "stranger": an unknown agent gets a reward; "return": runner_1 acts after its death.
    """

    metadata = {"name": "relay"}  # noqa: RUF012 - PettingZoo's way
    render_mode = None

    def __init__(
        self,
        length: int = 8,
        ends: str = "truncated",
        mask_in: str = "info",
        fault: str | None = None,
    ) -> None:
        super().__init__()
        self.possible_agents = ["runner_0", "runner_1", "guard_0"]
        self.length, self.ends, self.mask_in, self.fault = length, ends, mask_in, fault
        self._spaces = {}
        for agent in self.possible_agents:
            seen = spaces.Box(0, np.inf, (3 if agent == "guard_0" else 2,), np.float32)
            if mask_in == "observation":
                mask = spaces.Box(0, 1, (N_ACTIONS,), np.int8)
                seen = spaces.Dict({"observation": seen, "action_mask": mask})
            self._spaces[agent] = (seen, spaces.Discrete(N_ACTIONS))

    def observation_space(self, agent):
        return self._spaces[agent][0]

    def action_space(self, agent):
        return self._spaces[agent][1]

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        self.turns = 0
        self.taken = []
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        if self.mask_in == "info":
            self.infos = {agent: {"action_mask": self._mask(agent)} for agent in self.agents}
        self._skip_agent_selection = None
        self.agent_selection = "runner_0"

    def step(self, action):
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        k = self.possible_agents.index(agent)
        assert action != k, f"{agent} took its illegal action"
        self.taken.append((agent, action))
        self._cumulative_rewards[agent] = 0
        self.rewards = {a: 0.0 if a == agent else k + 1.0 for a in self.agents}
        self.turns += 1
        if agent == "runner_1" and self.turns > 2:
            self.terminations[agent] = True
        if self.turns == self.length:
            ends = self.terminations if self.ends == "terminated" else self.truncations
            ends.update(dict.fromkeys((a for a in self.agents if not self.terminations[a]), True))
        self._accumulate_rewards()
        order = self.agents[self.agents.index(agent) + 1 :] + self.agents
        self.agent_selection = order[0]
        self._deads_step_first()
        if self.fault == "stranger" and self.turns == 3:
            self.rewards["ghost_0"] = 1.0
        if self.fault == "return" and self.turns == 6:
            self.agents.append("runner_1")
            self.agent_selection = "runner_1"
            for flags in (self.terminations, self.truncations):
                flags["runner_1"] = False

    def observe(self, agent):
        k = self.possible_agents.index(agent)
        if agent == "guard_0":
            seen = np.array([self.turns, 1, 1], np.float32)
        else:
            seen = np.array([k, self.turns], np.float32)
        if self.mask_in == "observation":
            return {"observation": seen, "action_mask": self._mask(agent)}
        return seen

    def _mask(self, agent):
        k = self.possible_agents.index(agent)
        return (np.arange(N_ACTIONS) != k).astype(np.int8)


def last_legal(observation, legal, generator):
    """Play the last legal action."""
    return int(np.flatnonzero(legal)[-1])


def never_legal(observation, legal, generator):
    """Play an illegal action."""
    return int(np.flatnonzero(~legal)[0])


class Sampler(ToyBattle):
    """A ToyBattle whose noise is sampled from its action spaces, or from the operating system.

    Args:
        is_seeded: False: from the operating system, so that no seed reaches it.
        kwargs: see `ToyBattle`.
    """

    def __init__(self, is_seeded: bool = True, **kwargs) -> None:
        super().__init__(**kwargs)
        self.is_seeded = is_seeded

    def _observations(self):
        seen = super()._observations()
        for agent in self.agents:
            space = self.action_space(agent)
            noise = space.sample() if self.is_seeded else np.random.default_rng().random()
            seen[agent]["observation"][2] = noise
        return seen


def battle(nan_at=None, max_cycles=None):
    """Return a ToyBattle; `max_cycles` is ignored."""
    return ToyBattle(nan_at=nan_at)
