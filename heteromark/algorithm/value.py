"""The values that advantages come from: a team's, or every agent's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from tensordict import NestedKey, TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor
from torchrl.modules.value_norm import ValueNorm

from heteromark.algorithm.advantage import estimate_advantage, explained_variance
from heteromark.config.schema import LossConfig


@dataclass(frozen=True)
class Signals:
    """What values are estimated from; all [N, T, 1] for a team, [N, T, n_agents, 1] for agents.

    Attributes:
        reward: float32.
        done: bool, the trace ends here.
        terminated: bool, and nothing comes after it.
        counted: bool, steps that count in the critic's loss and statistics.
    """

    reward: Tensor
    done: Tensor
    terminated: Tensor
    counted: Tensor


class ValueFunction(ABC):
    """A critic with what belongs to it.

    Args:
        network: writes "state_value", in normalised units if there is a `norm`.
        norm: running mean and deviation of the value targets.
        group: whose rewards it values.
    """

    def __init__(self, network: TensorDictModule, norm: ValueNorm | None, group: str) -> None:
        self.network = network
        self.norm = norm
        self.group = group

    @abstractmethod
    def key(self, name: str) -> NestedKey:
        """Where this value's entry `name` is in a batch."""

    @abstractmethod
    def column(self, metric: str) -> str:
        """What a metric of this value is called in metrics.csv."""

    @abstractmethod
    def signals(self, batch: TensorDict) -> Signals:
        """Rewards and ends as this value sees them."""

    @abstractmethod
    def advantage_of(self, group: str, batch: TensorDict) -> Tensor:
        """The advantage of every agent of a group: [N, T, n_agents, 1]."""

    @property
    def training_keys(self) -> list[NestedKey]:
        """The entries of a batch that the critic is trained on."""
        return [*self.network.in_keys, self.key("value_target"), self.key("value_before")]

    @torch.no_grad()
    def estimate(self, batch: TensorDict, config: LossConfig) -> dict[str, float]:
        """Write "advantage", "value_target" and "value_before", and learn the targets' scale.

        Advantages are in the units of the reward, the other two in those of the network.

        Returns:
            explained_variance of the values before this iteration's update.
        """
        signals = self.signals(batch)
        value, next_value = (
            self.network(data.copy()).get(self.key("state_value"))
            for data in (batch, batch.get("next"))
        )
        batch.set(self.key("value_before"), value)
        if self.norm is not None:
            value, next_value = self.norm.denormalize(value), self.norm.denormalize(next_value)
        advantage, target = estimate_advantage(
            value,
            next_value,
            signals.reward,
            signals.done,
            signals.terminated,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
        )
        batch.set(self.key("advantage"), advantage)
        explained = explained_variance(value, target, signals.counted)
        if self.norm is not None:
            # once for all passes over the batch, so that the targets stand still
            if signals.counted.any():
                self.norm.update(target[signals.counted].unsqueeze(-1))
            target = self.norm.normalize(target)
        batch.set(self.key("value_target"), target)
        return {self.column("explained_variance"): explained}


class TeamValue(ValueFunction):
    """The value of the whole team's shared return; it goes on while anybody is there.

    As all groups receive the same reward, `group` may be any of them.
    """

    def key(self, name: str) -> NestedKey:
        return name

    def column(self, metric: str) -> str:
        return metric

    def advantage_of(self, group: str, batch: TensorDict) -> Tensor:
        n_agents = batch[group, "active"].shape[-1]
        advantage = batch["advantage"].unsqueeze(-2)
        return advantage.expand(*advantage.shape[:-2], n_agents, 1)

    def signals(self, batch: TensorDict) -> Signals:
        done = batch["next", "done"]
        return Signals(
            reward=batch["next", self.group, "reward"][..., 0, :],
            done=done,
            terminated=batch["next", "terminated"],
            counted=torch.ones_like(done),
        )


class OwnValue(ValueFunction):
    """Every agent's value of its own return, which ends when the agent leaves."""

    def key(self, name: str) -> NestedKey:
        return (self.group, name)

    def column(self, metric: str) -> str:
        return f"{metric}/{self.group}"

    def advantage_of(self, group: str, batch: TensorDict) -> Tensor:
        return batch[group, "advantage"]

    def signals(self, batch: TensorDict) -> Signals:
        left = ~batch["next", self.group, "active"].unsqueeze(-1)
        return Signals(
            reward=batch["next", self.group, "reward"],
            done=left | batch["next", "done"].unsqueeze(-2),
            terminated=left,
            counted=batch[self.group, "active"].unsqueeze(-1),
        )

    @property
    def training_keys(self) -> list[NestedKey]:
        return [*super().training_keys, (self.group, "active")]
