"""Group-relative advantages: a response is judged beside the others to the same prompt.

Source: Shao et al., DeepSeekMath, 2024 (GRPO), section 4.1.2; Liu et al., Understanding
R1-Zero-Like Training, 2025 (Dr. GRPO), which leaves out the standard deviation.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

# Added to a group's standard deviation, in units of the reward.
EPSILON = 1e-4


class GroupAdvantage(NamedTuple):
    """Advantages, and how much of the batch can teach something.

    Attributes:
        advantage: `[responses]`; 0 throughout groups whose rewards are all equal.
        is_flat: `[responses]`: whether all rewards of its group are equal.
        flat_share: of the groups.
    """

    advantage: Tensor
    is_flat: Tensor
    flat_share: float


def group_advantage(reward: Tensor, group: Tensor, scale: bool = True) -> GroupAdvantage:
    """Rewards minus the mean of their group, in units of its standard deviation.

    The deviation is that of the group itself (divided by n): a single response has advantage 0.

    Args:
        reward: `[responses]`.
        group: `[responses]`, whole numbers; equal where the prompt is the same.
        scale: divide by the standard deviation; false as in Dr. GRPO.

    Raises:
        ValueError: shapes differ, or a reward is NaN or infinite.
    """
    if reward.shape != group.shape or reward.dim() != 1:
        raise ValueError(
            f"reward and group must be [responses], got {list(reward.shape)}, {list(group.shape)}"
        )
    if not reward.isfinite().all():
        raise ValueError("rewards must be finite")
    _, index, count = group.unique(return_inverse=True, return_counts=True)
    zeros = reward.new_zeros(len(count))
    mean = zeros.index_add(0, index, reward) / count
    centred = reward - mean[index]
    lowest = zeros.scatter_reduce(0, index, reward, "amin", include_self=False)
    highest = zeros.scatter_reduce(0, index, reward, "amax", include_self=False)
    is_flat = lowest == highest
    flat_share = is_flat.float().mean().item()
    is_flat = is_flat[index]
    # The mean of equal numbers may differ from them by rounding, which dividing would blow up.
    centred = centred.masked_fill(is_flat, 0.0)
    if not scale:
        return GroupAdvantage(centred, is_flat, flat_share)
    deviation = (zeros.index_add(0, index, centred.square()) / count).sqrt()
    return GroupAdvantage(centred / (deviation[index] + EPSILON), is_flat, flat_share)


def best_responses(
    reward: Tensor, group: Tensor, method: Literal["mean", "median"], share: float
) -> Tensor:
    """Which responses earned most above the mean (or median) of their group.

    Of equal ones, those that come first. What is kept is biased towards what went well: the
    policy sees fewer of its failures.

    Args:
        reward, group: as `group_advantage` takes them.
        share: how much is kept, rounded up to whole responses; more than 0, at most 1.

    Returns:
        bool `[responses]`.
    """
    above = torch.empty_like(reward)
    for number in group.unique():
        rows = group == number
        centre = reward[rows].mean() if method == "mean" else reward[rows].quantile(0.5)
        above[rows] = reward[rows] - centre
    order = above.argsort(descending=True, stable=True)
    kept = torch.zeros_like(reward, dtype=torch.bool)
    kept[order[: math.ceil(share * len(reward))]] = True
    return kept
