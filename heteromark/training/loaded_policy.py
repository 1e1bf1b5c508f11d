"""Load trained networks from a file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torchrl.modules import ProbabilisticActor

from heteromark.config.models.algorithms import NETWORKS
from heteromark.config.models.run import RunConfig
from heteromark.environment.groups import Group
from heteromark.modules.environment import EnvironmentFactory
from heteromark.modules.policy import PolicyFactory
from heteromark.training.saved_policy import SavedPolicy, read_saved, restore


class LoadedPolicy(NamedTuple):
    """A trained policy, loaded from a file."""

    config: RunConfig  # of the run that trained it
    actors: dict[str, ProbabilisticActor]  # by group
    groups: Mapping[str, Group]  # of its environment, by name
    opponent_pool: dict[str, Any] | None  # state of the pool of past policies, if it has one
    iteration: int  # iterations of training


def load_policy(path: Path, device: torch.device | str = "cpu") -> LoadedPolicy:
    """Load the trained networks of a run's checkpoint.pt or best.pt, on any device.

    Raises:
        ValueError: the file is missing or damaged, does not fit this heteromark or environment, or
            holds a team of language-model agents (load it with `llm.saved_team.load_team`).
    """
    return policy_of(read_saved(path, device), device)


def policy_of(saved: SavedPolicy, device: torch.device | str = "cpu") -> LoadedPolicy:
    """Build the networks of a saved policy and load their weights.

    Raises:
        ValueError: the policy does not fit its environment, or holds agents of another kind.
    """
    config, content = saved.config, saved.content
    if config.kind != NETWORKS:
        raise ValueError(
            f"{saved.path} holds language-model agents for the task {config.environment.name}, "
            "which cannot act in other environments; use the checkpoint of a run whose agents are "
            "not language models"
        )
    with contextlib.closing(EnvironmentFactory().create(config, num_envs=1)) as environment:
        groups, state_size = environment.groups, environment.state_size
        actors = PolicyFactory().create(config, groups, state_size).actors
    for actor in actors.values():
        actor.to(device)
    restore(actors, saved)
    return LoadedPolicy(config, actors, groups, content["opponent_pool"], content["iteration"])
