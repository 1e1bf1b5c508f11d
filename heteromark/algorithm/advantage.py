"""Generalised advantage estimation over a batch, and statistics of advantages."""

from __future__ import annotations

from dataclasses import dataclass

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
    """Estimate advantages and value targets of a team, which acts in every step.

    The target of a terminated step is its reward. Any other last step (truncated, or the last one
    of the batch) is bootstrapped from `next_value`, the value of the true next observation. Both
    cut the trace.

    Args:
        value: value of each observation, [N, T, 1].
        next_value: value of the true next observation, [N, T, 1].
        reward: [N, T, 1].
        done: bool, the episode ended in this step, [N, T, 1].
        terminated: bool, it ended for good rather than by truncation, [N, T, 1].
        gamma: discount factor.
        gae_lambda: weight of longer returns.

    Returns:
        Advantage and value target, [N, T, 1], in the units of the reward.

    Source: Schulman et al., High-Dimensional Continuous Control Using GAE, ICLR 2016; Pardo et
    al., Time Limits in Reinforcement Learning, ICML 2018.
    """
    return vec_generalized_advantage_estimate(
        gamma, gae_lambda, value, next_value, reward, done, terminated
    )


@dataclass(frozen=True)
class AgentSignals:
    """Rewards and presence of a group's agents per step; all [N, T, n_agents, 1]."""

    reward: Tensor  # reward of each agent, present or not
    active: Tensor  # bool, the agent acted in this step
    still_there: Tensor  # bool, the agent has a valid observation after the step
    done: Tensor  # bool, the step ended the episode


def estimate_agent_advantage(
    value: Tensor,
    next_value: Tensor,
    signals: AgentSignals,
    *,
    gamma: float,
    gae_lambda: float,
    waiting_discount: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate advantages and value targets of agents that do not act in every step.

    An agent's transition runs from a step in which it acts to the next such step, or to the end of
    the episode. Rewards in between belong to the transition. A transition that does not end within
    the batch has an unknown value and does not count.

    Args:
        value: [N, T, n_agents, 1], in the units of the reward; read where the agent is active.
        next_value: [N, T, n_agents, 1]; read where the agent is still there.
        signals: of the same shape.
        gamma: discount from one step of the agent to its next one.
        waiting_discount: discount of a step in which the agent does not act: 1 in a turn-based
            game, gamma if time passes for all agents. None: an agent that does not act has left
            and receives no more rewards, so its return ends there.

    Returns:
        Advantage, value target, and whether the transition counts; 0 and False where not active.

    Source: Schulman et al., High-Dimensional Continuous Control Using GAE, ICLR 2016, along each
    agent's own steps.
    """
    advantage = torch.zeros_like(value)
    counts = torch.zeros_like(signals.active)
    leaves = waiting_discount is None
    wait = 1.0 if waiting_discount is None else waiting_discount
    # For the time after a step: the value at the agent's next step, the rewards until then, the
    # advantage there, and whether that step is in the batch.
    future = torch.zeros_like(value[:, 0])
    received = torch.zeros_like(future)
    trace = torch.zeros_like(future)
    known = signals.still_there[:, -1]
    future = torch.where(known, next_value[:, -1], future)
    for t in reversed(range(value.shape[1])):
        stays, acts = signals.still_there[:, t], signals.active[:, t]
        ends = signals.done[:, t] | ~stays if leaves else signals.done[:, t]
        future = torch.where(ends, torch.where(stays, next_value[:, t], 0.0), future)
        received = torch.where(ends, 0.0, received)
        trace = torch.where(ends, 0.0, trace)
        known = known | ends

        gained = signals.reward[:, t] + wait * received
        here = gained + gamma * future - value[:, t] + gamma * gae_lambda * trace
        here = torch.where(acts & known, here, 0.0)
        advantage[:, t] = here
        counts[:, t] = acts & known

        future = torch.where(acts, value[:, t], wait * future)
        received = torch.where(acts, 0.0, gained)
        trace = torch.where(acts, here, wait * trace)
        known = known | acts
    return advantage, torch.where(counts, advantage + value, 0.0), counts


def normalize_per_agent(advantage: Tensor, counts: Tensor) -> Tensor:
    """Normalise each agent's advantages to mean 0 and deviation 1 over the steps that count.

    Args:
        advantage: [N, T, n_agents, 1].
        counts: bool [N, T, n_agents, 1].

    Returns:
        [N, T, n_agents, 1]; 0 where the step does not count.
    """
    steps = (0, 1)
    count = counts.sum(steps, keepdim=True).clamp_min(1)
    mean = torch.where(counts, advantage, 0.0).sum(steps, keepdim=True) / count
    centred = torch.where(counts, advantage - mean, 0.0)
    deviation = (centred.square().sum(steps, keepdim=True) / count).sqrt()
    return centred / (deviation + 1e-5)


def explained_variance(value: Tensor, target: Tensor, counts: Tensor) -> float:
    """Return 1 - Var(target - value) / Var(target) over the steps that count.

    NaN if the targets are constant.
    """
    value, target = value[counts], target[counts]
    total = target.var(correction=0) if target.numel() else 0.0
    if total == 0:
        return float("nan")
    return float(1 - (target - value).var(correction=0) / total)
