"""Collect rollouts of a team of text policies on newly drawn problems."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from heteromark.config.models.run import RunConfig
from heteromark.llm.out_of_memory import explain_out_of_memory
from heteromark.llm.policies.prompt import PromptPolicy
from heteromark.llm.rollout import Rollout, Team, joined, roll_out
from heteromark.llm.tasks.base import Problem, Task
from heteromark.seeds import stream_seed


class RolloutCollector:
    """Collects one rollout per iteration.

    The problems and responses of an iteration depend only on (seed, stream, iteration), so a
    resumed run continues exactly.

    Args:
        config: config of the run.
        task: draws the problems.
        team: the team that works on the problems.
        device: device of the policies.
    """

    def __init__(self, config: RunConfig, task: Task, team: Team, device: torch.device) -> None:
        self.config = config
        self.task = task
        self.team = team
        self.device = device
        self._position: tuple[int, str, int] = (config.seed, "training", 0)

    def restart(self, seed: int, *stream: int | str) -> None:
        """Continue with the first iteration of a random stream.

        Args:
            seed: seed of the run.
            stream: name of the stream.
        """
        (name,) = stream
        self._position = (seed, str(name), 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the next iteration."""
        return {"iteration": self._position[2]}

    def load_state_dict(self, state: dict[str, Any]) -> dict[int, str]:
        """Continue at an iteration; nothing is lost, because iterations share no episodes."""
        seed, stream, _ = self._position
        self._position = (seed, stream, state["iteration"])
        return {}

    def collect(self) -> Rollout:
        """Let the team work on this iteration's problems.

        Raises:
            ValueError: A prompt is too long.
            OutOfMemory: The responses that are sampled in parallel do not fit in memory.
        """
        seed, stream, iteration = self._position
        config, grpo = self.config, self.config.grpo
        response_seed = stream_seed(seed, stream, "responses", iteration)
        generator = torch.Generator(self.device).manual_seed(response_seed)
        problems = self.problems(seed, stream, iteration)
        team = with_trial_wordings(self.team, iteration)
        parallel = config.environment.num_parallel_envs
        with explain_out_of_memory(config, "sampling responses"):
            rollouts = [
                roll_out(
                    team,
                    problems[start : start + parallel],
                    samples=grpo.num_generations,
                    sampling=grpo.sampling,
                    generator=generator,
                )
                for start in range(0, len(problems), parallel)
            ]
        self._position = (seed, stream, iteration + 1)
        return joined(rollouts)

    def problems(self, seed: int, stream: str, iteration: int) -> list[Problem]:
        """Draw an iteration's problems from the training split."""
        text = self.config.environment.text
        drawn = iteration if text.epoch_size is None else iteration % text.epoch_size
        drawn //= text.resample_freq
        return [
            self.task.problem(stream_seed(seed, stream, "problems", drawn, number))
            for number in range(self.config.problems_per_batch)
        ]

    def close(self) -> None:
        """Do nothing: the collector holds no resources."""


def with_trial_wordings(team: Team, iteration: int) -> Team:
    """Return the team with the prompt wordings to try in an iteration.

    Only roles whose policy is trained by prompt selection change.
    """
    trial = {
        role: policy.wordings[role][policy.wording_index(role, iteration)]
        for role, policy in team.policies.items()
        if isinstance(policy, PromptPolicy)
    }
    return replace(team, templates={**team.templates, **trial})


def with_best_wordings(team: Team) -> Team:
    """Return the team with the prompt wordings of the highest mean reward so far.

    Only roles whose policy is trained by prompt selection change.
    """
    best = {
        role: policy.best(role)
        for role, policy in team.policies.items()
        if isinstance(policy, PromptPolicy)
    }
    return replace(team, templates={**team.templates, **best})
