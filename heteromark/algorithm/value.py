"""The values that advantages come from: a team's, or every agent's own."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from tensordict import NestedKey, TensorDict
from torch import Tensor

from heteromark.algorithm.advantage import (
    AgentSignals,
    estimate_advantage,
    estimate_agent_advantage,
    explained_variance,
)
from heteromark.algorithm.learner import Learner
from heteromark.config.models.run import RunConfig
from heteromark.modules.policy import is_recurrent


class ValueFunction(ABC):
    """A critic with what belongs to it.

    Args:
        config: the run, for discounts and sizes.
        learner: the components of the run.
        name: of the critic, which is that of its group, or of the team.

    Attributes:
        network: writes "state_value", in normalised units if there is a `norm`.
        norm: running mean and deviation of the value targets.
        group: whose critic it is; None: the team's, whose entries are at the root of a batch.
    """

    def __init__(self, config: RunConfig, learner: Learner, name: str) -> None:
        self.config = config
        self.learner = learner
        self.network = learner.critics[name]
        self.norm = learner.value_norms.get(name)
        self.group = None if config.critic == "team" else name
        self._memory: Tensor | None = None  # of a recurrent critic, where the last batch ended

    def key(self, name: str) -> NestedKey:
        """Where this value's entry `name` is in a batch."""
        return name if self.group is None else (self.group, name)

    def column(self, metric: str) -> str:
        """What a metric of this value is called in metrics.csv."""
        return metric if self.group is None else f"{metric}/{self.group}"

    @abstractmethod
    def advantage_of(self, group: str, batch: TensorDict) -> tuple[Tensor, Tensor]:
        """The advantage of every agent of a group, and whether the step counts: [N, T, n, 1]."""

    @abstractmethod
    def _estimate(
        self, batch: TensorDict, value: Tensor, next_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Advantage, target and which of them count, all in the units of the reward."""

    @property
    def training_keys(self) -> list[NestedKey]:
        """The entries of a batch that the critic is trained on."""
        targets = [self.key("value_target"), self.key("value_before"), self.key("value_counts")]
        return [*self.network.in_keys, *targets]

    @torch.no_grad()
    def estimate(self, batch: TensorDict) -> dict[str, float]:
        """Write what actors and critic are trained on, and learn the targets' scale.

        Writes "advantage" in the units of the reward, "value_target" and "value_before" in those of
        the network, and "value_counts", which is False where there is nothing to learn.

        Returns:
            explained_variance of the values before this iteration's update.
        """
        value, next_value = self._values(batch)
        batch.set(self.key("value_before"), value)
        if self.norm is not None:
            value, next_value = self.norm.denormalize(value), self.norm.denormalize(next_value)
        advantage, target, counts = self._estimate(batch, value, next_value)
        batch.set(self.key("advantage"), advantage)
        batch.set(self.key("value_counts"), counts.squeeze(-1))
        explained = explained_variance(value, target, counts)
        if self.norm is not None:
            # once for all passes over the batch, so that the targets stand still
            if counts.any():
                self.norm.update(target[counts].unsqueeze(-1))
            target = self.norm.normalize(target)
        batch.set(self.key("value_target"), target)
        return {self.column("explained_variance"): explained}

    def _values(self, batch: TensorDict) -> tuple[Tensor, Tensor]:
        """The network's values of what was seen before and after every step of [N, T]."""
        if not is_recurrent(self.network):
            before, after = (self.network(data.copy()) for data in (batch, batch["next"]))
            return before[self.key("state_value")], after[self.key("state_value")]
        hidden, hidden_after = self.key("critic_hidden"), self.key("critic_hidden_after")
        batch.set(hidden, self._remembered(batch))
        seen = self.network(batch.copy())
        # What follows the last step of an episode is valued with the memory of that episode.
        following = batch["next"].copy().set(hidden, seen[hidden_after])
        after = self.network(following.reshape(-1)).reshape(batch.shape)
        batch[hidden][:, 1:] = seen[hidden_after][:, :-1]
        self._memory = seen[hidden_after][:, -1]
        return seen[self.key("state_value")], after[self.key("state_value")]

    def _remembered(self, batch: TensorDict) -> Tensor:
        """Room for the states before every step, of which the first is known."""
        weight = next(self.network.parameters())
        states = weight.new_zeros(*self._shape(batch), self.config.policy.gru.hidden_size)
        if self._memory is not None:
            states[:, 0] = self._memory
        return states

    @abstractmethod
    def _shape(self, batch: TensorDict) -> torch.Size:
        """Shape of the values of a batch [N, T], without their last dimension."""


class TeamValue(ValueFunction):
    """The value of the whole team's shared return; it goes on while anybody is there."""

    def advantage_of(self, group: str, batch: TensorDict) -> tuple[Tensor, Tensor]:
        active = batch[group, "active"].unsqueeze(-1)
        return batch[self.key("advantage")].unsqueeze(-2).expand_as(active), active

    def _estimate(
        self, batch: TensorDict, value: Tensor, next_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        done = batch["next", "done"]
        rewarded = next(iter(self.learner.groups))  # any group: all receive the same reward
        advantage, target = estimate_advantage(
            value,
            next_value,
            batch["next", rewarded, "reward"][..., 0, :],
            done,
            batch["next", "terminated"],
            gamma=self.config.loss.gamma,
            gae_lambda=self.config.loss.gae_lambda,
        )
        return advantage, target, torch.ones_like(done)

    def _shape(self, batch: TensorDict) -> torch.Size:
        return batch.shape


class OwnValue(ValueFunction):
    """Every agent's value of its own return, along the steps in which it acts."""

    def advantage_of(self, group: str, batch: TensorDict) -> tuple[Tensor, Tensor]:
        return batch[group, "advantage"], batch[group, "value_counts"].unsqueeze(-1)

    def _estimate(
        self, batch: TensorDict, value: Tensor, next_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        active = batch[self.group, "active"].unsqueeze(-1)
        signals = AgentSignals(
            reward=batch["next", self.group, "reward"],
            active=active,
            still_there=batch["next", self.group, "active"].unsqueeze(-1),
            done=batch["next", "done"].unsqueeze(-2).expand_as(active),
        )
        return estimate_agent_advantage(
            value,
            next_value,
            signals,
            gamma=self.config.loss.gamma,
            gae_lambda=self.config.loss.gae_lambda,
            waiting_discount=self._waiting_discount(),
        )

    def _waiting_discount(self) -> float | None:
        """See `estimate_agent_advantage`."""
        if self.learner.turn_based:
            return 1.0
        if self.config.environment.reward == "team":
            # an agent that has left still has its share in what the others achieve
            return self.config.loss.gamma
        return None

    def _shape(self, batch: TensorDict) -> torch.Size:
        return batch[self.group, "active"].shape
