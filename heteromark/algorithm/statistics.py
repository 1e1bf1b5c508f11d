"""What a policy does on a batch, without gradient; inactive agents count nowhere."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor
from torch.distributions import Distribution


@torch.no_grad()
def log_prob(actor: ProbabilisticTensorDictSequential, batch: TensorDict, group: str) -> Tensor:
    """Log-probability of the batch's actions under the actor's weights now: [..., n_agents]."""
    return actor.get_dist(batch).log_prob(batch[group, "action"])


@torch.no_grad()
def policy_change(
    actor: ProbabilisticTensorDictSequential, batch: TensorDict, group: str, clip_epsilon: float
) -> dict[str, float]:
    """How far the actor is from the one that collected the batch, over active agents.

    Returns:
        entropy: of the actor's distributions, in nats.
        kl_approx: mean of (r - 1) - log r with r = new / old probability; estimates the
            divergence of old from new, and is never negative.
        clip_fraction: share of actions with r outside 1 ± clip_epsilon.

    Source: Schulman, Approximating KL Divergence, 2020 (estimator k3).
    """
    active = batch[group, "active"]
    distribution = actor.get_dist(batch)
    log_ratio = distribution.log_prob(batch[group, "action"]) - batch[group, "action_log_prob"]
    log_ratio = log_ratio[active].double()
    ratio = log_ratio.exp()
    return {
        "entropy": float(_entropy(distribution)[active].mean()),
        "kl_approx": float((ratio - 1 - log_ratio).mean()),
        "clip_fraction": float(((ratio - 1).abs() > clip_epsilon).double().mean()),
    }


def _entropy(distribution: Distribution) -> Tensor:
    try:
        return distribution.entropy()
    except NotImplementedError:
        # squashed distributions have no closed form: one sample for each step
        return -distribution.log_prob(distribution.sample())
