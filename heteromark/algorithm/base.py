"""Base class of the PPO-family algorithms: advantages, minibatch passes, critics."""

from __future__ import annotations

import functools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from tensordict import NestedKey, TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torch.optim import Optimizer
from torchrl.data import ReplayBuffer
from torchrl.objectives import LossModule

from heteromark.algorithm.absence import blank_absent
from heteromark.algorithm.advantage import normalize_per_agent
from heteromark.algorithm.learner import Diverged, Learner, take_step
from heteromark.algorithm.statistics import policy_change
from heteromark.algorithm.value import OwnValue, TeamValue, ValueFunction
from heteromark.config.models.algorithms import NETWORKS, ROWS
from heteromark.config.models.run import RunConfig
from heteromark.environment.rewards import find_nonfinite_reward, find_unequal_rewards
from heteromark.import_paths import Registry
from heteromark.modules.loss import loss_of_group
from heteromark.modules.optimizer import set_learning_rates
from heteromark.modules.plain import PlainLoss, plain_loss, shuffled
from heteromark.modules.policy import TEAM, is_recurrent, update_observation_norms


class Algorithm(ABC):
    """Updates the weights from a collected batch. A subclass defines how actors are updated.

    Args:
        config: the run.
        learner: the components of the run.
    """

    def __init__(self, config: RunConfig, learner: Learner) -> None:
        self.config = config
        self.learner = learner
        assert learner.losses is not None, "losses is None only for language models (see Learner)"
        self._losses = learner.losses
        self.iteration = 0
        make_value = OwnValue if config.critic == "own" else TeamValue
        self._values: dict[str, ValueFunction] = {  # by critic name
            name: make_value(config, learner, name) for name in learner.critics
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what an exact resume needs besides the learner, as tensors and containers.

        A subclass that remembers something from one iteration to the next extends it.
        """
        return {"critic_memory": {name: value.memory for name, value in self._values.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        for name, memory in state["critic_memory"].items():
            weight = next(self.learner.critics[name].parameters())
            self._values[name].memory = None if memory is None else memory.to(weight.device)

    @abstractmethod
    def update_actors(self, batch: TensorDict) -> dict[str, float]:
        """Update the actors of all groups on a batch [N, T] with advantages.

        Returns:
            Metrics named `quantity/group`.
        """

    def actor_keys(self, group: str) -> list[NestedKey]:
        """Return the keys of the batch that training a group's actor needs."""
        names = ("action", "action_log_prob", "active", "counts", "advantage")
        actor: TensorDictModuleBase = self.learner.actors[group]
        return [*actor.in_keys, *((group, name) for name in names)]

    def update(self, batch: TensorDict, iteration: int) -> dict[str, float]:
        """Run one iteration: estimate advantages, update the actors, update the critics.

        Args:
            batch: [N, T], as collected. It is modified: keys are added, and entries of absent
                agents are overwritten.
            iteration: counted from 0; sets the learning rate.

        Returns:
            Metrics by column name; NaN if there was nothing to measure.

        Raises:
            Diverged: a reward, loss, gradient, factor or weight is not finite.
            ValueError: agents that share a critic received different rewards.
        """
        self.iteration = iteration
        learner = self.learner
        learning_rate = set_learning_rates(
            self.config,
            (*learner.actor_optimizers.values(), *learner.critic_optimizers.values()),
            iteration,
        )
        self._require_rewards(batch["next"])
        for group in self.learner.groups.values():
            blank_absent(batch, group, turn_based=self.learner.turn_based)
        explained = self._estimate_advantages(batch)
        metrics = self.update_actors(batch)
        metrics |= self._update_critics(batch)
        self._update_norms(batch)
        self._require_finite_weights()
        return metrics | explained | {"learning_rate": learning_rate}

    def train_actor(self, batch: TensorDict, group: str) -> dict[str, float]:
        """Run all epochs of one group's actor.

        Returns:
            Metrics named `quantity/group`: loss_objective and grad_norm (before clipping), means
            over the minibatches, and the policy's change over the whole batch (see
            `policy_change`). If no step of the group counts, nothing is trained and all are NaN.
        """
        data = batch.select(*self.actor_keys(group))
        if not data[group, "counts"].any():
            return self.untrained(group)
        learner = self.learner
        actor, loss = learner.actors[group], self._losses.actors[group]
        optimizer, buffer = learner.actor_optimizers[group], learner.actor_buffers[group]
        epochs = self.config.training.num_epochs
        by_all_steps = not self.config.loss.use_policy_active_masks
        metrics = self._fit(group, actor, loss, optimizer, buffer, data, epochs, by_all_steps)
        settings = loss_of_group(self.config.loss, learner.groups[group])
        metrics |= policy_change(actor, data, group, settings)
        batch.set((group, "log_prob_after"), data[group, "log_prob_after"])
        return {f"{name}/{group}": value for name, value in metrics.items()}

    def untrained(self, group: str) -> dict[str, float]:
        """Return the metrics of `train_actor` for a group that was not trained: all NaN."""
        names = ("loss_objective", "grad_norm", "entropy", "kl_approx", "clip_fraction")
        return {f"{name}/{group}": math.nan for name in names}

    def require_finite(self, values: Tensor, quantity: str, owner: str) -> None:
        """Raise Diverged unless all values are finite."""
        if not values.isfinite().all():
            raise Diverged(f"{quantity} of {owner} is not finite in iteration {self.iteration + 1}")

    def _require_rewards(self, after: TensorDict) -> None:
        groups = self.learner.groups
        if fault := find_nonfinite_reward(after, groups):
            raise Diverged(f"{fault} in iteration {self.iteration + 1}")
        if fault := find_unequal_rewards(after, groups, self.config.critic):
            name = self.config.environment.name
            raise ValueError(f"environment {name!r}, iteration {self.iteration + 1}: {fault}")

    def _estimate_advantages(self, batch: TensorDict) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for name, value in self._values.items():
            metrics |= value.estimate(batch)
            self.require_finite(batch[value.key("value_target")], "value target", name)
        advantages = {}
        for group in self.learner.groups:
            value = self._values.get(group) or self._values[TEAM]
            advantage, counts = value.advantage_of(group, batch)
            if self.config.loss.normalize_advantage:
                advantage = normalize_per_agent(advantage, counts)
            advantages[group] = advantage, counts.squeeze(-1)
        # Write these last: a group's critic may store its advantage under the same key.
        for group, (advantage, counts) in advantages.items():
            batch.set((group, "advantage"), advantage)
            batch.set((group, "counts"), counts)
        return metrics

    def _update_critics(self, batch: TensorDict) -> dict[str, float]:
        metrics, learner, training = {}, self.learner, self.config.training
        epochs = training.critic_epochs or training.num_epochs
        for name, value in self._values.items():
            loss, optimizer = self._losses.critics[name], learner.critic_optimizers[name]
            buffer, data = learner.critic_buffers[name], batch.select(*value.training_keys)
            fitted = self._fit(
                f"critic {name}", value.network, loss, optimizer, buffer, data, epochs
            )
            metrics[value.column("loss_critic")] = fitted.get("loss_critic", math.nan)
        return metrics

    def _fit(
        self,
        name: str,
        network: TensorDictModuleBase,
        loss_module: LossModule,
        optimizer: Optimizer,
        buffer: ReplayBuffer,
        data: TensorDict,
        epochs: int,
        by_all_steps: bool = False,
    ) -> dict[str, float]:
        """Run all epochs over `data` [N, T]; return the mean losses and gradient norms.

        Losses are averaged over the steps that count, or divided by the number of all steps.
        Minibatches in which no step counts are skipped; if all are skipped, the result is empty.
        """
        # Minibatches consist of single frames, or of sequences for a recurrent network.
        sample = (self.config.policy.gru.chunk_length,) if is_recurrent(network) else ()
        data = data.reshape(-1, *sample)
        all_count = bool(data[loss_module.loss_mask_key].all())
        sums: dict[str, float] = {}
        count = 0
        for minibatch, find_losses in self._minibatches(loss_module, network, buffer, data, epochs):
            counts = minibatch[loss_module.loss_mask_key]
            if not (all_count or counts.any()):
                continue  # with zero gradients, momentum would still change the weights
            losses = find_losses(minibatch, all_count)
            if by_all_steps:
                share = counts.float().mean()
                losses = {name: share * loss for name, loss in losses.items()}
            optimizer.zero_grad()
            functools.reduce(operator.add, losses.values()).backward()
            try:
                measured = take_step(optimizer, self.config.training.max_grad_norm, losses)
            except Diverged as diverged:
                raise diverged.of(name, self.iteration) from diverged
            for quantity, number in measured.items():
                sums[quantity] = sums.get(quantity, 0.0) + number
            count += 1
        kept = ("loss_objective", "loss_critic", "grad_norm")
        return {quantity: total / count for quantity, total in sums.items() if quantity in kept}

    def _minibatches(
        self,
        loss_module: LossModule,
        network: TensorDictModuleBase,
        buffer: ReplayBuffer,
        data: TensorDict,
        epochs: int,
    ) -> Iterator[tuple[Any, PlainLoss]]:
        """Yield the minibatches of all epochs, each with the function that finds its losses."""
        plain = plain_loss(loss_module, network) if self.config.buffer_type == "tensor" else None
        if plain is not None and buffer._batch_size is not None:
            for minibatch in shuffled(data, epochs, buffer._batch_size):
                yield minibatch, plain
            return

        def find_losses(minibatch: Any, _: bool) -> dict[str, Tensor]:
            losses = loss_module(minibatch).items()
            return {name: loss for name, loss in losses if name.startswith("loss_")}

        buffer.empty()
        buffer.extend(data)
        for _ in range(epochs):
            for minibatch in buffer:
                yield minibatch, find_losses

    def _update_norms(self, batch: TensorDict) -> None:
        """Add the batch to the statistics that networks normalise their observations by."""
        for group, actor in self.learner.actors.items():
            update_observation_norms(actor, batch, (group, "active"))
        for name, critic in self.learner.critics.items():
            update_observation_norms(critic, batch, None if name == TEAM else (name, "active"))

    def _require_finite_weights(self) -> None:
        learner = self.learner
        for kind, networks in (("actor", learner.actors), ("critic", learner.critics)):
            for name, network in networks.items():
                for parameter in network.parameters():
                    self.require_finite(parameter, f"a weight of the {kind}", name)


ALGORITHMS: Registry[type[Algorithm]] = Registry(
    "agent.algorithm", {row.name: row.home for row in ROWS if row.kind == NETWORKS}, Algorithm
)
