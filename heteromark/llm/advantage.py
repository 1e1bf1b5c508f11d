"""Group-relative advantages: compare each response with the others to the same prompt.

Source: Shao et al., DeepSeekMath, 2024 (GRPO), section 4.1.2; Liu et al., Understanding
R1-Zero-Like Training, 2025 (Dr. GRPO), which omits the standard deviation.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

# Added to a group's standard deviation to avoid division by zero, in units of the reward.
EPSILON = 1e-4


class GroupAdvantage(NamedTuple):
    """Advantages, and which groups carry no learning signal.

    Attributes:
        advantage: `[responses]`; 0 in groups whose rewards are all equal.
        is_flat: `[responses]`; whether all rewards of the response's group are equal.
        flat_share: share of groups whose rewards are all equal.
    """

    advantage: Tensor
    is_flat: Tensor
    flat_share: float


def group_advantage(reward: Tensor, group: Tensor, scale: bool = True) -> GroupAdvantage:
    """Return the rewards minus their group's mean, divided by the group's standard deviation.

    The standard deviation is the population one (divided by n). A single response has advantage 0.

    Args:
        reward: `[responses]`.
        group: `[responses]`, integers; equal for responses to the same prompt.
        scale: divide by the standard deviation; False for Dr. GRPO.

    Raises:
        ValueError: The shapes differ, or a reward is NaN or infinite.
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
    # The mean of equal numbers can differ from them by rounding; the division would amplify this.
    centred = centred.masked_fill(is_flat, 0.0)
    if not scale:
        return GroupAdvantage(centred, is_flat, flat_share)
    deviation = (zeros.index_add(0, index, centred.square()) / count).sqrt()
    return GroupAdvantage(centred / (deviation[index] + EPSILON), is_flat, flat_share)


def best_responses(
    reward: Tensor, group: Tensor, method: Literal["mean", "median"], share: float
) -> Tensor:
    """Select the responses with the highest reward relative to their group's mean or median.

    Ties go to the earlier response. The selection is biased: the policy sees fewer of its failures.

    Args:
        reward: see `group_advantage`.
        group: see `group_advantage`.
        method: the center that rewards are compared with.
        share: share of responses to keep, in (0, 1]; the count is rounded up.

    Returns:
        bool `[responses]`; True for the responses to keep.
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
