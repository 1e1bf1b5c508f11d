"""Checks of the rewards that agents are trained on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tensordict import TensorDictBase
from torch import Tensor

from heteromark.environment.groups import Group


def find_nonfinite_reward(after: TensorDictBase, groups: Mapping[str, Group]) -> str:
    """Describe the first NaN or infinite reward and its agents; empty if all are finite.

    A team reward is shared, so the message then names all agents.

    Args:
        after: the "next" part of a step, [N, ...], or of a batch, [N, T, ...].
    """
    rewards = _of_all(after, groups)
    wrong = ~rewards.isfinite()
    if not wrong.any():
        return ""
    *where, first = wrong.nonzero()[0].tolist()
    here = rewards[tuple(where)].tolist()
    affected = [agent for agent, is_wrong in enumerate(wrong[tuple(where)].tolist()) if is_wrong]
    agents = ", ".join(_name(agent, groups) for agent in affected)
    return f"reward {here[first]} of {agents} in copy {where[0]} is not finite"


def find_unequal_rewards(after: TensorDictBase, groups: Mapping[str, Group], critic: str) -> str:
    """Describe two agents with different rewards under a centralised critic; empty if none differ.

    Args:
        after: see `find_nonfinite_reward`.
        critic: `RunConfig.critic`.
    """
    if critic == "own":
        return ""
    rewards = _of_all(after, groups)
    agree = torch.isclose(rewards, rewards[..., :1], equal_nan=True)
    if agree.all():
        return ""
    *where, agent = (~agree).nonzero()[0].tolist()
    here = rewards[tuple(where)].tolist()
    return (
        f"rewards differ in copy {where[0]}: {here[0]} for {_name(0, groups)}, {here[agent]} for "
        f"{_name(agent, groups)}; with policy.critic={critic} all agents share one return. Give "
        "all agents the same reward, or set policy.critic=own with agent.algorithm IPPO or "
        "MaskablePPO"
    )


def _of_all(after: TensorDictBase, groups: Mapping[str, Group]) -> Tensor:
    """Return the rewards of all agents, [..., number of agents], group after group."""
    return torch.cat([after[name, "reward"].squeeze(-1) for name in groups], -1)


def _name(number: int, groups: Mapping[str, Group]) -> str:
    """Name an agent, given its index in `_of_all`."""
    agents = [(agent, name) for name, group in groups.items() for agent in group.agents]
    agent, group = agents[number]
    return f"agent {agent!r} of group {group!r}"
