"""Evaluate a team of text policies on held-out problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from heteromark.config.models.components import EvaluationConfig
from heteromark.config.models.run import RunConfig
from heteromark.llm.collector import with_best_wordings
from heteromark.llm.evaluation import EvaluationSettings, evaluate
from heteromark.llm.out_of_memory import explain_out_of_memory
from heteromark.llm.rollout import Team
from heteromark.llm.sampling import PRESETS
from heteromark.llm.tasks.base import Problem, Task
from heteromark.seeds import stream_seed
from heteromark.training.evaluation_report import Episode, as_report


class TeamEvaluator:
    """Evaluates a team on problems of the validation split, with one response per prompt.

    Args:
        config: config of the run.
        task: draws the problems.
        team: the team to evaluate.
        device: device of the policies.
        settings: how to evaluate; by default those of the run's config.

    Attributes:
        num_transcripts: number of problems whose first pass is recorded in evaluation.json.
    """

    num_transcripts = 8

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

    def problems(self, seed: int) -> list[Problem]:
        """Draw the `settings.episodes` problems of a seed."""
        return [
            self._task.problem(stream_seed(seed, "evaluation", number), "validation")
            for number in range(self._settings.episodes)
        ]

    def passes(self, seed: int) -> EvaluationSettings:
        """Return the settings of the passes over each problem."""
        settings = self._settings
        return EvaluationSettings(
            generation=PRESETS[preset_of(settings)],
            num_passes=settings.passes,
            chunk_size=self._config.environment.num_parallel_envs,
            seed=seed,
            num_transcripts=self.num_transcripts,
            device=self._device,
        )

    def evaluate(self, seed: int, opponent_pool: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Evaluate `settings.episodes` problems, `settings.passes` times each.

        The same seed gives the same report.

        Args:
            opponent_pool: ignored; a team has no opponents.

        Returns:
            The report of `as_report`, where lengths are rounds and wins are solved problems. Its
            "text" entry holds the preset and the report of `llm.evaluation.evaluate`.
        """
        settings = self._settings
        team = with_best_wordings(self._team)
        with explain_out_of_memory(self._config, "evaluating problems"):
            report = evaluate(team, self.problems(seed), self.passes(seed))
        episodes = [
            Episode(reward, turns, int(solved))
            for reward, turns, solved in report.pop("passes_of_problems")
        ]
        preset = preset_of(settings)
        judged = settings.model_copy(update={"deterministic": preset == "greedy"})
        return as_report(episodes, judged, seed) | {"text": {"preset": preset, **report}}

    def close(self) -> None:
        """Do nothing: the evaluator holds no resources."""


def preset_of(settings: EvaluationConfig) -> str:
    """Return the name of the sampling preset."""
    if settings.preset is not None:
        return settings.preset
    return "greedy" if settings.deterministic else "sampled"
