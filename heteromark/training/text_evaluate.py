"""What a team of text policies achieves on held-out problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from heteromark.config.components import EvaluationConfig
from heteromark.config.schema import RunConfig
from heteromark.environment.seeds import stream_seed
from heteromark.llm.rollout import Team, joined, roll_out
from heteromark.llm.tasks.base import Task
from heteromark.training.evaluate import Episode, as_report


class TextEvaluator:
    """Lets a team work on problems of the validation split, one response to each prompt.

    Args:
        config: the run.
        task: makes the problems.
        team: the policies at work.
        device: of the policies.
        settings: how to evaluate; by default as the run's config says.
    """

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        team: Team,
        device: torch.device,
        settings: EvaluationConfig | None = None,
    ) -> None:
        self._config = config
        self._task = task
        self._team = team
        self._device = device
        self._settings = settings or config.evaluation

    def evaluate(self, seed: int, opponent_pool: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Work on `settings.episodes` problems; the same ones for the same seed.

        Args:
            opponent_pool: nobody plays against a team.

        Returns:
            `as_report` of the problems: return, rounds, and whether they were solved.
        """
        settings = self._settings
        greedy = settings.deterministic
        problems = [
            self._task.problem(stream_seed(seed, "evaluation", number), "validation")
            for number in range(settings.episodes)
        ]
        together = self._config.environment.num_parallel_envs
        generator = torch.Generator(self._device).manual_seed(
            stream_seed(seed, "evaluation responses")
        )
        rollout = joined(
            [
                roll_out(
                    self._team,
                    problems[start : start + together],
                    samples=1,
                    sampling="tree",
                    temperature=0.0 if greedy else None,
                    generator=generator,
                )
                for start in range(0, len(problems), together)
            ]
        )
        return as_report(
            [Episode(each.reward, each.turns, int(each.is_solved)) for each in rollout.episodes],
            settings,
            seed,
        )

    def close(self) -> None:
        """Nothing is held."""
