"""Groups of agents, with their observation size and action space."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from gymnasium import spaces

# other keys at the root of a batch; a group cannot use their names
_OF_EPISODES = {"done", "terminated", "truncated", "step_count", "episode_return", "won", "state"}
_OF_CRITICS = {"joint_observation", "state_value", "critic_hidden", "critic_hidden_after"}
_OF_TRAINING = {"advantage", "value_target", "value_before", "value_counts"}
_RESERVED = _OF_EPISODES | _OF_CRITICS | _OF_TRAINING | {"next", "collector"}
_NUMBERED = re.compile(r"^(?P<prefix>.+)_\d+$")


Override = TypeVar("Override")


@dataclass(frozen=True)
class Group:
    """Agents that share spaces and a policy."""

    name: str  # the first part of all its keys
    agents: tuple[str, ...]  # their names, in the order of the agent dimension
    observation_size: int  # size of one agent's flattened observation
    action_space: spaces.Discrete | spaces.Box  # a Box is one-dimensional and bounded
    masked: bool  # the environment provides a mask of legal discrete actions
    # the group that it was split from, or its own name. Settings of a family apply to all groups
    # split from it.
    family: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "family", self.family or self.name)

    @property
    def is_discrete(self) -> bool:
        return isinstance(self.action_space, spaces.Discrete)

    @property
    def action_size(self) -> int:
        """Number of discrete actions, or dimensions of a continuous action."""
        space = self.action_space
        return int(space.n) if isinstance(space, spaces.Discrete) else space.shape[0]


def group_agents(
    agents: Sequence[str],
    group_by: str = "prefix",
    groups: Mapping[str, Sequence[str]] | None = None,
    split: bool = False,
) -> dict[str, tuple[str, ...]]:
    """Assign every agent to exactly one group.

    Args:
        agents: all agents of the environment, in its order.
        group_by: "prefix" (`marine_0` and `marine_1` → `marine`; a name without a number forms a
            separate group) or "agent" (one group per agent).
        groups: explicit map group → agents; overrides `group_by`.
        split: split every group into groups of one agent, named after the agent.

    Raises:
        ValueError: `groups` names an unknown agent, names an agent twice, or leaves one out; or a
            group's name is reserved.
    """
    grouped = _by_name(agents, group_by) if groups is None else _explicit(agents, groups)
    if split:
        grouped = {agent: (agent,) for members in grouped.values() for agent in members}
    if taken := sorted(_RESERVED & set(grouped)):
        raise ValueError(
            f"a group cannot be called {taken[0]!r}: the name is a reserved batch key; rename the "
            "group with environment.groups"
        )
    return grouped


def with_families(
    agents: Sequence[str],
    group_by: str,
    groups: Mapping[str, Sequence[str]] | None,
    split: bool,
) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield name, agents and family of each group that `group_agents` forms."""
    families = group_agents(agents, group_by, groups)
    family_of = {agent: name for name, members in families.items() for agent in members}
    for name, members in group_agents(agents, group_by, groups, split).items():
        yield name, members, family_of[members[0]]


def _by_name(agents: Sequence[str], group_by: str) -> dict[str, tuple[str, ...]]:
    grouped: dict[str, list[str]] = {}
    for agent in agents:
        numbered = _NUMBERED.match(agent) if group_by == "prefix" else None
        grouped.setdefault(numbered["prefix"] if numbered else agent, []).append(agent)
    return {name: tuple(members) for name, members in grouped.items()}


def _explicit(
    agents: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    group_of: dict[str, str] = {}
    for name, members in groups.items():
        for agent in members:
            if agent not in agents:
                raise ValueError(
                    f"environment.groups.{name} names unknown agent {agent!r}; the environment's "
                    f"agents are {', '.join(agents)}"
                )
            if agent in group_of:
                raise ValueError(
                    f"environment.groups puts agent {agent!r} in group {group_of[agent]!r} and in "
                    f"group {name!r}; each agent must belong to exactly one group"
                )
            group_of[agent] = name
    if missing := [agent for agent in agents if agent not in group_of]:
        raise ValueError(
            f"environment.groups leaves out {', '.join(missing)}; every agent must belong to a "
            "group"
        )
    return {name: tuple(members) for name, members in groups.items()}


def make_group(
    name: str,
    agents: tuple[str, ...],
    observation_spaces: Mapping[str, spaces.Space[Any]],
    action_spaces: Mapping[str, spaces.Space[Any]],
    masked: bool,
    family: str = "",
) -> Group:
    """Create a group after checking that its agents share supported spaces.

    Args:
        name: of the group.
        agents: names of its agents.
        observation_spaces: by agent.
        action_spaces: by agent.
        masked: whether the environment provides action masks.
        family: see `Group`.

    Raises:
        ValueError: two agents have different spaces, or a space is not supported.
    """
    first = agents[0]
    for kind, of_agent in (("observation", observation_spaces), ("action", action_spaces)):
        for agent in agents[1:]:
            if of_agent[agent] != of_agent[first]:
                raise ValueError(
                    f"agents of group {name!r} must share their spaces, but the {kind} space of "
                    f"{first!r} is {of_agent[first]} and that of {agent!r} is {of_agent[agent]}; "
                    "put them in different groups (environment.groups, or group_by: agent)"
                )
    return Group(
        name=name,
        agents=agents,
        observation_size=int(
            np.prod(observation_shape(name, observation_spaces[first]), dtype=np.int64)
        ),
        action_space=_supported_action_space(name, action_spaces[first]),
        masked=masked,
        family=family,
    )


def observed_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return the space a policy observes, without an action mask."""
    if isinstance(space, spaces.Dict) and "observation" in space.spaces:
        return space.spaces["observation"]
    return space


def observation_shape(group: str, space: spaces.Space[Any]) -> tuple[int, ...]:
    """Return the shape of what a policy of a group observes.

    Raises:
        ValueError: the space is not supported.
    """
    observed = observed_space(space)
    if not isinstance(observed, spaces.Box):
        raise ValueError(
            f"group {group!r} has observation space {observed}; supported are Box and "
            "Dict(observation=Box, action_mask=…)"
        )
    return observed.shape


def _supported_action_space(group: str, space: spaces.Space[Any]) -> spaces.Discrete | spaces.Box:
    if isinstance(space, spaces.Discrete):
        return space
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.is_bounded():
        return space
    raise ValueError(
        f"group {group!r} has action space {space}; supported are Discrete and one-dimensional "
        "bounded Box"
    )


def override_of(overrides: Mapping[str, Override], group: Group) -> Override | None:
    """Return the override for a group, or else for its family; None if there is neither."""
    return overrides.get(group.name, overrides.get(group.family))
