"""Create untrained teams of language-model agents, and load trained ones."""

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
from heteromark.modules.random_state import seeded
from heteromark.runs.store import RunStore
from heteromark.training.device import arithmetic_of
from heteromark.training.saved_policy import SavedPolicy, read_saved, restore


def make_team(
    config: RunConfig, task: Task, device: torch.device
) -> tuple[Team, dict[str, TextPolicy]]:
    """Create the team that works on a task; also return its policies by name.

    Raises:
        ValueError: The config's roles, prompts or models do not fit the task or each other.
    """
    text = config.environment.text
    order = turn_order_of(task, text, alone=config.acts_alone)
    templates = templates_of(task, text, config.model.wording)
    policies = TextPolicyFactory(config, task, order, templates, device, RunStore()).create()
    team = Team(
        turn_order=order,
        policies={role: policies[config.policy_of(role)] for role in order},
        templates=templates,
        max_turns=text.max_turns,
        team_weight=config.grpo.alpha,
        max_prompt_length=config.generation.max_prompt_length,
        max_response_length=config.generation.max_response_length,
        systems=text.system_prompts,
    )
    return team, policies


class LoadedTeam(NamedTuple):
    """A trained team from a file.

    Attributes:
        config: config of the run that trained it.
        task: the task it was trained on.
        team: the team; prompts that were trained by prompt selection have their best wording.
        policies: by name.
        iteration: number of training iterations at the time of saving.
    """

    config: RunConfig
    task: Task
    team: Team
    policies: Mapping[str, TextPolicy]
    iteration: int


def load_team(path: Path, device: torch.device | str = "cpu") -> LoadedTeam:
    """Load the trained team from a run's checkpoint.pt or best.pt, onto any device.

    Raises:
        ValueError: The file is missing or damaged, or does not fit this version of heteromark,
            its task or its model.
    """
    return restored_team(read_saved(path), device)


def restored_team(saved: SavedPolicy, device: torch.device | str) -> LoadedTeam:
    """Restore the trained team from the content of a file.

    Raises:
        ValueError: The content does not fit its task or model.
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
    """Create the team that a run starts from; also return its policies by name.

    Raises:
        ValueError: see `make_team`.
    """
    with seeded(config.seed), arithmetic_of(config, device):
        return make_team(config, task, torch.device(device))
