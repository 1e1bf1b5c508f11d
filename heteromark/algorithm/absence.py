"""Replace the entries of absent agents (dead or waiting) in a batch by safe values."""

from __future__ import annotations

import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from heteromark.environment.groups import Group


def blank_absent(batch: TensorDict, group: Group, *, turn_based: bool) -> None:
    """Replace the entries of a group's absent agents by finite values.

    Absent agents are masked out of every loss, and recurrent networks keep their hidden state. But
    a mask does not keep NaN or infinity out of the gradients, because 0 · NaN is NaN. So, for
    absent agents, observations are zeros (as in `make_specs`), all actions are legal, and the
    action is the first one or the middle of the box, with a log-probability of 0.

    Args:
        batch: [N, T]. Entries of the group and of ("next", group) are replaced by new tensors.
        group: the group of the agents.
        turn_based: absent agents wait and need their hidden state at their next turn. Otherwise
            they have left for good, and their hidden state is set to 0 too.
    """
    before, after = batch[group.name], batch["next", group.name]
    _fill(after, "observation", ~after["active"], 0.0)
    absent = ~before["active"]
    _fill(before, "observation", absent, 0.0)
    _fill(before, "action_log_prob", absent, 0.0)
    if group.masked:
        _fill(before, "action_mask", absent, True)
    space = group.action_space
    if isinstance(space, spaces.Box):
        action = before["action"]
        middle = torch.as_tensor((space.low + space.high) / 2).to(action)
        before["action"] = torch.where(absent.unsqueeze(-1), middle, action)
    else:
        _fill(before, "action", absent, 0)
    if not turn_based and before.get("hidden", None) is not None:
        _fill(before, "hidden", absent, 0.0)


def _fill(agents: TensorDict, key: str, absent: Tensor, number: float) -> None:
    """Set entry `key` [N, T, n, ...] to a number where `absent` [N, T, n]."""
    entry = agents[key]
    agents[key] = entry.masked_fill(absent.reshape(*absent.shape, *[1] * (entry.dim() - 3)), number)
