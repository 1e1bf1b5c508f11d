"""Generalised advantage estimation over a batch, and statistics of it."""

from __future__ import annotations

import torch
from torch import Tensor
from torchrl.objectives.value.functional import vec_generalized_advantage_estimate


def estimate_advantage(
    value: Tensor,
    next_value: Tensor,
    reward: Tensor,
    done: Tensor,
    terminated: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Advantages and value targets.

    A terminated step is worth its reward alone; any other last step, truncated or the last of the
    batch, is bootstrapped from `next_value`, the value of the true next observation. Both cut the
    trace.

    Args:
        value, next_value, reward, done, terminated: [N, T, 1] for a team, [N, T, n_agents, 1] for
            every agent; all of one shape.

    Returns:
        advantage and value target, of that shape and in the units of the reward.

    Source: Schulman et al., High-Dimensional Continuous Control Using GAE, ICLR 2016; Pardo et
    al., Time Limits in Reinforcement Learning, ICML 2018.
    """
    signals = [value, next_value, reward, done, terminated]
    per_agent = reward.ndim == 4
    if per_agent:
        # TorchRL wants time in the last dimension but one
        signals = [signal.transpose(1, 2) for signal in signals]
    advantage, target = vec_generalized_advantage_estimate(gamma, gae_lambda, *signals)
    if per_agent:
        advantage, target = advantage.transpose(1, 2), target.transpose(1, 2)
    return advantage, target


def normalize_per_agent(advantage: Tensor, active: Tensor) -> Tensor:
    """Shift and scale each agent's advantages to mean 0 and deviation 1 over its active steps.

    Args:
        advantage: [N, T, n_agents, 1].
        active: bool [N, T, n_agents, 1].

    Returns:
        [N, T, n_agents, 1]; 0 where the agent is not active.
    """
    steps = (0, 1)
    count = active.sum(steps, keepdim=True).clamp_min(1)
    mean = torch.where(active, advantage, 0.0).sum(steps, keepdim=True) / count
    centred = torch.where(active, advantage - mean, 0.0)
    deviation = (centred.square().sum(steps, keepdim=True) / count).sqrt()
    return centred / (deviation + 1e-5)


def explained_variance(value: Tensor, target: Tensor, active: Tensor) -> float:
    """1 - Var(target - value) / Var(target) over the active steps; NaN if targets are constant."""
    value, target = value[active], target[active]
    total = target.var(correction=0) if target.numel() else 0.0
    if total == 0:
        return float("nan")
    return float(1 - (target - value).var(correction=0) / total)
