"""The loss of a critic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor
from torch.nn import functional
from torchrl.objectives import LossModule


class ValueLoss(LossModule):
    """Distance between a critic's values and their targets, averaged over the mask.

    TorchRL's PPO losses train actor and critic together. HAPPO trains one critic after all actors,
    so it needs a separate loss. All quantities are in the units of the network's output, which are
    normalised if the run normalises values.

    Args:
        critic_network: writes the value.
        coefficient: multiplies the loss.
        loss_critic_type: "huber" (quadratic up to `huber_delta`, linear beyond) or "l2" (the
            square, without the factor 1/2).
        huber_delta: in units of the value.
        clip_epsilon: clip the value to within `clip_epsilon` of its value before the update, and
            take the larger of the losses with and without clipping. None: no clipping.

    Keys (`set_keys`): value, value_target and, with clipping, value_before; all [..., 1].
    `loss_mask_key`: see LossModule.

    Source: Yu et al., The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games,
    NeurIPS 2022 (Huber loss, value normalisation); Schulman et al., baselines' PPO2 (clipping).
    """

    @dataclass
    class _AcceptedKeys:
        value: NestedKey = "state_value"
        value_target: NestedKey = "value_target"
        value_before: NestedKey = "value_before"

    default_keys = _AcceptedKeys

    def __init__(
        self,
        critic_network: TensorDictModule,
        *,
        coefficient: float = 1.0,
        loss_critic_type: str = "huber",
        huber_delta: float = 10.0,
        clip_epsilon: float | None = None,
    ) -> None:
        super().__init__()
        self.critic_network = critic_network
        self.coefficient = coefficient
        self.loss_critic_type = loss_critic_type
        self.huber_delta = huber_delta
        self.clip_epsilon = clip_epsilon
        self.reduction = "mean"
        self.out_keys = ["loss_critic"]
        self._forward_value_estimator_keys()

    def _forward_value_estimator_keys(self, **_: NestedKey) -> None:
        self.in_keys = [*self.critic_network.in_keys, self.tensor_keys.value_target]
        if self.clip_epsilon is not None:
            self.in_keys.append(self.tensor_keys.value_before)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        value = self.critic_network(tensordict.copy()).get(self.tensor_keys.value)
        keys, before = self.tensor_keys, None
        if self.clip_epsilon is not None:
            before = tensordict.get(keys.value_before)
        distance = self.distance(value, tensordict.get(keys.value_target), before)
        loss = self.coefficient * self._reduce_loss(distance, tensordict)
        return TensorDict({"loss_critic": loss})

    def distance(self, value: Tensor, target: Tensor, before: Tensor | None) -> Tensor:
        """Return the loss of each value, [..., 1]; `before` is read with clipping only."""
        distance = self._distance(value, target)
        if self.clip_epsilon is None or before is None:
            return distance
        kept = before + (value - before).clamp(-self.clip_epsilon, self.clip_epsilon)
        return torch.max(distance, self._distance(kept, target))

    def _distance(self, value: Tensor, target: Tensor) -> Tensor:
        if self.loss_critic_type == "l2":
            return (value - target).square()
        return functional.huber_loss(value, target, reduction="none", delta=self.huber_delta)
