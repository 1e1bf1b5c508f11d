"""Copies of a PettingZoo Parallel environment: all agents act at once. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from heteromark.environment.pettingzoo.conformity import (
    number,
    refuse_ids,
    refuse_info,
    refuse_reward,
    reset_parallel,
    step_parallel,
)
from heteromark.environment.pettingzoo.copies import UNKNOWN, AgentSlot, Copies, mean
from heteromark.environment.pettingzoo.direct import direct_parallel

_WIN_FLAGS = ("battle_won", "won")


class ParallelCopies(Copies):
    """See `Copies`, and `PettingZooParallelEnv` for what the arrays mean.

    Raises:
        ValueError: see `Copies`; or the environment returns something else than PettingZoo's API
            says, or an agent appears that is not in `possible_agents` or had left the episode.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._direct = [direct_parallel(env) for env in self._envs]
        # the active agents of each copy: their names, and their slots
        self._present: list[list[str]] = [[] for _ in self._envs]
        self._present_slots: list[list[AgentSlot]] = [[] for _ in self._envs]
        self._left: list[set[str]] = [set() for _ in self._envs]
        # those of them that terminated or were truncated, but are still in the environment's list
        self._listed: list[set[str]] = [set() for _ in self._envs]

    def _reset_copy(self, i: int, seed: int) -> None:
        env, name, copy = self._direct[i], self._settings.name, self._first + i
        if hasattr(env, "seed_episode"):  # the adapter of StarCraft II, which would restart
            env.seed_episode(seed)
            observations, infos = reset_parallel(env, None, name, copy)
        else:
            observations, infos = reset_parallel(env, seed, name, copy)
        self._present[i], self._left[i], self._listed[i] = [], set(), set()
        self._update_present(i, env.agents)
        self._write_agents(i, observations, infos)
        self._write_state(i)

    def _step_copy(self, i: int, actions: Mapping[str, Sequence[Any]]) -> None:
        env, acting = self._direct[i], self._present[i]
        observations, rewards, terminations, truncations, infos = step_parallel(
            env, {a: actions[a][i] for a in acting}, self._settings.name, self._first + i
        )
        present = env.agents
        if self._listed[i] or any(terminations.values()) or any(truncations.values()):
            ended = {a for a in acting if terminations.get(a) or truncations.get(a)}
            self._listed[i] = (self._listed[i] | ended).intersection(present)
            present = [agent for agent in present if agent not in self._listed[i]]
        if not present:
            present = [a for a in acting if truncations.get(a) and not terminations.get(a)]
            self._outputs["done"][i] = True
            self._outputs["terminated"][i] = not present
            self._outputs["truncated"][i] = bool(present)
            self._outputs["won"][i] = _won(infos)
        if present != self._present[i]:
            self._update_present(i, present)
        self._write_agents(i, observations, infos)
        self._write_state(i)
        own = self._own_rewards(i, acting, rewards)
        self._write_rewards(i, own)
        self._add_to_return(i, mean(own.values()))
        self._outputs["step_count"][i, 0] += 1

    def _own_rewards(
        self, i: int, acting: Sequence[str], rewards: Mapping[str, Any]
    ) -> dict[str, float]:
        """Return every agent's reward; 0 for agents that are not in the episode."""
        slots, name, copy = self._slots[i], self._settings.name, self._first + i
        if not rewards.keys() <= slots.keys():
            refuse_ids("rewards", {*rewards} - {*slots}, slots, name, copy)
        own = {}
        for agent in slots:
            value = rewards.get(agent, None if agent in acting else 0.0)
            reward = number(value)
            if reward is None:
                refuse_reward(agent, value, name, copy)
            own[agent] = reward
        return own

    def _update_present(self, i: int, present: Sequence[str]) -> None:
        """Update copy i after agents joined or left."""
        slots, before = self._slots[i], self._present[i]
        for agent in present:
            if agent not in slots or agent in self._left[i]:
                self._raise_unexpected(i, agent)
        for agent in set(before).difference(present):
            self._left[i].add(agent)
            self._clear(slots[agent])
        # a copy, because environments modify their list in place
        self._present[i] = list(present)
        self._present_slots[i] = [slots[agent] for agent in present]
        for slot in self._present_slots[i]:
            slot.active[slot.row] = True

    def _write_agents(
        self, i: int, observations: Mapping[str, Any], infos: Mapping[str, Mapping[str, Any]]
    ) -> None:
        for slot in self._present_slots[i]:
            if slot.agent not in observations:
                raise ValueError(
                    f"{self._describe(slot, 'no observation')}, but it is still in the episode"
                )
            info = infos.get(slot.agent, {})
            if type(info) is not dict and not isinstance(info, Mapping):
                refuse_info(slot.agent, info, self._settings.name, slot.copy)
            self._write_observation(slot, observations[slot.agent], info)


def _won(infos: Mapping[str, Mapping[str, Any]]) -> int:
    flags = [bool(info[flag]) for info in infos.values() for flag in _WIN_FLAGS if flag in info]
    return int(any(flags)) if flags else UNKNOWN
