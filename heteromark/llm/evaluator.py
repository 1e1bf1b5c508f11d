"""What a team of text policies achieves on held-out problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from heteromark.config.models.components import EvaluationConfig
from heteromark.config.models.run import RunConfig
from heteromark.llm.collector import with_best_wordings
from heteromark.llm.evaluation import EvaluationSettings, evaluate
from heteromark.llm.out_of_memory import memory_told
from heteromark.llm.rollout import Team
from heteromark.llm.sampling import PRESETS
from heteromark.llm.tasks.base import Problem, Task
from heteromark.seeds import stream_seed
from heteromark.training.evaluation_report import Episode, as_report


class TeamEvaluator:
    """Lets a team work on problems of the validation split, one response to each prompt.

    Args:
        config: the run.
        task: makes the problems.
        team: the policies at work.
        device: of the policies.
        settings: how to evaluate; by default as the run's config says.

    Attributes:
        num_transcripts: problems whose first pass is written down in evaluation.json, for people
            to read.
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
        """The `settings.episodes` problems of a seed."""
        return [
            self._task.problem(stream_seed(seed, "evaluation", number), "validation")
            for number in range(self._settings.episodes)
        ]

    def passes(self, seed: int) -> EvaluationSettings:
        """How the problems are worked on."""
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
        """Work on `settings.episodes` problems, `settings.passes` times; the same for one seed.

        Args:
            opponent_pool: nobody plays against a team.

        Returns:
            `as_report` of the passes, whose lengths are rounds and whose wins are solved problems;
            under "text" what `llm.evaluation.evaluate` says, and the preset.
        """
        settings = self._settings
        team = with_best_wordings(self._team)
        with memory_told(self._config, "problems were evaluated"):
            report = evaluate(team, self.problems(seed), self.passes(seed))
        episodes = [
            Episode(reward, turns, int(solved))
            for reward, turns, solved in report.pop("passes_of_problems")
        ]
        preset = preset_of(settings)
        judged = settings.model_copy(update={"deterministic": preset == "greedy"})
        return as_report(episodes, judged, seed) | {"text": {"preset": preset, **report}}

    def close(self) -> None:
        """Nothing is held."""


def preset_of(settings: EvaluationConfig) -> str:
    """The name of how responses are sampled."""
    if settings.preset is not None:
        return settings.preset
    return "greedy" if settings.deterministic else "sampled"
