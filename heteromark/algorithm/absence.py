"""What a batch holds of agents that are dead or waiting, made harmless."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor

from heteromark.environment.groups import Group


def blank_absent(batch: TensorDict, group: Group, *, turn_based: bool) -> None:
    """Replace what is recorded of a group's absent agents by numbers that do no harm.

    Absent agents are masked out of every loss, and recurrent networks let their memory stand. That
    alone does not keep NaN or infinity out of the gradients, because 0 · NaN is NaN. So:
    observations are zeros as `make_specs` has them, all actions are legal, the action is the
    first or the middle of the box, with a log-probability of 0.

    Args:
        batch: [N, T]; entries of the group and of ("next", group) are replaced, not written into.
        group: whose agents.
        turn_based: absent agents wait, and their memory is needed at their next turn; else they
            have left for good, and it is zero too.
    """
    before, after = batch[group.name], batch["next", group.name]
    _fill(after, "observation", ~after["active"], 0.0)
    absent = ~before["active"]
    _fill(before, "observation", absent, 0.0)
    _fill(before, "action_log_prob", absent, 0.0)
    if group.masked:
        _fill(before, "action_mask", absent, True)
    if group.is_discrete:
        _fill(before, "action", absent, 0)
    else:
        space, action = group.action_space, before["action"]
        middle = torch.as_tensor((space.low + space.high) / 2).to(action)
        before["action"] = torch.where(absent.unsqueeze(-1), middle, action)
    if not turn_based and before.get("hidden", None) is not None:
        _fill(before, "hidden", absent, 0.0)


def _fill(agents: TensorDict, key: str, absent: Tensor, number: float) -> None:
    """Set entry `key` [N, T, n, ...] to a number where `absent` [N, T, n]."""
    entry = agents[key]
    agents[key] = entry.masked_fill(absent.reshape(*absent.shape, *[1] * (entry.dim() - 3)), number)
