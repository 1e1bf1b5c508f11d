"""A team of language-model agents, as a run starts from it, or as it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from heteromark.config.models.run import RunConfig
from heteromark.llm.collector import with_best_wordings
from heteromark.llm.policies.base import TextPolicy
from heteromark.llm.policies.factory import TextPolicyFactory
from heteromark.llm.rollout import Team
from heteromark.llm.tasks.base import Task
from heteromark.llm.tasks.registry import make_task, templates_of, turn_order_of
from heteromark.runs.store import RunStore
from heteromark.training.device import arithmetic_of
from heteromark.training.random_state import seeded
from heteromark.training.saved_policy import SavedPolicy, read_saved, restore


def make_team(
    config: RunConfig, task: Task, device: torch.device
) -> tuple[Team, dict[str, TextPolicy]]:
    """The team that works on a task, and its policies by name.

    Raises:
        ValueError: roles, prompts or models do not fit.
    """
    text = config.environment.text
    order = turn_order_of(task, text, alone=config.acts_alone)
    templates = templates_of(task, text, config.model.wording)
    keep = RunStore().shared_file
    policies = TextPolicyFactory(config, task, order, templates, device, keep).create()
    team = Team(
        turn_order=order,
        policies={role: policies[config.policy_of(role)] for role in order},
        templates=templates,
        max_turns=text.max_turns,
        team_weight=config.grpo.alpha,
        max_prompt_length=config.generation.max_prompt_length,
        max_response_length=config.generation.max_response_length,
    )
    return team, policies


class LoadedTeam(NamedTuple):
    """A trained team, from a file.

    Attributes:
        config: of the run that trained it.
        task: that it was trained on.
        team: its roles, with their policies, and with the wordings that earned most where these
            were chosen among.
        policies: by name.
        iteration: after which it was taken.
    """

    config: RunConfig
    task: Task
    team: Team
    policies: Mapping[str, TextPolicy]
    iteration: int


def load_team(path: Path, device: torch.device | str = "cpu") -> LoadedTeam:
    """The trained team of a run's checkpoint.pt or best.pt, on any device.

    Raises:
        ValueError: the file is missing, damaged, or does not fit this heteromark, task or model.
    """
    # weights go from the main memory straight into the models, which are on the device
    return restored_team(read_saved(path), device)


def restored_team(saved: SavedPolicy, device: torch.device | str) -> LoadedTeam:
    """The trained team of what was read from a file.

    Raises:
        ValueError: it does not fit its task or model.
    """
    config = saved.config
    task = make_task(config.environment)
    team, policies = untrained_team(config, task, device)
    restore(policies, saved)
    team = with_best_wordings(team)
    return LoadedTeam(config, task, team, policies, saved.content["iteration"])


def untrained_team(
    config: RunConfig, task: Task, device: torch.device | str
) -> tuple[Team, dict[str, TextPolicy]]:
    """The team that a run starts from, and its policies by name.

    Raises:
        ValueError: see `make_team`.
    """
    with seeded(config.seed), arithmetic_of(config, device):
        return make_team(config, task, torch.device(device))
