"""Groups of agents, with their observation size and action space."""

from __future__ import annotations

import math
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
class Image:
    """A picture with numbers from 0 to 255 that an agent observes."""

    shape: tuple[int, int, int]
    channels_first: bool  # [channels, height, width]; else [height, width, channels]

    @property
    def channels_then_size(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        first, second, last = self.shape
        return (first, second, last) if self.channels_first else (last, first, second)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Group:
    """Agents that share spaces and a policy."""

    name: str  # the first part of all its keys
    agents: tuple[str, ...]  # their names, in the order of the agent dimension
    observation_size: int  # size of one agent's flattened observation
    # a MultiDiscrete or Box is one-dimensional, and a Box is bounded
    action_space: spaces.Discrete | spaces.MultiDiscrete | spaces.Box
    masked: bool  # the environment provides a mask of legal discrete actions
    # the group that it was split from, or its own name. Settings of a family apply to all groups
    # split from it.
    family: str = ""
    image: Image | None = None  # the observation is this picture; None: it is not a picture

    def __post_init__(self) -> None:
        object.__setattr__(self, "family", self.family or self.name)

    @property
    def is_discrete(self) -> bool:
        """Whether an action is one number of choices."""
        return isinstance(self.action_space, spaces.Discrete)

    @property
    def is_continuous(self) -> bool:
        return isinstance(self.action_space, spaces.Box)

    @property
    def action_size(self) -> int:
        """Number of discrete actions, or dimensions of any other action."""
        space = self.action_space
        return int(space.n) if isinstance(space, spaces.Discrete) else space.shape[0]

    @property
    def choices(self) -> tuple[int, ...]:
        """Number of choices in each dimension of an action that is not continuous."""
        space = self.action_space
        if isinstance(space, spaces.MultiDiscrete):
            return tuple(space.nvec.tolist())
        return () if self.is_continuous else (self.action_size,)


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
    action_space = _supported_action_space(name, action_spaces[first])
    if masked and not isinstance(action_space, spaces.Discrete):
        raise ValueError(
            f"group {name!r} has action masks and action space {action_spaces[first]}; masks are "
            "supported for Discrete actions only"
        )
    observed = observed_space(observation_spaces[first])
    if not observed.is_np_flattenable:
        raise ValueError(
            f"group {name!r} has observation space {observed}, which Gymnasium cannot flatten to "
            "numbers; wrap the environment so that it returns Box, Discrete, MultiDiscrete, "
            "MultiBinary, or a Dict or Tuple of these"
        )
    if pictures := _pictures_within(observed):
        raise ValueError(
            f"group {name!r} has observation space {observed} with a picture in {pictures[0]!r}; "
            "wrap the environment so that an observation is only the picture (policy_type cnn), or "
            "has none"
        )
    return Group(
        name=name,
        agents=agents,
        observation_size=spaces.flatdim(observed),
        action_space=action_space,
        masked=masked,
        family=family,
        image=_image(observed),
    )


def observed_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return the space of what a policy observes: without the action mask.

    In PettingZoo, an observation with a mask is Dict(observation=…, action_mask=…).
    """
    if not isinstance(space, spaces.Dict) or "action_mask" not in space.spaces:
        return space
    rest = {name: part for name, part in space.spaces.items() if name != "action_mask"}
    return rest["observation"] if rest.keys() == {"observation"} else spaces.Dict(rest)


def observed_part(observation: Any, observed: spaces.Space[Any]) -> Any:
    """Return the part of an environment's observation that lies in its `observed_space`."""
    if not isinstance(observation, dict) or isinstance(observed, spaces.Dict):
        return observation
    return observation["observation"]


def _pictures_within(space: spaces.Space[Any]) -> list[str]:
    """Return the names of the parts of a Dict or Tuple that are pictures."""
    parts = getattr(space, "spaces", {})
    named = parts.items() if isinstance(parts, Mapping) else enumerate(parts)
    return [str(name) for name, part in named if _image(part) or _pictures_within(part)]


def _image(space: spaces.Space[Any]) -> Image | None:
    """Return the picture that a space contains; None: it contains something else."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return None
    if len(space.shape) == 2:
        height, width = space.shape
        return Image((height, width, 1), channels_first=False)
    if len(space.shape) != 3:
        return None
    first, second, last = space.shape
    return Image((first, second, last), channels_first=first < last)


def _supported_action_space(
    group: str, space: spaces.Space[Any]
) -> spaces.Discrete | spaces.MultiDiscrete | spaces.Box:
    """Return the space of the policy's actions, one-dimensional unless it is Discrete."""
    if isinstance(space, spaces.Discrete):
        return space
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiDiscrete([2] * int(np.prod(space.shape)))
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec.reshape(-1), start=space.start.reshape(-1))
    if isinstance(space, spaces.Box):
        low, high = space.low.reshape(-1), space.high.reshape(-1)
        if space.is_bounded():
            return spaces.Box(low, high, dtype=np.float32)
        open_ = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high))).tolist()
        raise ValueError(
            f"group {group!r} has action space {space}, whose dimensions {open_} have no finite "
            "bounds; wrap the environment so that it declares bounds, for example with SuperSuit's "
            "clip_actions_v0 or a RescaleAction of your own"
        )
    raise ValueError(
        f"group {group!r} has action space {space}; supported are Discrete, MultiDiscrete, "
        "MultiBinary and bounded Box"
    )


def override_of(overrides: Mapping[str, Override], group: Group) -> Override | None:
    """Return the override for a group, or else for its family; None if there is neither."""
    return overrides.get(group.name, overrides.get(group.family))
