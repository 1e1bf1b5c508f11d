"""The HAPPO surrogate: PPO's clipped objective, weighted by what earlier groups changed."""

from __future__ import annotations

from dataclasses import dataclass

from tensordict import NestedKey, TensorDictBase
from torch import Tensor
from torchrl.objectives import ClipPPOLoss


class HAPPOLoss(ClipPPOLoss):
    """`ClipPPOLoss` whose objective is multiplied, outside the min, by a positive factor.

    The factor is the product of the probability ratios of all groups that this iteration has
    already updated; without gradient. As it is positive it commutes with the min:
    min(r·f·A, clip(r)·f·A) = f·min(r·A, clip(r)·A). So it is enough to scale the advantage.

    Input, besides that of ClipPPOLoss:
        factor: [..., n_agents, 1], broadcastable to the advantage; key set by
            `set_keys(factor=...)`, "factor" by default.

    Source: Kuba et al., Trust Region Policy Optimisation in Multi-Agent RL, ICLR 2022 (HAPPO).
    """

    @dataclass
    class _AcceptedKeys(ClipPPOLoss._AcceptedKeys):
        factor: NestedKey = "factor"

    default_keys = _AcceptedKeys

    def _maybe_normalize_advantage(
        self, advantage: Tensor, tensordict: TensorDictBase, *, update_norm: bool
    ) -> Tensor:
        advantage = super()._maybe_normalize_advantage(
            advantage, tensordict, update_norm=update_norm
        )
        return advantage * tensordict.get(self.tensor_keys.factor)
