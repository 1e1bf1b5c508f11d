"""Algorithms without an environment, and random batches for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict

from heteromark.algorithm import happo, ppo  # noqa: F401 - for their registrations
from heteromark.algorithm.base import ALGORITHMS, Algorithm
from heteromark.algorithm.learner import Learner
from heteromark.config.models.run import RunConfig
from heteromark.environment.groups import Group, make_group
from heteromark.modules.loss import LossFactory
from heteromark.modules.optimizer import OptimizerFactory
from heteromark.modules.policy import PolicyFactory, is_recurrent
from heteromark.modules.replay_buffer import ReplayBufferFactory
from heteromark.modules.value_norm import PreciseValueNorm

CPU = torch.device("cpu")


@dataclass(frozen=True)
class GroupShape:
    """Sizes of a synthetic group.

    Attributes:
        kind: type of actions; masked: discrete, with a mask of legal actions.
        agents: number of agents.
        observation_size, action_size: see Group.
    """

    kind: Literal["discrete", "masked", "continuous"]
    agents: int = 2
    observation_size: int = 3
    action_size: int = 3


def make_groups(shapes: Sequence[GroupShape]) -> dict[str, Group]:
    """Return groups "group0", "group1", … of these shapes; box bounds differ by dimension."""
    groups = {}
    for index, shape in enumerate(shapes):
        name = f"group{index}"
        agents = tuple(f"{name}_{k}" for k in range(shape.agents))
        if shape.kind == "continuous":
            low = np.array([-1.0, 0.0, -0.5, -2.0][: shape.action_size], np.float32)
            high = np.array([1.0, 1.0, 1.5, 6.0][: shape.action_size], np.float32)
            action_space = spaces.Box(low, high)
        else:
            action_space = spaces.Discrete(shape.action_size)
        observation_space = spaces.Box(-np.inf, np.inf, (shape.observation_size,), np.float32)
        groups[name] = make_group(
            name,
            agents,
            dict.fromkeys(agents, observation_space),
            dict.fromkeys(agents, action_space),
            shape.kind == "masked",
        )
    return groups


def make_algorithm(
    config: RunConfig,
    groups: Mapping[str, Group],
    *,
    dtype: torch.dtype = torch.float32,
    turn_based: bool = False,
) -> Algorithm:
    """Create the algorithm of a config and its learner, seeded by the config.

    Noise is added to weights and biases, so that policies are far from uniform and every weight
    has an effect.
    """
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.training.num_threads)
    policies = PolicyFactory().create(config, groups)
    for network in (*policies.actors.values(), *policies.critics.values()):
        network.to(dtype)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    losses = LossFactory().create(config, policies, groups)
    for loss in (*losses.actors.values(), *losses.critics.values()):
        loss.to(dtype)  # their coefficients
    norms = policies.critics if config.loss.normalize_value else ()
    optimizers, buffers = OptimizerFactory(), ReplayBufferFactory()
    learner = Learner(
        groups=groups,
        actors=policies.actors,
        critics=policies.critics,
        losses=losses,
        actor_optimizers=optimizers.create_for_actors(config, policies.actors, groups),
        critic_optimizers=optimizers.create_for_critics(config, policies.critics),
        actor_buffers=buffers.create(config, policies.actors, CPU),
        critic_buffers=buffers.create(
            config, policies.critics, CPU, config.replay_buffer.critic_minibatch_size
        ),
        value_norms={name: PreciseValueNorm(config.loss.value_norm_floor) for name in norms},
        turn_based=turn_based,
    )
    return ALGORITHMS[config.agent.algorithm](config, learner)


def random_batch(algorithm: Algorithm, seed: int, *, log_prob_noise: float = 0.2) -> TensorDict:
    """Return a random batch [N, T] for an algorithm, with the sizes of its config.

    Episodes begin before the batch and end within it, terminated or truncated. Agents die, or wait
    for their turns in a turn-based game. Absent agents observe zeros and have arbitrary actions.

    Args:
        log_prob_noise: deviation of the noise added to the recorded log-probabilities, so that
            some ratios are outside the clip range from the start.
    """
    config, learner = algorithm.config, algorithm.learner
    copies = config.environment.num_parallel_envs
    steps = config.collector.frames_per_batch // copies
    dtype = next(next(iter(learner.actors.values())).parameters()).dtype
    torch.manual_seed(seed)
    add_presence = _by_turns if learner.turn_based else _with_deaths
    episodes = add_presence(learner.groups, copies, steps)
    batch = TensorDict({"next": TensorDict({}, [copies, steps])}, [copies, steps])
    for key in ("done", "terminated", "truncated"):
        batch["next", key] = episodes[key]
    batch["step_count"] = episodes["step_count"]
    batch["next", "step_count"] = episodes["step_count"] + 1
    team_reward = torch.randn(copies, steps, 1, 1, dtype=dtype)
    for name, group in learner.groups.items():
        _add_agents(batch, group, episodes, dtype)
        shape = (copies, steps, len(group.agents), 1)
        own_reward = torch.randn(shape, dtype=dtype)
        is_team = config.environment.reward == "team"
        batch["next", name, "reward"] = team_reward.expand(shape) if is_team else own_reward
        _act(batch, learner.actors[name], name, config, log_prob_noise)
    return batch


def _episodes(copies: int, steps: int) -> dict[str, torch.Tensor]:
    """Return flags and step counts [N, T, 1] of episodes; each step is the last with 20 %."""
    shape = (copies, steps, 1)
    done = torch.rand(shape) < 0.2
    step_count = torch.zeros(shape, dtype=torch.int64)
    count = torch.randint(0, 3, (copies, 1))
    for t in range(steps):
        step_count[:, t] = count
        count = torch.where(done[:, t], 0, count + 1)
    terminated = done & (torch.rand(shape) < 0.5)
    return {
        "step_count": step_count,
        "done": done,
        "terminated": terminated,
        "truncated": done & ~terminated,
    }


def _with_deaths(groups: Mapping[str, Group], copies: int, steps: int) -> dict:
    """Let agents die at random steps of an episode, except for the first agent."""
    episodes = _episodes(copies, steps)
    for position, (name, group) in enumerate(groups.items()):
        n = len(group.agents)
        active = torch.zeros(copies, steps, n, dtype=torch.bool)
        after = torch.zeros_like(active)
        alive = (torch.rand(copies, n) < 0.8) | (episodes["step_count"][:, 0] == 0)
        immortal = torch.zeros(n, dtype=torch.bool)
        immortal[0] = position == 0
        for t in range(steps):
            alive = alive | immortal
            active[:, t] = alive
            alive = alive & ((torch.rand(copies, n) < 0.8) | immortal)
            after[:, t] = alive & ~episodes["terminated"][:, t]
            alive = torch.where(episodes["done"][:, t], True, alive)
        episodes[name] = active, after
    return episodes


def _by_turns(groups: Mapping[str, Group], copies: int, steps: int) -> dict:
    """Let one random agent act in each step."""
    episodes = _episodes(copies, steps)
    sizes = [len(group.agents) for group in groups.values()]
    turn = torch.nn.functional.one_hot(
        torch.randint(sum(sizes), (copies, steps)), sum(sizes)
    ).bool()
    after = torch.cat([turn[:, 1:], torch.zeros_like(turn[:, :1])], dim=1)
    after = torch.where(episodes["done"], episodes["truncated"], after)
    for name, active, still_there in zip(
        groups, turn.split(sizes, -1), after.split(sizes, -1), strict=True
    ):
        episodes[name] = active, still_there
    return episodes


def _add_agents(batch: TensorDict, group: Group, episodes: dict, dtype: torch.dtype) -> None:
    """Add a group's observations and masks."""
    copies, steps = batch.shape
    shape = (copies, steps, len(group.agents))
    active, after = episodes[group.name]
    observation = torch.randn(*shape, group.observation_size, dtype=dtype)
    final = torch.randn_like(observation)
    following = torch.cat([observation[:, 1:], final[:, -1:]], dim=1)
    following = torch.where(episodes["done"].unsqueeze(-1), final, following)
    entries = {"observation": torch.where(active[..., None], observation, 0.0), "active": active}
    next_entries = {"observation": torch.where(after[..., None], following, 0.0), "active": after}
    if group.masked:
        mask = torch.rand(*shape, group.action_size) < 0.6
        mask.scatter_(-1, torch.randint(group.action_size, (*shape, 1)), True)
        entries["action_mask"] = mask | ~active.unsqueeze(-1)
    batch[group.name] = TensorDict(entries, batch.shape)
    batch["next", group.name] = TensorDict(next_entries, batch.shape)


def _act(batch: TensorDict, actor, group: str, config: RunConfig, log_prob_noise: float) -> None:
    """Add a group's actions, and the hidden states of a recurrent actor."""
    if is_recurrent(actor):
        n = batch[group, "active"].shape[-1]
        size = config.policy.gru.hidden_size
        dtype = next(actor.parameters()).dtype
        batch[group, "hidden"] = torch.randn(*batch.shape, n, size, dtype=dtype)
    with torch.no_grad():
        acted = actor(batch.copy())
    batch[group, "action"] = acted[group, "action"]
    log_prob = acted[group, "action_log_prob"]
    batch[group, "action_log_prob"] = log_prob + log_prob_noise * torch.randn_like(log_prob)
