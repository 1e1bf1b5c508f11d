"""Agents and spaces of a PettingZoo environment, and a check that all copies agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv

from heteromark.environment.groups import Group, make_group, with_families
from heteromark.environment.pettingzoo.conformity import require_seed, reset_parallel


@dataclass(frozen=True)
class Description:
    """Agents and spaces that every copy of an environment must have."""

    agents: tuple[str, ...]  # all possible agents, in the environment's order
    observation_spaces: Mapping[str, spaces.Space[Any]]  # by agent
    action_spaces: Mapping[str, spaces.Space[Any]]  # by agent
    masked: frozenset[str]  # the agents with action masks
    state_shape: tuple[int, ...] | None  # of the global state; None if it is not read
    turn_based: bool  # agents act one after the other

    @property
    def state_size(self) -> int | None:
        """Size of the flattened state; None if it is not read."""
        return None if self.state_shape is None else int(np.prod(self.state_shape, dtype=np.int64))

    def check(self, env: Any, name: str, copy: int, groups: Mapping[str, Group]) -> None:
        """Compare a copy's agents and spaces with this description.

        Raises:
            ValueError: they differ.
        """
        if tuple(env.possible_agents) != self.agents:
            raise ValueError(
                f"all copies of environment {name!r} must have the same agents, but copy {copy} "
                f"has {', '.join(env.possible_agents)} and the first copy had "
                f"{', '.join(self.agents)}. possible_agents must list every agent that can ever "
                "appear, always in the same order"
            )
        for group in groups.values():
            for agent in group.agents:
                for kind, space, first in (
                    ("observation", env.observation_space(agent), self.observation_spaces[agent]),
                    ("action", env.action_space(agent), self.action_spaces[agent]),
                ):
                    if space != first:
                        raise ValueError(
                            f"all copies of environment {name!r} must have the same spaces, but "
                            f"the {kind} space of agent {agent!r} of group {group.name!r} is "
                            f"{space} in copy {copy} and was {first} in the first copy. Declare "
                            "the largest space ever needed; mask unused actions and pad "
                            "observations"
                        )

    def group(
        self,
        group_by: str = "prefix",
        groups: Mapping[str, Sequence[str]] | None = None,
        split: bool = False,
    ) -> dict[str, Group]:
        """Return the agents' groups; see `group_agents` and `make_group`."""
        return {
            name: make_group(
                name,
                members,
                self.observation_spaces,
                self.action_spaces,
                masked=not self.masked.isdisjoint(members),
                family=family,
            )
            for name, members, family in with_families(self.agents, group_by, groups, split)
        }


def describe(env: Any, name: str, with_state: bool = False) -> Description:
    """Describe a PettingZoo environment, Parallel or AEC, after resetting it with seed 0.

    Args:
        env: the environment.
        name: the environment's name in error messages.
        with_state: whether its global state will be read.

    Raises:
        ValueError: it has no agents, or no state although `with_state` is set.
    """
    agents = tuple(getattr(env, "possible_agents", ()))
    if not agents:
        raise ValueError(
            f"environment {name!r} has no agents; it must have possible_agents, a list of the "
            "agents' names"
        )
    require_seed(env, name)
    observation_spaces = {agent: env.observation_space(agent) for agent in agents}
    # Masks in the infos appear only after a reset.
    if isinstance(env, AECEnv):
        env.reset(seed=0)
        infos = env.infos
    else:
        _, infos = reset_parallel(env, 0, name)
    masked = frozenset(
        agent
        for agent in agents
        if "action_mask" in getattr(observation_spaces[agent], "spaces", ())
        or "action_mask" in (infos.get(agent) or {})
    )
    return Description(
        agents=agents,
        observation_spaces=observation_spaces,
        action_spaces={agent: env.action_space(agent) for agent in agents},
        masked=masked,
        state_shape=_state_shape(env, name) if with_state else None,
        turn_based=isinstance(env, AECEnv),
    )


def _state_shape(env: Any, name: str) -> tuple[int, ...]:
    try:
        return np.asarray(env.state()).shape
    except (NotImplementedError, AttributeError) as error:
        raise ValueError(
            f"environment.state is true, but environment {name!r} has no state(); set "
            "environment.state=false; a centralised critic then sees all observations concatenated"
        ) from error
