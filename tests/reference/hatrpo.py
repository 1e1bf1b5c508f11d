"""HATRPO: HAPPO's loop with one step per group, from the whole Fisher matrix.

The engine never builds that matrix: it solves by conjugate gradients. Here it is built by second
derivatives, and solved directly.

Source: Kuba et al., Trust Region Policy Optimisation in Multi-Agent RL, ICLR 2022.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import ClassVar

import torch
from reference.formulas import (
    Agents,
    Policy,
    actor_losses,
    categorical_log_probs,
    legal_actions,
    mean_and_deviation,
)
from reference.happo import HAPPO, Report, standard_normal
from torch import Tensor


def divergence(old: Policy, new: Policy, agents: Agents) -> Tensor:
    """Return the mean divergence of the new policy from the old one over active agents."""
    total, count = 0.0, 0
    copies, steps, n = agents.active.shape
    for i in range(copies):
        for t in range(steps):
            for k in range(n):
                if not agents.active[i, t, k]:
                    continue
                count += 1
                seen = agents.observation[i, t, k]
                before, after = old.network(seen).detach(), new.network(seen)
                if old.is_continuous:
                    mean, std = (x.detach() for x in mean_and_deviation(old, before))
                    other, wide = mean_and_deviation(new, after)
                    total = total + torch.sum(
                        torch.log(wide / std) + (std**2 + (mean - other) ** 2) / (2 * wide**2) - 0.5
                    )
                else:
                    legal = legal_actions(agents, i, t, k)
                    p, q = categorical_log_probs(before, legal), categorical_log_probs(after, legal)
                    total = total + sum(torch.exp(p[a]) * (p[a] - q[a]) for a in p)
    return total / count


class HATRPO(HAPPO):
    """The reference of HATRPO; `trust` holds its settings."""

    trust: ClassVar[dict[str, float]] = {}

    def _train_actor(self, group: str, agents: Agents, factor: Tensor, report: Report) -> None:
        policy, trust = self.policies[group], self.trust
        frames = [(i, t) for i in range(factor.shape[0]) for t in range(factor.shape[1])]
        settings = replace(self.settings, clip_actor=False, entropy_coef=0.0)
        noise = torch.zeros(len(frames), *agents.action.shape[2:], dtype=torch.float64)
        advantage = report.advantage[group]

        def objective() -> Tensor:
            return -actor_losses(policy, agents, frames, advantage, factor, noise, settings)[0]

        old, weights = copy.deepcopy(policy), policy.parameters
        start = objective()
        gradient = flat(torch.autograd.grad(start, weights))
        report.actor_loss[group] = -float(start)
        report.grad_norm[group] = float(gradient.norm())
        slope = flat(
            torch.autograd.grad(divergence(old, policy, agents), weights, create_graph=True)
        )
        rows = [flat(torch.autograd.grad(s, weights, retain_graph=True)) for s in slope]
        fisher = torch.stack(rows) + trust["cg_damping"] * torch.eye(len(rows)).double()
        direction = torch.linalg.solve(fisher, gradient)
        if not gradient.any():
            return
        full = direction * math.sqrt(2 * trust["kl_threshold"] / (direction @ fisher @ direction))
        here = [weight.detach().clone() for weight in weights]
        share, accepted = 1.0, False
        for _ in range(int(trust["line_search_steps"])):
            move(weights, here, share * full)
            with torch.no_grad():
                gain = float(objective() - start)
                expected = share * float(gradient @ full)
                close = float(divergence(old, policy, agents)) < trust["kl_threshold"]
            accepted = close and gain > 0 and gain / expected > trust["accept_ratio"]
            if accepted:
                break
            share *= trust["backtrack_coeff"]
        if not accepted:
            move(weights, here, 0 * full)
        if policy.is_continuous and policy.squashes:
            standard_normal(*agents.action.shape)  # the engine draws these for its entropy metric


def flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


@torch.no_grad()
def move(weights: list[Tensor], here: list[Tensor], step: Tensor) -> None:
    sizes = [weight.numel() for weight in weights]
    for weight, before, part in zip(weights, here, step.split(sizes), strict=True):
        weight.copy_(before + part.view_as(before))
