"""Regression of a critic on its value targets."""

from __future__ import annotations

from dataclasses import dataclass

from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torchrl.objectives import LossModule, distance_loss


class ValueLoss(LossModule):
    """Distance between a critic's values and their targets, averaged where the mask allows.

    TorchRL's PPO losses train actor and critic together; HAPPO trains the one critic after all
    actors, so here it is a loss of its own. Targets are in the units of the network's output:
    normalised, where values are normalised.

    Args:
        critic_network: writes the value.
        coefficient: multiplies the loss.
        loss_critic_type: "smooth_l1" or "l2".

    Keys (`set_keys`): value, value_target; both [..., 1]. `loss_mask_key`: see LossModule.
    """

    @dataclass
    class _AcceptedKeys:
        value: NestedKey = "state_value"
        value_target: NestedKey = "value_target"

    default_keys = _AcceptedKeys

    def __init__(
        self,
        critic_network: TensorDictModule,
        *,
        coefficient: float = 1.0,
        loss_critic_type: str = "smooth_l1",
    ) -> None:
        super().__init__()
        self.critic_network = critic_network
        self.coefficient = coefficient
        self.loss_critic_type = loss_critic_type
        self.reduction = "mean"
        self.in_keys = [*critic_network.in_keys, self.tensor_keys.value_target]
        self.out_keys = ["loss_critic"]

    def _forward_value_estimator_keys(self, **_: NestedKey) -> None:
        self.in_keys = [*self.critic_network.in_keys, self.tensor_keys.value_target]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        value = self.critic_network(tensordict.copy()).get(self.tensor_keys.value)
        target = tensordict.get(self.tensor_keys.value_target)
        distance = distance_loss(value, target, loss_function=self.loss_critic_type)
        loss = self.coefficient * self._reduce_loss(distance, tensordict)
        return TensorDict({"loss_critic": loss})
