"""Copies of a PettingZoo Parallel environment: all agents act at once. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from heteromark.environment.pettingzoo.copies import UNKNOWN, Copies, Place, mean
from heteromark.environment.pettingzoo.direct import direct_parallel

_WIN_FLAGS = ("battle_won", "won")


class ParallelCopies(Copies):
    """See `Copies`, and `PettingZooParallelEnv` for what the arrays mean.

    Raises:
        ValueError: besides, an agent appears that is not among `possible_agents`, or that had left
            the episode.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._direct = [direct_parallel(env) for env in self._envs]
        # who takes part in each copy: names as the environment gave them, and places
        self._present: list[list[str]] = [[] for _ in self._envs]
        self._here: list[list[Place]] = [[] for _ in self._envs]
        self._left: list[set[str]] = [set() for _ in self._envs]

    def _reset_copy(self, i: int, seed: int | None) -> None:
        env = self._direct[i]
        observations, infos = env.reset(seed=seed)
        self._present[i], self._left[i] = [], set()
        self._update_present(i, env.agents)
        self._show_agents(i, observations, infos)
        self._show_state(i)

    def _step_copy(self, i: int, actions: Mapping[str, Sequence[Any]]) -> None:
        env = self._direct[i]
        observations, rewards, terminations, truncations, infos = env.step(
            {agent: actions[agent][i] for agent in self._present[i]}
        )
        present = env.agents
        if not present:
            present = [a for a in observations if truncations.get(a) and not terminations.get(a)]
            self._shown["done"][i] = True
            self._shown["terminated"][i] = not present
            self._shown["truncated"][i] = bool(present)
            self._shown["won"][i] = _won(infos)
        if present != self._present[i]:
            self._update_present(i, present)
        self._show_agents(i, observations, infos)
        self._show_state(i)
        own = {agent: float(rewards.get(agent, 0.0)) for agent in self._places[i]}
        self._show_rewards(i, own)
        self._add_to_return(i, mean(own.values()))
        self._shown["step_count"][i, 0] += 1

    def _update_present(self, i: int, present: Sequence[str]) -> None:
        """Agents came or went in copy i."""
        places, before = self._places[i], self._present[i]
        for agent in present:
            if agent not in places or agent in self._left[i]:
                self._raise_unexpected(i, agent)
        for agent in set(before).difference(present):
            self._left[i].add(agent)
            self._hide(places[agent])
        # a list of our own: environments change theirs in place
        self._present[i] = list(present)
        self._here[i] = [places[agent] for agent in present]
        for place in self._here[i]:
            place.active[place.row] = True

    def _show_agents(
        self, i: int, observations: Mapping[str, Any], infos: Mapping[str, Mapping[str, Any]]
    ) -> None:
        for place in self._here[i]:
            if place.agent not in observations:
                raise ValueError(f"{self._gave(place, 'no observation')} while it takes part")
            self._show(place, observations[place.agent], infos.get(place.agent, {}))


def _won(infos: Mapping[str, Mapping[str, Any]]) -> int:
    flags = [bool(info[flag]) for info in infos.values() for flag in _WIN_FLAGS if flag in info]
    return int(any(flags)) if flags else UNKNOWN
