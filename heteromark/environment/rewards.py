"""What a step's rewards must be to be learnt from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tensordict import TensorDictBase
from torch import Tensor

from heteromark.environment.groups import Group


def reward_that_is_not_finite(after: TensorDictBase, groups: Mapping[str, Group]) -> str:
    """Which agents got a reward that is NaN or infinite; empty if none did.

    A team's reward is all its agents': then all are named.

    Args:
        after: what is seen after a step, [N, ...], or after each step of a batch [N, T, ...].
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


def rewards_that_differ(after: TensorDictBase, groups: Mapping[str, Group], critic: str) -> str:
    """Two agents whose rewards differ although they have a centralised critic; empty if all agree.

    Args:
        after: see `reward_that_is_not_finite`.
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
        f"{_name(agent, groups)}; with policy.critic {critic} all agents share one return: give "
        "all of them the same reward, or set policy.critic=own with IPPO or MaskablePPO "
        "(agent.algorithm)"
    )


def _of_all(after: TensorDictBase, groups: Mapping[str, Group]) -> Tensor:
    """[..., number of all agents], group after group."""
    return torch.cat([after[name, "reward"].squeeze(-1) for name in groups], -1)


def _name(number: int, groups: Mapping[str, Group]) -> str:
    """An agent by its number in `_of_all`."""
    agents = [(agent, name) for name, group in groups.items() for agent in group.agents]
    agent, group = agents[number]
    return f"agent {agent!r} of group {group!r}"
