"""HATRPO: each group takes the largest step within a trust region, one group after another."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal, TransformedDistribution
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from heteromark.algorithm.base import ALGORITHMS
from heteromark.algorithm.happo import HAPPO
from heteromark.algorithm.learner import Diverged
from heteromark.algorithm.statistics import policy_change
from heteromark.loss.happo import UnclippedLoss
from heteromark.modules.loss import ACTOR_LOSSES, loss_of_group, sequential_loss

ACTOR_LOSSES.register("hatrpo")(
    functools.partial(sequential_loss, UnclippedLoss, entropy_bonus=False)
)
_SMALLEST_RESIDUAL = 1e-20  # squared, relative to the target; then the solution is exact
_LOWEST_LOGIT = -1e30  # stands for minus infinity, which has no gradient


@ALGORITHMS.register("HATRPO")
class HATRPO(HAPPO):
    """Trust-region updates of the groups one after another, with the factors of HAPPO.

    A group's step is the natural gradient of ratio · factor · advantage: the conjugate gradient
    method solves for it, and its length brings the KL divergence to `kl_threshold` in second order.
    The step is then shortened until the measured divergence, averaged over active agents, is below
    the threshold and the objective improves enough. If no tried step does, the policy stays.

    A batch is used as a whole. Actors have no optimizer, learning rate, epochs or entropy bonus;
    these settings apply to critics.

    Source: Kuba et al., Trust Region Policy Optimisation in Multi-Agent RL, ICLR 2022.
    """

    def train_actor(self, batch: TensorDict, group: str) -> dict[str, float]:
        """Take one step; see `Algorithm.train_actor`.

        Returns:
            Besides the metrics of the base class, `kl/group`: the divergence of the new policy, and
            `step/group`: the step's share of its full length, 0 if the policy stays.
        """
        data = batch.select(*self.actor_keys(group))
        if not data[group, "counts"].any():
            return self.untrained(group) | {f"kl/{group}": math.nan, f"step/{group}": math.nan}
        settings, actor = self.config.agent.hatrpo, self.learner.actors[group]
        weights = [weight for weight in actor.parameters() if weight.requires_grad]
        active = data[group, "active"]
        before = detached(distribution_of(actor, data))

        def objective() -> Tensor:
            return -self._losses.actors[group](data)["loss_objective"]

        def divergence() -> Tensor:
            return kl_divergence(before, distribution_of(actor, data))[active].mean()

        start = objective()
        gradient = _flat(torch.autograd.grad(start, weights))
        start = start.detach()
        if not gradient.isfinite().all():
            raise Diverged(f"{group}: the gradient is not finite in iteration {self.iteration + 1}")
        slope = _flat(torch.autograd.grad(divergence(), weights, create_graph=True))

        def curvature(vector: Tensor) -> Tensor:
            product = torch.autograd.grad(slope @ vector, weights, retain_graph=True)
            return _flat(product) + settings.cg_damping * vector

        direction = conjugate_gradient(curvature, gradient, settings.cg_steps)
        length = 0.5 * direction @ curvature(direction)
        metrics = {"loss_objective": -float(start), "grad_norm": float(gradient.norm())}
        metrics |= {"kl": 0.0, "step": 0.0}
        if length > 0:
            full = direction * (settings.kl_threshold / length).sqrt()
            metrics |= self._search(objective, divergence, weights, full, float(gradient @ full))
        change = policy_change(
            actor, data, group, loss_of_group(self.config.loss, self.learner.groups[group])
        )
        batch.set((group, "log_prob_after"), data[group, "log_prob_after"])
        return {f"{name}/{group}": value for name, value in (metrics | change).items()}

    @torch.no_grad()
    def _search(
        self,
        objective: Callable[[], Tensor],
        divergence: Callable[[], Tensor],
        weights: list[nn.Parameter],
        full: Tensor,
        expected: float,
    ) -> dict[str, float]:
        """Set the weights to the longest acceptable step along `full`; return kl and step."""
        settings = self.config.agent.hatrpo
        start, origin, share = objective(), parameters_to_vector(weights), 1.0
        for _ in range(settings.line_search_steps):
            vector_to_parameters(origin + share * full, weights)
            gain, kl = float(objective() - start), float(divergence())
            enough = gain > 0 and gain > settings.accept_ratio * share * expected
            if enough and kl < settings.kl_threshold:
                return {"kl": kl, "step": share}
            share *= settings.backtrack_coeff
        vector_to_parameters(origin, weights)
        return {}


def conjugate_gradient(product: Callable[[Tensor], Tensor], target: Tensor, steps: int) -> Tensor:
    """Solve A x = target for x, given the product of the positive definite A with a vector.

    Source: Hestenes and Stiefel, Methods of Conjugate Gradients for Solving Linear Systems, 1952.
    """
    solution, residual, direction = torch.zeros_like(target), target.clone(), target.clone()
    squared = residual @ residual
    enough = _SMALLEST_RESIDUAL * squared
    for _ in range(steps):
        if squared <= enough:
            break
        image = product(direction)
        share = squared / (direction @ image)
        solution += share * direction
        residual -= share * image
        squared, before = residual @ residual, squared
        direction = residual + squared / before * direction
    return solution


def distribution_of(actor: Any, data: TensorDict) -> Categorical | Normal:
    """Return the distribution of a batch's actions, unsquashed: that changes no divergence."""
    distribution = actor.get_dist(data.copy())
    while isinstance(distribution, TransformedDistribution | Independent):
        distribution = distribution.base_dist
    return distribution


def detached(distribution: Categorical | Normal) -> Categorical | Normal:
    """Return the distribution without gradients."""
    if isinstance(distribution, Categorical):
        return Categorical(logits=distribution.logits.detach(), validate_args=False)
    return Normal(distribution.loc.detach(), distribution.scale.detach())


def kl_divergence(before: Categorical | Normal, after: Categorical | Normal) -> Tensor:
    """Return the divergence of `after` from `before` for each agent: [N, T, n].

    Distributions are [N, T, n] or [N, T, n, action_size]; dimensions of an action are summed.
    """
    if isinstance(before, Categorical) and isinstance(after, Categorical):
        logits, others = (each.logits.clamp(min=_LOWEST_LOGIT) for each in (before, after))
        divergence = (before.probs * (logits - others)).sum(-1)
    else:
        divergence = torch.distributions.kl_divergence(before, after)
    return divergence.sum(-1) if divergence.dim() > 3 else divergence


def _flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])
