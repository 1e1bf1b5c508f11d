"""PettingZoo Parallel environments as one batched TorchRL environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pettingzoo import ParallelEnv
from tensordict import TensorDict, TensorDictBase
from torchrl.envs import EnvBase

from heteromark.environment.groups import Group, group_agents, make_group
from heteromark.environment.seeds import stream_seed
from heteromark.environment.specs import make_specs

_WIN_FLAGS = ("battle_won", "won")
_UNKNOWN = -1  # value of "won" where the environment does not say


class PettingZooParallelEnv(EnvBase):
    """N copies of a PettingZoo Parallel environment, stepped together; batch size [N].

    Observations go straight from the environments' dictionaries into one array per group, which
    costs a fraction of what wrapping every copy by itself does.

    Keys and shapes are those of `make_specs`; besides:
        (group, "observation"): flattened; zeros where the agent is not active.
        (group, "action_mask"): taken from the observation or the info; all True where the agent is
            not active.
        (group, "active"): in `next` it is False for agents that terminated, and stays True where
            only time ran out, because there the observation is a real state that a critic may
            value.
        ("next", group, "reward"): the agent's own reward, or with `team_reward` the mean over all
            agents of the environment, with 0 for the absent.
        "won": whether any agent's info says "battle_won" or "won" at the episode's end.

    An episode is done when no agent is left: terminated if every agent terminated, truncated
    otherwise. An agent that leaves before the others counts as terminated.

    Finished copies are reset one by one through TorchRL's "_reset" mask, so `next` keeps the true
    final observation. Illegal actions are left to the environment.

    Args:
        make_env: returns a fresh Parallel environment.
        num_envs: number of copies N.
        group_by, groups: see `group_agents`.
        team_reward: train every agent on the mean of all agents' rewards.
        name: the environment's name in error messages.

    Raises:
        TypeError: `make_env` returns something that is no Parallel environment.
        ValueError: groups or spaces do not fit; later, an observation is not finite.
    """

    turn_based = False
    opponent_pool = None

    def __init__(
        self,
        make_env: Callable[[], ParallelEnv],
        num_envs: int,
        *,
        group_by: str = "prefix",
        groups: Mapping[str, Sequence[str]] | None = None,
        team_reward: bool = True,
        name: str = "environment",
    ) -> None:
        super().__init__(device="cpu", batch_size=[num_envs])
        self._name = name
        self._team_reward = team_reward
        self._envs = [make_env() for _ in range(num_envs)]
        if not isinstance(self._envs[0], ParallelEnv):
            raise TypeError(
                f"the factory of environment {name!r} returned {type(self._envs[0]).__name__}, not "
                "a pettingzoo.ParallelEnv; use the environment's parallel_env"
            )
        self.groups: dict[str, Group] = self._describe_groups(group_by, groups)
        # (row in its group's arrays, agent), in plain tuples for the stepping loop
        self._members = {
            name: tuple(enumerate(group.agents)) for name, group in self.groups.items()
        }
        self._next_seeds: list[int | None] = [None] * num_envs
        # what the copies show now; replaced, never changed, once handed out
        self._arrays: dict[str, dict[str, np.ndarray]] = {}
        self._step_count = np.zeros((num_envs, 1), np.int64)
        self._episode_return = np.zeros((num_envs, 1), np.float32)
        specs = make_specs(self.groups, num_envs)
        self.observation_spec = specs.observation
        self.action_spec = specs.action
        self.reward_spec = specs.reward
        self.done_spec = specs.done

    # --- description ---------------------------------------------------------------------------

    def _describe_groups(
        self, group_by: str, explicit: Mapping[str, Sequence[str]] | None
    ) -> dict[str, Group]:
        env = self._envs[0]
        agents = list(env.possible_agents)
        observation_spaces = {agent: env.observation_space(agent) for agent in agents}
        action_spaces = {agent: env.action_space(agent) for agent in agents}
        # Only a reset shows whether the infos carry masks.
        _, infos = env.reset(seed=0)
        described = {}
        for name, members in group_agents(agents, group_by, explicit).items():
            space = observation_spaces[members[0]]
            masked = "action_mask" in getattr(space, "spaces", ()) or any(
                "action_mask" in infos.get(agent, {}) for agent in members
            )
            described[name] = make_group(name, members, observation_spaces, action_spaces, masked)
        return described

    # --- random streams ------------------------------------------------------------------------

    def reseed(self, seed: int, *stream: int | str) -> None:
        """Give every copy its own seed, used by its next reset; copy i's is stream_seed(…, i).

        Episodes after that one go on with the environment's own generator, so everything between
        two calls is determined by `seed`, `stream` and the actions.
        """
        self._next_seeds = [stream_seed(seed, *stream, i) for i in range(self.batch_size[0])]
        for env, env_seed in zip(self._envs, self._next_seeds, strict=True):
            for agent in env.possible_agents:
                env.action_space(agent).seed(env_seed)

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None:
            self.reseed(seed)

    # --- stepping ------------------------------------------------------------------------------

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        n_envs = self.batch_size[0]
        mask = None if tensordict is None else tensordict.get("_reset", None)
        fresh = self._empty_arrays()
        step_count = np.zeros((n_envs, 1), np.int64)
        episode_return = np.zeros((n_envs, 1), np.float32)
        if mask is not None and self._arrays:
            keep = ~mask.reshape(n_envs, -1).any(-1).numpy()
            step_count[keep] = self._step_count[keep]
            episode_return[keep] = self._episode_return[keep]
            for name, arrays in fresh.items():
                for key, array in arrays.items():
                    array[keep] = self._arrays[name][key][keep]
            rows = (~keep).nonzero()[0].tolist()
        else:
            rows = list(range(n_envs))
        self._arrays = fresh
        self._step_count, self._episode_return = step_count, episode_return
        for i in rows:
            observations, infos = self._envs[i].reset(seed=self._next_seeds[i])
            self._next_seeds[i] = None
            self._pack(i, observations, infos, self._envs[i].agents)
        self._check_observations()
        return self._as_tensordict(
            won=np.full((n_envs, 1), _UNKNOWN, np.int8),
            done=np.zeros((n_envs, 1), bool),
            terminated=np.zeros((n_envs, 1), bool),
        )

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        n_envs = self.batch_size[0]
        self._arrays = self._empty_arrays()
        rewards = {
            name: np.zeros((n_envs, len(members), 1), np.float32)
            for name, members in self._members.items()
        }
        won = np.full((n_envs, 1), _UNKNOWN, np.int8)
        done = np.zeros((n_envs, 1), bool)
        terminated = np.zeros((n_envs, 1), bool)
        actions = self._actions_by_agent(tensordict)
        for i, env in enumerate(self._envs):
            observations, reward_of, terminations, truncations, infos = env.step(
                {agent: actions[agent][i] for agent in env.agents}
            )
            present = env.agents
            if not present:
                done[i] = True
                won[i] = _won(infos)
                present = [a for a in observations if truncations[a] and not terminations[a]]
                terminated[i] = not present
            self._pack(i, observations, infos, present)
            for name, members in self._members.items():
                group_rewards = rewards[name]
                for row, agent in members:
                    group_rewards[i, row, 0] = reward_of.get(agent, 0.0)
        self._check_observations()
        self._step_count = self._step_count + 1
        mean_reward = np.concatenate(list(rewards.values()), axis=1).mean(axis=1)
        self._episode_return = self._episode_return + mean_reward
        stepped = self._as_tensordict(won, done, terminated)
        for name, reward in self._trained_on(rewards).items():
            stepped.get(name).set("reward", torch.from_numpy(reward))
        return stepped

    def _actions_by_agent(self, tensordict: TensorDictBase) -> dict[str, Sequence[Any]]:
        """Each agent's actions in all copies: a list of ints, or an array [N, action_size]."""
        actions: dict[str, Sequence[Any]] = {}
        for name, group in self.groups.items():
            action = tensordict.get((name, "action")).numpy()
            if group.is_discrete:
                # plain ints: indexing numpy scalars one by one is several times slower
                by_agent = (action.T + int(group.action_space.start)).tolist()
            else:
                by_agent = action.swapaxes(0, 1)
            actions.update(zip(group.agents, by_agent, strict=True))
        return actions

    def _trained_on(self, rewards: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not self._team_reward:
            return rewards
        total = sum(reward.sum(axis=1, keepdims=True) for reward in rewards.values())
        team = total / np.float32(sum(reward.shape[1] for reward in rewards.values()))
        return {name: np.repeat(team, rewards[name].shape[1], axis=1) for name in rewards}

    def _empty_arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """What the copies show if no agent is there, in new memory."""
        n_envs = self.batch_size[0]
        empty = {}
        for name, group in self.groups.items():
            shape = (n_envs, len(group.agents))
            empty[name] = {
                "observation": np.zeros((*shape, group.observation_size), np.float32),
                "active": np.zeros(shape, bool),
            }
            if group.masked:
                empty[name]["action_mask"] = np.ones((*shape, group.action_size), bool)
        return empty

    def _pack(
        self,
        i: int,
        observations: Mapping[str, Any],
        infos: Mapping[str, Mapping[str, Any]],
        present: Sequence[str],
    ) -> None:
        """Write what the agents `present` in copy i see."""
        for name, members in self._members.items():
            arrays = self._arrays[name]
            observed, active = arrays["observation"][i], arrays["active"][i]
            action_mask = arrays.get("action_mask")
            for row, agent in members:
                if agent not in present:
                    continue
                observation = observations[agent]
                if action_mask is not None:
                    legal = (
                        observation
                        if isinstance(observation, dict) and "action_mask" in observation
                        else infos[agent]
                    )["action_mask"]
                    action_mask[i, row] = legal
                if isinstance(observation, dict):
                    observation = observation["observation"]
                observed[row] = observation if observation.ndim == 1 else observation.reshape(-1)
                active[row] = True

    def _check_observations(self) -> None:
        for name, group in self.groups.items():
            observed = self._arrays[name]["observation"]
            if not np.isfinite(observed).all():
                copy, row = np.argwhere(~np.isfinite(observed).all(-1))[0]
                raise ValueError(
                    f"environment {self._name!r} gave agent {group.agents[row]!r} of copy {copy} "
                    f"an observation that holds NaN or infinity: {observed[copy, row]}"
                )

    def _as_tensordict(
        self, won: np.ndarray, done: np.ndarray, terminated: np.ndarray
    ) -> TensorDict:
        batch_size = self.batch_size
        shown: dict[str, Any] = {
            name: TensorDict(
                {key: torch.from_numpy(array) for key, array in arrays.items()},
                batch_size=batch_size,
            )
            for name, arrays in self._arrays.items()
        }
        shown["episode_return"] = torch.from_numpy(self._episode_return)
        shown["step_count"] = torch.from_numpy(self._step_count)
        shown["won"] = torch.from_numpy(won)
        shown["done"] = torch.from_numpy(done)
        shown["terminated"] = torch.from_numpy(terminated)
        shown["truncated"] = torch.from_numpy(done & ~terminated)
        return TensorDict(shown, batch_size=batch_size, device=self.device)

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Close every copy."""
        for env in self._envs:
            env.close()
        super().close(raise_if_closed=raise_if_closed)


def _won(infos: Mapping[str, Mapping[str, Any]]) -> int:
    flags = [bool(info[flag]) for info in infos.values() for flag in _WIN_FLAGS if flag in info]
    return int(any(flags)) if flags else _UNKNOWN
