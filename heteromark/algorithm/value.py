"""Value functions that advantages are estimated from: of a team, or of each agent."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from tensordict import NestedKey, TensorDict
from tensordict.nn import TensorDictModuleBase
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
    """A critic, its value normalisation and its entries in a batch.

    Args:
        config: the run, for discounts and sizes.
        learner: the components of the run.
        name: name of the critic: its group, or `TEAM`.

    Attributes:
        network: writes "state_value", in normalised units if there is a `norm`.
        norm: running mean and deviation of the value targets.
        group: the critic's group; None: the team's critic, with entries at the root of a batch.
        memory: hidden state at the end of the last batch, if the critic is recurrent.
    """

    def __init__(self, config: RunConfig, learner: Learner, name: str) -> None:
        self.config = config
        self.learner = learner
        self.network: TensorDictModuleBase = learner.critics[name]
        self.norm = learner.value_norms.get(name)
        self.group = None if config.critic == "team" else name
        self.memory: Tensor | None = None

    def key(self, name: str) -> NestedKey:
        """Return the key of this value's entry `name` in a batch."""
        return name if self.group is None else (self.group, name)

    def column(self, metric: str) -> str:
        """Return the name of a metric's column in metrics.csv."""
        return metric if self.group is None else f"{metric}/{self.group}"

    @abstractmethod
    def advantage_of(self, group: str, batch: TensorDict) -> tuple[Tensor, Tensor]:
        """Return each agent's advantage, and whether the step counts: both [N, T, n, 1]."""

    @abstractmethod
    def _estimate(
        self, batch: TensorDict, value: Tensor, next_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return advantage and target in the units of the reward, and which of them count."""

    @property
    def training_keys(self) -> list[NestedKey]:
        """The keys of the batch that training the critic needs."""
        targets = [self.key("value_target"), self.key("value_before"), self.key("value_counts")]
        return [*self.network.in_keys, *targets]

    @torch.no_grad()
    def estimate(self, batch: TensorDict) -> dict[str, float]:
        """Write advantages and value targets to the batch, and update the value normalisation.

        Writes "advantage" in the units of the reward, "value_target" and "value_before" in the
        units of the network, and "value_counts", which is False for steps that do not count.

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
            # Update once per batch, so that the targets are the same in all epochs.
            if counts.any():
                self.norm.update(target[counts].unsqueeze(-1))
            target = self.norm.normalize(target)
        batch.set(self.key("value_target"), target)
        return {self.column("explained_variance"): explained}

    def _values(self, batch: TensorDict) -> tuple[Tensor, Tensor]:
        """Return the network's values before and after every step of [N, T]."""
        if not is_recurrent(self.network):
            before, after = (self.network(data.copy()) for data in (batch, batch["next"]))
            return before[self.key("state_value")], after[self.key("state_value")]
        hidden, hidden_after = self.key("critic_hidden"), self.key("critic_hidden_after")
        batch.set(hidden, self._initial_memory(batch))
        seen = self.network(batch.copy())
        # Value the observation after an episode's last step with the hidden state of that episode.
        following = batch["next"].copy().set(hidden, seen[hidden_after])
        after = self.network(following.reshape(-1)).reshape(batch.shape)
        batch[hidden][:, 1:] = seen[hidden_after][:, :-1]
        self.memory = seen[hidden_after][:, -1]
        return seen[self.key("state_value")], after[self.key("state_value")]

    def _initial_memory(self, batch: TensorDict) -> Tensor:
        """Allocate the hidden states before every step, and set the first one."""
        weight = next(self.network.parameters())
        states = weight.new_zeros(*self._shape(batch), self.config.policy.gru.memory_size)
        if self.memory is not None:
            states[:, 0] = self.memory
        return states

    @abstractmethod
    def _shape(self, batch: TensorDict) -> torch.Size:
        """Return the shape of the values of a batch [N, T], without their last dimension."""


class TeamValue(ValueFunction):
    """The value of the team's shared return, in every step."""

    def advantage_of(self, group: str, batch: TensorDict) -> tuple[Tensor, Tensor]:
        active = batch[group, "active"].unsqueeze(-1)
        return batch[self.key("advantage")].unsqueeze(-2).expand_as(active), active

    def _estimate(
        self, batch: TensorDict, value: Tensor, next_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        done = batch["next", "done"]
        rewarded = next(iter(self.learner.groups))  # any group: all have the same reward
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
    """The value of each agent's own return, at the steps in which the agent acts."""

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
        """Return the `waiting_discount` for `estimate_agent_advantage`."""
        if self.learner.turn_based:
            return 1.0
        if self.config.environment.reward == "team":
            # An agent that has left still receives the team's reward.
            return self.config.loss.gamma
        return None

    def _shape(self, batch: TensorDict) -> torch.Size:
        return batch[self.group, "active"].shape
