"""The formulas of HAPPO, written down one by one: plain loops in double precision.

Nothing here is taken from the engine, TensorDict or TorchRL, so that an agreement with the engine
means something. Vectors are tensors, so that autograd can differentiate the losses; all else is
loops over environment copies i, steps t, and agents k. "Agents" are those of one group.

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
# A deviation is softplus(x + SHIFT) + 0.01, where SHIFT makes it 1 at x = 0; in single precision,
# because that is how the policies' networks have it.
SHIFT = float(torch.tensor(0.99).expm1().log())


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
    """An actor; `low` and `high` [action_size] bound a continuous action, None: discrete."""

    network: Network
    low: Tensor | None = None
    high: Tensor | None = None

    @property
    def is_continuous(self) -> bool:
        return self.low is not None


@dataclass
class Agents:
    """What the n agents of a group saw and did in N copies over T steps.

    `legal` [N, T, n, actions] is None where every action is; `log_prob` [N, T, n] is that of the
    rollout, [N, T, n, action_size] where the dimensions' ratios are to be averaged.
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
    """N copies over T steps; `reward`, `done` and `terminated` [N, T] are the team's."""

    groups: dict[str, Agents]
    reward: Tensor
    done: Tensor
    terminated: Tensor


@dataclass
class ValueScale:
    """Exponential averages of the value targets and of their squares, with their weight."""

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
    """Log-probability of what agent k did: [1], or [action_size], one for every dimension."""
    outputs = policy.network(agents.observation[i, t, k])
    action = agents.action[i, t, k]
    if policy.is_continuous:
        unit = (2 * action - policy.low - policy.high) / (policy.high - policy.low)
        return squashed_log_prob(policy, outputs, torch.atanh(unit))
    return categorical_log_probs(outputs, legal_actions(agents, i, t, k))[int(action)].reshape(1)


def legal_actions(agents: Agents, i: int, t: int, k: int) -> list[int] | None:
    if agents.legal is None:
        return None
    return [a for a, is_legal in enumerate(agents.legal[i, t, k].tolist()) if is_legal]


def categorical_log_probs(logits: Tensor, legal: list[int] | None) -> dict[int, Tensor]:
    """Log-probabilities of the legal actions: a softmax over their logits alone."""
    actions = range(len(logits)) if legal is None else legal
    normaliser = torch.log(sum(torch.exp(logits[a]) for a in actions))
    return {a: logits[a] - normaliser for a in actions}


def squashed_log_prob(policy: Policy, outputs: Tensor, before_tanh: Tensor) -> Tensor:
    """Log-density [action_size] of the action that is tanh(before_tanh) moved into the box."""
    mean, deviation = mean_and_deviation(outputs)
    standardised = (before_tanh - mean) / deviation
    normal = -0.5 * standardised**2 - torch.log(deviation) - LOG_SQRT_2_PI
    half_width = (policy.high - policy.low) / 2
    return normal - torch.log(1 - torch.tanh(before_tanh) ** 2) - torch.log(half_width)


def mean_and_deviation(outputs: Tensor) -> tuple[Tensor, Tensor]:
    size = len(outputs) // 2
    return outputs[:size], torch.log1p(torch.exp(outputs[size:] + SHIFT)) + 0.01


def entropy(policy: Policy, agents: Agents, i: int, t: int, k: int, noise: Tensor | None) -> Tensor:
    """Entropy in nats; of a squashed normal the estimate from one sample, made from `noise`."""
    outputs = policy.network(agents.observation[i, t, k])
    if policy.is_continuous:
        mean, deviation = mean_and_deviation(outputs)
        return -squashed_log_prob(policy, outputs, mean + deviation * noise).sum()
    log_probs = categorical_log_probs(outputs, legal_actions(agents, i, t, k))
    return -sum(torch.exp(log_p) * log_p for log_p in log_probs.values())


def ratio(after: Tensor, before: Tensor) -> Tensor:
    """New to old probability: of the joint action, or the mean over its dimensions.

    Args:
        after: [action_size], or [1].
        before: a scalar for the former; [action_size] for the latter.
    """
    if before.dim() == 0:
        return torch.exp(after.sum() - before)
    return sum(torch.exp(after[d] - before[d]) for d in range(len(before))) / len(before)


# --- advantages ------------------------------------------------------------------------------


def generalised_advantage(
    value: Tensor, next_value: Tensor, batch: Batch, settings: Settings
) -> Tensor:
    """GAE [N, T]: a terminated step has no future, a truncated one has but ends the sum."""
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
    """Advantages [N, T, n] of the agents, each with the mean and deviation of its own steps."""
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
    """What all agents see, side by side, before or after the step; zeros for the absent."""
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
    """The surrogate's loss and that of the entropy bonus, averaged over active agents.

    Args:
        frames: the minibatch, pairs (i, t).
        advantage: [N, T, n].
        factor: [N, T].
        noise: [frames, n, action_size] for continuous actions.
    """
    surrogate, bonus, count = 0.0, 0.0, 0
    low, high = 1 - settings.clip_epsilon, 1 + settings.clip_epsilon
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
    """Mean of the larger of the Huber losses of the value, and of the value kept near `before`."""
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
