"""Generalised advantage estimation over a batch, and statistics of it."""

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
    """Advantages and value targets of something that goes on in every step, such as a team.

    A terminated step is worth its reward alone; any other last step, truncated or the last of the
    batch, is bootstrapped from `next_value`, the value of the true next observation. Both cut the
    trace.

    Args:
        value, next_value, reward, done, terminated: all [N, T, 1].

    Returns:
        advantage and value target, of that shape and in the units of the reward.

    Source: Schulman et al., High-Dimensional Continuous Control Using GAE, ICLR 2016; Pardo et
    al., Time Limits in Reinforcement Learning, ICML 2018.
    """
    return vec_generalized_advantage_estimate(
        gamma, gae_lambda, value, next_value, reward, done, terminated
    )


@dataclass(frozen=True)
class AgentSignals:
    """What happened to the agents of a group, step by step; all [N, T, n_agents, 1]."""

    reward: Tensor  # what each received, present or not
    active: Tensor  # bool, it acted in this step
    still_there: Tensor  # bool, after the step it has an observation that can be valued
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
    """Advantages and value targets of agents that act in some steps and not in others.

    An agent's transition runs from a step in which it acts to the next one, or to the end of the
    episode. What it receives meanwhile belongs to the transition. Where the batch ends before the
    transition does, nothing is known of its value, and it does not count.

    Args:
        value, next_value: [N, T, n_agents, 1], in the units of the reward; read only where the
            agent is active, or still there.
        signals: of the same shape.
        gamma: discount from one of the agent's own steps to its next.
        waiting_discount: what a step without the agent discounts: 1 in a game by turns, gamma
            where time passes for all. None: an agent that does not act has left and receives
            nothing more, so its return ends there.

    Returns:
        advantage, value target, and whether the transition counts; 0 and False where not active.

    Source: Schulman et al., High-Dimensional Continuous Control Using GAE, ICLR 2016, along each
    agent's own steps.
    """
    advantage = torch.zeros_like(value)
    counts = torch.zeros_like(signals.active)
    leaves = waiting_discount is None
    wait = 1.0 if leaves else waiting_discount
    # Of what follows a step: the value of the agent's next own step, what it receives until then,
    # the advantage there, and whether all that is in the batch.
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
    """Shift and scale each agent's advantages to mean 0 and deviation 1 over steps that count.

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
    """1 - Var(target - value) / Var(target) over steps that count; NaN if targets are constant."""
    value, target = value[counts], target[counts]
    total = target.var(correction=0) if target.numel() else 0.0
    if total == 0:
        return float("nan")
    return float(1 - (target - value).var(correction=0) / total)
