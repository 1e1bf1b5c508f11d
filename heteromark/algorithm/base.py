"""What all algorithms of the PPO family share: advantages, minibatch passes, critics."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from tensordict import NestedKey, TensorDict
from torch import Tensor, nn
from torch.optim import Optimizer
from torchrl.data import ReplayBuffer
from torchrl.modules.value_norm import ValueNorm
from torchrl.objectives import LossModule

from heteromark.algorithm.advantage import normalize_per_agent
from heteromark.algorithm.statistics import policy_change
from heteromark.algorithm.value import OwnValue, TeamValue, ValueFunction
from heteromark.config.schema import RunConfig
from heteromark.environment.groups import Group
from heteromark.modules.loss import Losses
from heteromark.modules.optimizer import learning_rate_at
from heteromark.modules.policy import TEAM, Policies, is_centralised
from heteromark.modules.registry import Registry


class Diverged(Exception):
    """Training produced a quantity that is not finite; `reason` names it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Learner:
    """Everything an algorithm trains and trains with; dicts by group, or by name of the critic."""

    groups: Mapping[str, Group]
    policies: Policies
    losses: Losses
    actor_optimizers: Mapping[str, Optimizer]
    critic_optimizers: Mapping[str, Optimizer]
    actor_buffers: Mapping[str, ReplayBuffer]
    critic_buffers: Mapping[str, ReplayBuffer]
    value_norms: Mapping[str, ValueNorm]


class Algorithm(ABC):
    """Turns one collected batch into updated weights; a subclass says how actors are updated.

    Args:
        config: the run.
        learner: the components of the run.

    Raises:
        ValueError: the algorithm optimises a shared return but agents have their own rewards.
    """

    def __init__(self, config: RunConfig, learner: Learner) -> None:
        self.config = config
        self.learner = learner
        self.iteration = 0
        self._values = self._make_values()

    def _make_values(self) -> dict[str, ValueFunction]:
        """The value functions by the names of their critics."""
        critics, norms = self.learner.policies.critics, self.learner.value_norms
        groups = self.learner.groups
        if not is_centralised(self.config):
            return {group: OwnValue(critics[group], norms.get(group), group) for group in groups}
        if self.config.environment.reward == "individual":
            raise ValueError(
                f"{self.config.agent.algorithm} optimises a return that all agents share, but "
                "environment.reward is individual; use environment.reward=team, or IPPO"
            )
        return {TEAM: TeamValue(critics[TEAM], norms.get(TEAM), next(iter(groups)))}

    @abstractmethod
    def update_actors(self, batch: TensorDict) -> dict[str, float]:
        """Update the actors of all groups on a batch [N, T] with advantages.

        Returns:
            metrics named `quantity/group`.
        """

    def actor_keys(self, group: str) -> list[NestedKey]:
        """The entries of a batch that a group's actor is trained on."""
        names = ["observation", "action", "action_log_prob", "active", "advantage"]
        if self.learner.groups[group].masked:
            names.append("action_mask")
        return [(group, name) for name in names]

    def update(self, batch: TensorDict, iteration: int) -> dict[str, float]:
        """One iteration: advantages, then actors, then critics.

        Args:
            batch: [N, T], as collected; receives further keys.
            iteration: counted from 0; sets the learning rate.

        Returns:
            metrics by column name; NaN where there was nothing to measure.

        Raises:
            Diverged: a reward, loss, gradient, factor or weight is not finite.
        """
        self.iteration = iteration
        learning_rate = self._set_learning_rate()
        for group in self.learner.groups:
            self.require_finite(batch["next", group, "reward"], "reward", group)
        explained = self._estimate_advantages(batch)
        metrics = self.update_actors(batch)
        metrics |= self._update_critics(batch)
        self._require_finite_weights()
        return metrics | explained | {"learning_rate": learning_rate}

    def train_actor(self, batch: TensorDict, group: str) -> dict[str, float]:
        """All epochs of one group's actor.

        Returns:
            loss_objective and grad_norm (before clipping), means over the minibatches, and the
            policy's change over the whole batch (see `policy_change`), named `quantity/group`.
            All are NaN, and nothing is trained, if none of the group's agents was active.
        """
        data = batch.select(*self.actor_keys(group)).reshape(-1)
        if data[group, "active"].any():
            actor = self.learner.policies.actors[group]
            metrics = self._fit(
                group,
                actor,
                self.learner.losses.actors[group],
                self.learner.actor_optimizers[group],
                self.learner.actor_buffers[group],
                data,
            )
            metrics |= policy_change(actor, data, group, self.config.loss.clip_epsilon)
        else:
            names = ("loss_objective", "grad_norm", "entropy", "kl_approx", "clip_fraction")
            metrics = dict.fromkeys(names, math.nan)
        return {f"{name}/{group}": value for name, value in metrics.items()}

    def require_finite(self, values: Tensor, quantity: str, owner: str) -> None:
        """Raise Diverged unless all values are finite."""
        if not values.isfinite().all():
            raise Diverged(f"{quantity} of {owner} is not finite in iteration {self.iteration + 1}")

    def _set_learning_rate(self) -> float:
        learning_rate = learning_rate_at(
            self.config.optimizer, self.iteration, self.config.num_iterations
        )
        for optimizers in (self.learner.actor_optimizers, self.learner.critic_optimizers):
            for optimizer in optimizers.values():
                for parameters in optimizer.param_groups:
                    parameters["lr"] = learning_rate
        return learning_rate

    def _estimate_advantages(self, batch: TensorDict) -> dict[str, float]:
        metrics = {}
        for name, value in self._values.items():
            metrics |= value.estimate(batch, self.config.loss)
            self.require_finite(batch[value.key("value_target")], "value target", name)
        for group in self.learner.groups:
            value = self._values[TEAM if is_centralised(self.config) else group]
            advantage = value.advantage_of(group, batch)
            if self.config.loss.normalize_advantage:
                advantage = normalize_per_agent(advantage, batch[group, "active"].unsqueeze(-1))
            batch.set((group, "advantage"), advantage)
        return metrics

    def _update_critics(self, batch: TensorDict) -> dict[str, float]:
        metrics = {}
        for name, value in self._values.items():
            fitted = self._fit(
                f"critic {name}",
                value.network,
                self.learner.losses.critics[name],
                self.learner.critic_optimizers[name],
                self.learner.critic_buffers[name],
                batch.select(*value.training_keys).reshape(-1),
            )
            metrics[value.column("loss_critic")] = fitted["loss_critic"]
        return metrics

    def _fit(
        self,
        name: str,
        network: nn.Module,
        loss_module: LossModule,
        optimizer: Optimizer,
        buffer: ReplayBuffer,
        data: TensorDict,
    ) -> dict[str, float]:
        """All epochs over `data` [frames]; returns means of losses and gradient norms."""
        parameters = list(network.parameters())
        buffer.empty()
        buffer.extend(data)
        sums: dict[str, float] = {}
        count = 0
        for _ in range(self.config.training.num_epochs):
            for minibatch in buffer:
                losses = {k: v for k, v in loss_module(minibatch).items() if k.startswith("loss_")}
                optimizer.zero_grad()
                sum(losses.values()).backward()
                norm = nn.utils.clip_grad_norm_(parameters, self.config.training.max_grad_norm)
                measured = {**losses, "grad_norm": norm}
                # one transfer from the device, before the step that bad gradients would spoil
                numbers = torch.stack([m.detach() for m in measured.values()]).tolist()
                for quantity, number in zip(measured, numbers, strict=True):
                    if not math.isfinite(number):
                        raise Diverged(
                            f"{quantity} of {name} is {number} in iteration {self.iteration + 1}"
                        )
                    sums[quantity] = sums.get(quantity, 0.0) + number
                optimizer.step()
                count += 1
        kept = ("loss_objective", "loss_critic", "grad_norm")
        return {quantity: total / count for quantity, total in sums.items() if quantity in kept}

    def _require_finite_weights(self) -> None:
        policies = self.learner.policies
        for kind, networks in (("actor", policies.actors), ("critic", policies.critics)):
            for name, network in networks.items():
                for parameter in network.parameters():
                    self.require_finite(parameter, f"a weight of the {kind}", name)


ALGORITHMS: Registry[type[Algorithm]] = Registry("agent.algorithm")
