"""Statistics of a policy on a batch, without gradients and without inactive agents."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor
from torch.distributions import Distribution

from heteromark.config.models.components import LossConfig
from heteromark.loss.happo import aggregate_log_ratio


@torch.no_grad()
def log_prob(actor: ProbabilisticTensorDictSequential, batch: TensorDict, group: str) -> Tensor:
    """Return the log-probability of a batch's actions under the actor's current weights.

    Returns:
        [N, T, n_agents], or [N, T, n_agents, action_size] if the dimensions of a continuous action
        are kept separate.
    """
    return actor.get_dist(batch.copy()).log_prob(batch[group, "action"])


def log_ratio(after: Tensor, before: Tensor, active: Tensor, action_aggregation: str) -> Tensor:
    """Return the log of the probability ratio of the agents' actions: [N, T, n_agents].

    Args:
        after, before: results of `log_prob`.
        active: bool [N, T, n_agents]; the log-ratio of other agents is 0.
        action_aggregation: see `aggregate_log_ratio`.
    """
    change = after - before
    if change.dim() > active.dim():
        change = aggregate_log_ratio(change, action_aggregation)
    return torch.where(active, change, 0.0)


@torch.no_grad()
def policy_change(
    actor: ProbabilisticTensorDictSequential, batch: TensorDict, group: str, loss: LossConfig
) -> dict[str, float]:
    """Measure how far the actor is from the one that collected the batch, over active agents.

    Writes (group, "log_prob_after"), the `log_prob` of the actor, to the batch.

    Returns:
        entropy: of the actor's distributions, in nats.
        kl_approx: mean of (r - 1) - log r with r = new / old probability. Estimates the
            divergence of old from new; never negative.
        clip_fraction: share of actions with r outside 1 ± clip_epsilon.

    Source: Schulman, Approximating KL Divergence, 2020 (estimator k3).
    """
    active = batch[group, "active"]
    distribution = actor.get_dist(batch.copy())
    after = distribution.log_prob(batch[group, "action"])
    batch.set((group, "log_prob_after"), after)
    change = log_ratio(
        after,
        batch[group, "action_log_prob"],
        active,
        loss.action_aggregation,
    )[active].double()
    ratio = change.exp()
    return {
        "entropy": float(_entropy(distribution, active)[active].mean()),
        "kl_approx": float((ratio - 1 - change).mean()),
        "clip_fraction": float(((ratio - 1).abs() > loss.clip_epsilon).double().mean()),
    }


def _entropy(distribution: Distribution, active: Tensor) -> Tensor:
    """Return the entropy of every agent's distribution, shaped as `active`."""
    try:
        entropy = distribution.entropy()
    except NotImplementedError:
        # Squashed distributions have no closed form; estimate from one sample per step.
        entropy = -distribution.log_prob(distribution.sample())
    return entropy.sum(-1) if entropy.dim() > active.dim() else entropy
