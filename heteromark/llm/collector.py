"""Collects what a team of text policies says about fresh problems."""

from __future__ import annotations

from dataclasses import replace

import torch

from heteromark.config.models.run import RunConfig
from heteromark.llm.out_of_memory import memory_told
from heteromark.llm.policies.prompt import PromptPolicy
from heteromark.llm.rollout import Rollout, Team, joined, roll_out
from heteromark.llm.tasks.base import Problem, Task
from heteromark.seeds import stream_seed


class RolloutCollector:
    """One rollout per iteration.

    Problems and responses of an iteration follow from (seed, stream, iteration) alone, so that a
    resumed run goes on exactly.

    Args:
        config: the run.
        task: makes the problems.
        team: the policies at work.
        device: of the policies.
    """

    def __init__(self, config: RunConfig, task: Task, team: Team, device: torch.device) -> None:
        self.config = config
        self.task = task
        self.team = team
        self.device = device
        self._place: tuple[int, str, int] = (config.seed, "training", 0)

    def restart(self, seed: int, stream: str, iteration: int) -> None:
        """Go on at an iteration, counted from 0."""
        self._place = (seed, stream, iteration)

    def collect(self) -> Rollout:
        """Let the team work on this iteration's problems.

        Raises:
            ValueError: a prompt is too long.
            OutOfMemory: there are too many responses at once, or too long ones.
        """
        seed, stream, iteration = self._place
        config, grpo = self.config, self.config.grpo
        responses = stream_seed(seed, stream, "responses", iteration)
        generator = torch.Generator(self.device).manual_seed(responses)
        problems = self.problems(seed, stream, iteration)
        team = trying(self.team, iteration)
        together = config.environment.num_parallel_envs
        with memory_told(config, "responses were sampled"):
            rollouts = [
                roll_out(
                    team,
                    problems[start : start + together],
                    samples=grpo.num_generations,
                    sampling=grpo.sampling,
                    generator=generator,
                )
                for start in range(0, len(problems), together)
            ]
        self._place = (seed, stream, iteration + 1)
        return joined(rollouts)

    def problems(self, seed: int, stream: str, iteration: int) -> list[Problem]:
        """An iteration's problems, of the training split."""
        text = self.config.environment.text
        drawn = iteration if text.epoch_size is None else iteration % text.epoch_size
        drawn //= text.resample_freq
        return [
            self.task.problem(stream_seed(seed, stream, "problems", drawn, number))
            for number in range(self.config.problems_per_batch)
        ]

    def close(self) -> None:
        """Nothing is held."""


def trying(team: Team, iteration: int) -> Team:
    """The team with the wordings that an iteration tries, where some are to be chosen among."""
    tried = {
        role: policy.wordings[role][policy.tried(role, iteration)]
        for role, policy in team.policies.items()
        if isinstance(policy, PromptPolicy)
    }
    return replace(team, templates={**team.templates, **tried})


def with_best_wordings(team: Team) -> Team:
    """The team with the wordings that have earned most, where some are chosen among."""
    best = {
        role: policy.best(role)
        for role, policy in team.policies.items()
        if isinstance(policy, PromptPolicy)
    }
    return replace(team, templates={**team.templates, **best})
