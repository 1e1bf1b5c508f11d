"""TorchRL specs of a batched multi-agent environment, shared by all adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from gymnasium import spaces
from torchrl.data.tensor_specs import (
    Binary,
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    TensorSpec,
    Unbounded,
)

from heteromark.environment.groups import Group


@dataclass(frozen=True)
class EnvironmentSpecs:
    """The four specs of an EnvBase, each of shape [N]."""

    observation: Composite
    action: Composite
    reward: Composite
    done: Composite


def make_specs(
    groups: Mapping[str, Group], num_envs: int, state_size: int | None = None
) -> EnvironmentSpecs:
    """Return the specs of N copies of an environment with these groups.

    Keys, shapes, dtypes and meanings: see `heteromark.environment.contract`.
    """
    observation, action, reward = (Composite(shape=[num_envs]) for _ in range(3))
    for name, group in groups.items():
        shape = (num_envs, len(group.agents))
        observed = Composite(
            observation=Unbounded((*shape, group.observation_size)),
            active=Binary(shape=shape, dtype=torch.bool),
            shape=[num_envs],
        )
        if group.masked:
            mask_shape = (*shape, group.action_size)
            observed["action_mask"] = Binary(shape=mask_shape, dtype=torch.bool)
        observation[name] = observed
        action[name] = Composite(action=_action_spec(group, shape), shape=[num_envs])
        reward[name] = Composite(reward=Unbounded((*shape, 1)), shape=[num_envs])
    if state_size is not None:
        observation["state"] = Unbounded((num_envs, state_size))
    observation["episode_return"] = Unbounded((num_envs, 1))
    observation["step_count"] = Unbounded((num_envs, 1), dtype=torch.int64)
    observation["won"] = Unbounded((num_envs, 1), dtype=torch.int8)
    flag = Binary(shape=(num_envs, 1), dtype=torch.bool)
    done = Composite(done=flag, terminated=flag.clone(), truncated=flag.clone(), shape=[num_envs])
    return EnvironmentSpecs(observation, action, reward, done)


def _action_spec(group: Group, shape: tuple[int, int]) -> TensorSpec:
    space = group.action_space
    if isinstance(space, spaces.Discrete):
        return Categorical(group.action_size, shape=shape, dtype=torch.int64)
    full = (*shape, group.action_size)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiCategorical(group.choices, shape=full, dtype=torch.int64)
    low, high = (
        torch.as_tensor(bound, dtype=torch.float32).expand(full).clone()
        for bound in (space.low, space.high)
    )
    return Bounded(low, high, shape=full, dtype=torch.float32)
