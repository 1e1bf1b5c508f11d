"""The formulas of HAPPO as simple loops in double precision.

The code does not use the engine, TensorDict or TorchRL, so that it is an independent check of the
engine. Vectors are tensors, so that autograd can differentiate the losses. Everything else is loops
over environment copies i, steps t and agents k of one group.

Sources: Kuba et al., Trust Region Policy Optimisation in Multi-Agent RL, ICLR 2022 (the factor);
Schulman et al., Proximal Policy Optimization Algorithms, 2017 (the surrogate); Schulman et al.,
High-Dimensional Continuous Control Using GAE, ICLR 2016; Yu et al., The Surprising Effectiveness of
PPO in Cooperative Multi-Agent Games, NeurIPS 2022 (value loss and normalisation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LOG_SQRT_2_PI = math.log(math.sqrt(2 * math.pi))


@dataclass(frozen=True)
class Settings:
    """Hyperparameters, named as in the run config."""

    gamma: float
    gae_lambda: float
    clip_epsilon: float
    entropy_coef: float
    critic_coef: float
    huber_delta: float
    learning_rate: float
    adam_eps: float
    max_grad_norm: float
    num_epochs: int
    minibatch_size: int
    clip_value: bool = True
    normalize_value: bool = True
    fixed_order: bool = True
    clip_actor: bool = True


@dataclass
class Network:
    """A perceptron with tanh between its layers: weights [out, in], biases [out]."""

    layers: list[tuple[Tensor, Tensor]]

    @property
    def parameters(self) -> list[Tensor]:
        return [parameter for layer in self.layers for parameter in layer]

    def __call__(self, inputs: Tensor) -> Tensor:
        *hidden, (weight, bias) = self.layers
        for hidden_weight, hidden_bias in hidden:
            inputs = torch.tanh(hidden_weight @ inputs + hidden_bias)
        return weight @ inputs + bias


@dataclass
class Policy:
    """An actor. `low` and `high` [action_size] are bounds of a continuous action; None: discrete.

    A normal distribution's deviation at the start is `initial_std`, and stays below `max_std`.
    `raw_std` [action_size] is a parameter; None: the network's outputs contain its values.
    """

    network: Network
    low: Tensor | None = None
    high: Tensor | None = None
    raw_std: Tensor | None = None
    squashes: bool = True
    initial_std: float = 1.0
    max_std: float | None = None

    @property
    def parameters(self) -> list[Tensor]:
        own = [] if self.raw_std is None else [self.raw_std]
        return [*self.network.parameters, *own]

    @property
    def is_continuous(self) -> bool:
        return self.low is not None


@dataclass
class Agents:
    """Observations and actions of the n agents of a group in N copies over T steps.

    `legal` [N, T, n, actions] is None if all actions are legal. `log_prob` is from the rollout:
    [N, T, n], or [N, T, n, action_size] if the dimensions' ratios are averaged.
    """

    observation: Tensor
    action: Tensor
    legal: Tensor | None
    active: Tensor
    log_prob: Tensor
    next_observation: Tensor
    next_active: Tensor


@dataclass
class Batch:
    """A batch of N copies over T steps; `reward`, `done`, `terminated` [N, T] are of the team."""

    groups: dict[str, Agents]
    reward: Tensor
    done: Tensor
    terminated: Tensor


@dataclass
class ValueScale:
    """Exponential averages of the value targets and their squares, and the total weight."""

    mean: float = 0.0
    square: float = 0.0
    weight: float = 0.0
    beta: float = 0.99999

    def update(self, targets: list[float]) -> None:
        rest = 1 - self.beta
        self.mean = self.beta * self.mean + rest * sum(targets) / len(targets)
        self.square = self.beta * self.square + rest * sum(x * x for x in targets) / len(targets)
        self.weight = self.beta * self.weight + rest

    def centre_and_deviation(self) -> tuple[float, float]:
        if self.weight == 0:
            return 0.0, math.sqrt(1e-5)
        centre = self.mean / self.weight
        return centre, math.sqrt(max(self.square / self.weight - centre**2, 1e-5))


# --- distributions ---------------------------------------------------------------------------


def log_prob(policy: Policy, agents: Agents, i: int, t: int, k: int) -> Tensor:
    """Return the log-probability of agent k's action: [1], or [action_size] per dimension."""
    outputs = policy.network(agents.observation[i, t, k])
    action = agents.action[i, t, k]
    if policy.is_continuous:
        unit = (2 * action - policy.low - policy.high) / (policy.high - policy.low)
        return normal_log_prob(policy, outputs, torch.atanh(unit) if policy.squashes else unit)
    return categorical_log_probs(outputs, legal_actions(agents, i, t, k))[int(action)].reshape(1)


def legal_actions(agents: Agents, i: int, t: int, k: int) -> list[int] | None:
    if agents.legal is None:
        return None
    return [a for a, is_legal in enumerate(agents.legal[i, t, k].tolist()) if is_legal]


def categorical_log_probs(logits: Tensor, legal: list[int] | None) -> dict[int, Tensor]:
    """Return the log-probabilities of the legal actions: a softmax over their logits only."""
    actions = range(len(logits)) if legal is None else legal
    normaliser = torch.log(sum(torch.exp(logits[a]) for a in actions))
    return {a: logits[a] - normaliser for a in actions}


def normal_log_prob(policy: Policy, outputs: Tensor, sample: Tensor) -> Tensor:
    """Return the log-density [action_size] of the sample, or its tanh, scaled to the box."""
    mean, deviation = mean_and_deviation(policy, outputs)
    standardised = (sample - mean) / deviation
    normal = -0.5 * standardised**2 - torch.log(deviation) - LOG_SQRT_2_PI
    if policy.squashes:
        normal = normal - torch.log(1 - torch.tanh(sample) ** 2)
    return normal - torch.log((policy.high - policy.low) / 2)


def mean_and_deviation(policy: Policy, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return both [action_size], in units of half the box."""
    size = len(policy.low)
    raw = outputs[size:] if policy.raw_std is None else policy.raw_std
    if policy.max_std is None:
        start = math.log(math.exp(policy.initial_std) - 1)
        return outputs[:size], torch.log(1 + torch.exp(raw + start))
    start = math.log(policy.initial_std / (policy.max_std - policy.initial_std))
    return outputs[:size], policy.max_std / (1 + torch.exp(-raw - start))


def entropy(policy: Policy, agents: Agents, i: int, t: int, k: int, noise: Tensor | None) -> Tensor:
    """Return the entropy in nats; for a squashed normal, estimated from one sample (`noise`)."""
    outputs = policy.network(agents.observation[i, t, k])
    if policy.is_continuous:
        mean, deviation = mean_and_deviation(policy, outputs)
        if not policy.squashes:
            width = (policy.high - policy.low) / 2
            return (0.5 + LOG_SQRT_2_PI + torch.log(deviation * width)).sum()
        return -normal_log_prob(policy, outputs, mean + deviation * noise).sum()
    log_probs = categorical_log_probs(outputs, legal_actions(agents, i, t, k))
    return -sum(torch.exp(log_p) * log_p for log_p in log_probs.values())


def ratio(after: Tensor, before: Tensor) -> Tensor:
    """Return new / old probability: of the joint action, or the mean over its dimensions.

    Args:
        after: log-probabilities, [action_size] or [1].
        before: a scalar: use the joint action; [action_size]: average over the dimensions.
    """
    if before.dim() == 0:
        return torch.exp(after.sum() - before)
    return sum(torch.exp(after[d] - before[d]) for d in range(len(before))) / len(before)


# --- advantages ------------------------------------------------------------------------------


def generalised_advantage(
    value: Tensor, next_value: Tensor, batch: Batch, settings: Settings
) -> Tensor:
    """Return GAE [N, T]. Terminated steps have no future value; any end of an episode cuts the sum."""
    advantage = torch.zeros_like(value)
    copies, steps = value.shape
    for i in range(copies):
        following = 0.0
        for t in reversed(range(steps)):
            future = 0.0 if batch.terminated[i, t] else next_value[i, t]
            error = batch.reward[i, t] + settings.gamma * future - value[i, t]
            if batch.done[i, t]:
                following = 0.0
            following = error + settings.gamma * settings.gae_lambda * following
            advantage[i, t] = following
    return advantage


def normalise(advantage: Tensor, active: Tensor) -> Tensor:
    """Return advantages [N, T, n], normalised per agent over its active steps."""
    copies, steps, n = active.shape
    normal = torch.zeros_like(active, dtype=torch.float64)
    for k in range(n):
        own = [(i, t) for i in range(copies) for t in range(steps) if active[i, t, k]]
        if not own:
            continue
        mean = sum(advantage[i, t] for i, t in own) / len(own)
        variance = sum((advantage[i, t] - mean) ** 2 for i, t in own) / len(own)
        for i, t in own:
            normal[i, t, k] = (advantage[i, t] - mean) / (math.sqrt(variance) + 1e-5)
    return normal


def joint_observation(batch: Batch, i: int, t: int, after: bool) -> Tensor:
    """Return all observations, concatenated, before or after the step; zeros for absent agents."""
    seen = []
    for agents in batch.groups.values():
        observation = agents.next_observation if after else agents.observation
        active = agents.next_active if after else agents.active
        for k in range(active.shape[2]):
            present = bool(active[i, t, k])
            seen.append(observation[i, t, k] if present else 0 * agents.observation[0, 0, 0])
    return torch.cat(seen)


# --- losses ----------------------------------------------------------------------------------


def actor_losses(
    policy: Policy,
    agents: Agents,
    frames: list[tuple[int, int]],
    advantage: Tensor,
    factor: Tensor,
    noise: Tensor | None,
    settings: Settings,
) -> tuple[Tensor, Tensor]:
    """Return the losses of the surrogate and the entropy bonus, averaged over active agents.

    Args:
        frames: the minibatch, pairs (i, t).
        advantage: [N, T, n].
        factor: [N, T].
        noise: [frames, n, action_size] for continuous actions.
    """
    surrogate, bonus, count = 0.0, 0.0, 0
    reach = settings.clip_epsilon if settings.clip_actor else math.inf
    low, high = 1 - reach, 1 + reach
    for row, (i, t) in enumerate(frames):
        for k in range(agents.active.shape[2]):
            if not agents.active[i, t, k]:
                continue
            r = ratio(log_prob(policy, agents, i, t, k), agents.log_prob[i, t, k])
            clipped = torch.clamp(r, low, high)
            a = advantage[i, t, k]
            surrogate += factor[i, t] * torch.minimum(r * a, clipped * a)
            own_noise = None if noise is None else noise[row, k]
            bonus += entropy(policy, agents, i, t, k, own_noise)
            count += 1
    return -surrogate / count, -settings.entropy_coef * bonus / count


def value_loss(
    critic: Network,
    batch: Batch,
    frames: list[tuple[int, int]],
    target: Tensor,
    before: Tensor,
    settings: Settings,
) -> Tensor:
    """Return the mean of the larger of the Huber losses with and without value clipping."""
    total = 0.0
    for i, t in frames:
        value = critic(joint_observation(batch, i, t, after=False))[0]
        distance = huber(value - target[i, t], settings.huber_delta)
        if settings.clip_value:
            change = torch.clamp(
                value - before[i, t], -settings.clip_epsilon, settings.clip_epsilon
            )
            kept = before[i, t] + change
            distance = torch.maximum(distance, huber(kept - target[i, t], settings.huber_delta))
        total += distance
    return settings.critic_coef * total / len(frames)


def huber(error: Tensor, delta: float) -> Tensor:
    if abs(error) <= delta:
        return error**2 / 2
    return delta * (abs(error) - delta / 2)
