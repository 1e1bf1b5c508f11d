"""The HAPPO loss: PPO's clipped objective, weighted by the ratios of the groups updated before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor
from torch.distributions import Distribution
from torchrl.objectives import ClipPPOLoss


def aggregate_log_ratio(log_ratio: Tensor, action_aggregation: str) -> Tensor:
    """Combine the log-ratios of an action's dimensions into one: [..., action_size] → [...].

    Args:
        action_aggregation: "prod", the ratio of the joint probability; or "mean", the mean of the
            ratios, which does not grow with the number of dimensions.
    """
    if action_aggregation == "mean":
        return log_ratio.logsumexp(-1) - math.log(log_ratio.shape[-1])
    return log_ratio.sum(-1)


class HAPPOLoss(ClipPPOLoss):
    """`ClipPPOLoss` whose objective is multiplied, outside the min, by a positive factor.

    The factor is the product of the probability ratios of all groups updated before in this
    iteration, without gradient. Because it is positive, it commutes with the min:
    min(r·f·A, clip(r)·f·A) = f·min(r·A, clip(r)·A). So it is enough to scale the advantage.

    If the actor keeps the log-probabilities of an action's dimensions separate
    ([..., n_agents, action_size]), `aggregate_log_ratio` combines them.

    Args:
        action_aggregation: "prod" or "mean", for such actors.

    Input, besides that of ClipPPOLoss:
        factor: [..., n_agents, 1], broadcastable to the advantage. `set_keys(factor=...)` sets its
            key; default: "factor".

    Raises:
        KeyError: when called, if the input has no factor.

    Source: Kuba et al., Trust Region Policy Optimisation in Multi-Agent RL, ICLR 2022 (HAPPO).
    """

    @dataclass
    class _AcceptedKeys(ClipPPOLoss._AcceptedKeys):
        factor: NestedKey = "factor"

    default_keys = _AcceptedKeys

    def __init__(self, *args: Any, action_aggregation: str = "prod", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.action_aggregation = action_aggregation

    def _maybe_normalize_advantage(
        self, advantage: Tensor, tensordict: TensorDictBase, *, update_norm: bool
    ) -> Tensor:
        advantage = super()._maybe_normalize_advantage(
            advantage, tensordict, update_norm=update_norm
        )
        key = self.tensor_keys.factor
        factor = tensordict.get(key, None)
        if factor is None:
            raise KeyError(
                f"HAPPOLoss needs the factor {key!r}, which is missing from the batch. "
                "HAPPO.update_actors writes it for each group (see get_factor_for_agent). Set a "
                "different key with set_keys(factor=...); before the first update, use ones with "
                "the shape of the advantage"
            )
        return advantage * factor

    def _log_weight(
        self, tensordict: TensorDictBase, adv_shape: torch.Size
    ) -> tuple[Tensor, Distribution, Tensor, Tensor | None]:
        log_weight, distribution, kl_approx, importance = super()._log_weight(tensordict, adv_shape)
        if log_weight.dim() > len(adv_shape) + 1:
            by_dimension = log_weight.squeeze(-1)
            log_weight = aggregate_log_ratio(by_dimension, self.action_aggregation).unsqueeze(-1)
            kl_approx = kl_approx.sum(-2)
        return log_weight, distribution, kl_approx, importance

    def _get_entropy(self, dist: Distribution, adv_shape: torch.Size) -> Tensor:
        entropy = super()._get_entropy(dist, adv_shape)
        return entropy.sum(-2) if entropy.dim() > len(adv_shape) + 1 else entropy


class UnclippedLoss(HAPPOLoss):
    """`HAPPOLoss` without clipping: the mean of ratio · factor · advantage."""

    @property
    def _clip_bounds(self) -> tuple[Tensor, Tensor]:
        unbounded = torch.full((), math.inf, device=self.clip_epsilon.device)
        return -unbounded, unbounded
