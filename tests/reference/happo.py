"""HAPPO as a training loop: Adam, minibatches, and the sequence of updates.

Slow, simple loops in double precision; see `reference.formulas`. Random numbers come from torch's
global generator in this order: the order of the groups; for every group the minibatches and, for
continuous actions, one sample per action for the entropy; then the critics' minibatches.

Sources: Kuba et al., Trust Region Policy Optimisation in Multi-Agent RL, ICLR 2022; Kingma and Ba,
Adam, ICLR 2015.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from reference.formulas import (
    Agents,
    Batch,
    Network,
    Policy,
    Settings,
    ValueScale,
    actor_losses,
    generalised_advantage,
    joint_observation,
    log_prob,
    normalise,
    ratio,
    value_loss,
)
from torch import Tensor

Loss = Callable[[], Tensor]
Differentiate = Callable[[Loss, list[Tensor]], list[Tensor]]


def by_autograd(loss: Loss, parameters: list[Tensor]) -> list[Tensor]:
    """Return the gradient of a scalar."""
    return list(torch.autograd.grad(loss(), parameters))


@torch.no_grad()
def by_differences(loss: Loss, parameters: list[Tensor]) -> list[Tensor]:
    """Return the gradient of a scalar by central differences."""
    step = 1e-5
    gradients = []
    for parameter in parameters:
        gradient = torch.zeros_like(parameter)
        for j in range(parameter.numel()):
            here = parameter.flatten()[j].item()
            parameter.view(-1)[j] = here + step
            above = loss()
            parameter.view(-1)[j] = here - step
            below = loss()
            parameter.view(-1)[j] = here
            gradient.view(-1)[j] = (above - below) / (2 * step)
        gradients.append(gradient)
    return gradients


@dataclass
class Adam:
    """The optimizer of a policy or critic, with gradient clipping."""

    network: Network | Policy
    settings: Settings
    steps: int = 0
    first_moments: list[Tensor] = field(default_factory=list)
    second_moments: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)  # of the last step, after clipping

    @torch.no_grad()
    def step(self, gradients: list[Tensor]) -> float:
        """Update the network; return the norm of the gradient before clipping.

        As in torch, 1e-6 avoids a division by zero.
        """
        parameters = self.network.parameters
        norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
        shrink = min(1.0, self.settings.max_grad_norm / (norm + 1e-6))
        self.gradients = [shrink * gradient for gradient in gradients]
        if not self.steps:
            self.first_moments = [torch.zeros_like(p) for p in parameters]
            self.second_moments = [torch.zeros_like(p) for p in parameters]
        self.steps += 1
        beta1, beta2 = 0.9, 0.999
        for j, gradient in enumerate(self.gradients):
            first = beta1 * self.first_moments[j] + (1 - beta1) * gradient
            second = beta2 * self.second_moments[j] + (1 - beta2) * gradient**2
            self.first_moments[j], self.second_moments[j] = first, second
            unbiased_first = first / (1 - beta1**self.steps)
            unbiased_second = second / (1 - beta2**self.steps)
            denominator = torch.sqrt(unbiased_second) + self.settings.adam_eps
            parameters[j] -= self.settings.learning_rate * unbiased_first / denominator
        return norm


def minibatches(copies: int, steps: int, settings: Settings) -> Iterator[list[tuple[int, int]]]:
    """Yield the frames of every minibatch of all epochs.

    As in TorchRL, the order of the next epoch is drawn before the last minibatch of an epoch is
    returned. So it is drawn once more than there are epochs.
    """
    frames = [(i, t) for i in range(copies) for t in range(steps)]
    order = torch.randperm(len(frames)).tolist()
    for _ in range(settings.num_epochs):
        while order:
            chosen = order[: settings.minibatch_size]
            order = order[settings.minibatch_size :]
            following = None if order else torch.randperm(len(frames)).tolist()
            yield [frames[j] for j in chosen]
        order = following


@dataclass
class Report:
    """Results of an update: means over minibatches by group or critic, and their inputs."""

    order: list[str] = field(default_factory=list)
    factor: dict[str, Tensor] = field(default_factory=dict)  # [N, T], in the group's training
    advantage: dict[str, Tensor] = field(default_factory=dict)  # [N, T, n]
    value_target: dict[str, Tensor] = field(default_factory=dict)  # [N, T]
    actor_loss: dict[str, float] = field(default_factory=dict)
    grad_norm: dict[str, float] = field(default_factory=dict)
    critic_loss: dict[str, float] = field(default_factory=dict)


class HAPPO:
    """The reference of the HAPPO algorithm.

    Args:
        settings: hyperparameters.
        policies: by group.
        critics: one named "team", or one per group, by group name.
        differentiate: `by_autograd` or `by_differences`.
    """

    def __init__(
        self,
        settings: Settings,
        policies: dict[str, Policy],
        critics: dict[str, Network],
        differentiate: Differentiate = by_autograd,
    ) -> None:
        self.settings = settings
        self.policies = policies
        self.critics = critics
        self.differentiate = differentiate
        self.scales = {name: ValueScale() for name in critics}
        self.actor_optimizers = {name: Adam(policy, settings) for name, policy in policies.items()}
        self.critic_optimizers = {name: Adam(critic, settings) for name, critic in critics.items()}

    def update(self, batch: Batch) -> Report:
        """Run one iteration: estimate advantages, update all actors in turn, then the critics."""
        report = Report()
        before, advantage = {}, {}
        for name in self.critics:
            before[name], advantage[name], report.value_target[name] = self._estimate(name, batch)
        for group, agents in batch.groups.items():
            own = advantage.get(group, advantage.get("team"))
            report.advantage[group] = normalise(own, agents.active)
        self._update_actors(batch, report)
        for name in self.critics:
            self._train_critic(name, batch, before[name], report)
        return report

    def _estimate(self, name: str, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return values and targets in the critic's units, and advantages in the reward's."""
        critic = self.critics[name]
        copies, steps = batch.reward.shape
        value, next_value = torch.zeros(2, copies, steps, dtype=torch.float64)
        with torch.no_grad():
            for i in range(copies):
                for t in range(steps):
                    value[i, t] = critic(joint_observation(batch, i, t, after=False))[0]
                    next_value[i, t] = critic(joint_observation(batch, i, t, after=True))[0]
        if not self.settings.normalize_value:
            advantage = generalised_advantage(value, next_value, batch, self.settings)
            return value, advantage, advantage + value
        scale = self.scales[name]
        centre, deviation = scale.centre_and_deviation()
        real, real_next = value * deviation + centre, next_value * deviation + centre
        advantage = generalised_advantage(real, real_next, batch, self.settings)
        target = advantage + real
        scale.update(target.flatten().tolist())
        centre, deviation = scale.centre_and_deviation()
        return value, advantage, (target - centre) / deviation

    def _update_actors(self, batch: Batch, report: Report) -> None:
        names = list(batch.groups)
        if not self.settings.fixed_order:
            names = [names[j] for j in torch.randperm(len(names)).tolist()]
        report.order = names
        factor = torch.ones_like(batch.reward)
        for group in names:
            policy, agents = self.policies[group], batch.groups[group]
            report.factor[group] = factor.clone()
            old = self._log_probs(policy, agents)
            if agents.active.any():
                self._train_actor(group, agents, factor, report)
            for (i, t, k), new in self._log_probs(policy, agents).items():
                before = old[i, t, k] if agents.log_prob.dim() == 4 else old[i, t, k].sum()
                factor[i, t] *= ratio(new, before)

    def _train_actor(self, group: str, agents: Agents, factor: Tensor, report: Report) -> None:
        policy, advantage = self.policies[group], report.advantage[group]
        losses, norms = [], []
        for frames in minibatches(*factor.shape, self.settings):
            if not any(agents.active[i, t].any() for i, t in frames):
                continue  # no active agents: skip the minibatch
            noise = None
            if policy.is_continuous and policy.squashes:
                noise = standard_normal(len(frames), *agents.action.shape[2:])
            both = partial(
                actor_losses, policy, agents, frames, advantage, factor, noise, self.settings
            )
            with torch.no_grad():
                losses.append(float(both()[0]))
            gradients = self.differentiate(partial(_total, both), policy.parameters)
            norms.append(self.actor_optimizers[group].step(gradients))
        report.actor_loss[group] = sum(losses) / len(losses)
        report.grad_norm[group] = sum(norms) / len(norms)
        if policy.is_continuous and policy.squashes:
            standard_normal(*agents.action.shape)  # the engine draws these for its entropy metric

    def _train_critic(self, name: str, batch: Batch, before: Tensor, report: Report) -> None:
        critic, target = self.critics[name], report.value_target[name]
        losses = []
        for frames in minibatches(*batch.reward.shape, self.settings):
            loss = partial(value_loss, critic, batch, frames, target, before, self.settings)
            with torch.no_grad():
                losses.append(float(loss()))
            self.critic_optimizers[name].step(self.differentiate(loss, critic.parameters))
        report.critic_loss[name] = sum(losses) / len(losses)

    def _log_probs(self, policy: Policy, agents: Agents) -> dict[tuple[int, int, int], Tensor]:
        """Return the log-probabilities of active agents' actions under the current weights."""
        copies, steps, n = agents.active.shape
        with torch.no_grad():
            return {
                (i, t, k): log_prob(policy, agents, i, t, k)
                for i in range(copies)
                for t in range(steps)
                for k in range(n)
                if agents.active[i, t, k]
            }


def _total(losses: Callable[[], tuple[Tensor, ...]]) -> Tensor:
    return sum(losses())


def standard_normal(*shape: int) -> Tensor:
    zeros = torch.zeros(shape, dtype=torch.float64)
    return torch.normal(zeros, torch.ones_like(zeros))
