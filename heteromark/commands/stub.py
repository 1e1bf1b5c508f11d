"""The stub trainer: a run's files with invented figures, in milliseconds and without torch.

For tests and trials of what surrounds a training: Snakemake, DVC, the run store, tables, pages.

    HETEROMARK_TRAINER=stub snakemake --cores 2

The figures follow from the run's digest, so two stub runs of one digest are identical, and every
change of config, code or data that affects a run shows in them.
A stub run cannot be taken for a real one: its digest differs, its record says `trainer: stub`, its
reason and its device say so wherever runs are shown, and its checkpoint holds no policy.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from heteromark.config.models.run import RunConfig
from heteromark.runs.digest import run_digest, trajectory_digest
from heteromark.runs.files import write_text_atomic
from heteromark.runs.metrics import MetricsFile, OnProgress
from heteromark.runs.record import (
    CHECKPOINT_FILE,
    EVALUATION_FILE,
    METRICS_FILE,
    STUB,
    Outcome,
    RunSummary,
    Status,
)
from heteromark.training.evaluation_report import Episode, as_report

REASON = "the figures are invented: the stub trainer wrote this run"
_EPISODE_LENGTH = 25  # frames


def train(
    config: RunConfig,
    folder: Path,
    *,
    on_progress: OnProgress | None = None,
) -> Outcome:
    """Write the files of a finished run: metrics.csv, evaluation.json and checkpoint.pt.

    Args:
        config: the run. What it says about the environment is not checked against one.
        folder: receives the files.
        on_progress: called as by the real training.
    """
    curve = _Curve(config)
    metrics = MetricsFile(folder / METRICS_FILE)
    batch = config.collector.frames_per_batch
    iterations = config.num_iterations
    interval = config.evaluation.interval
    best: tuple[float, int] | None = None
    for iteration in range(1, iterations + 1):
        value = curve.at(iteration, noise=1.0)
        row = {
            "iteration": iteration,
            "frames": iteration * batch,
            "episodes": max(batch // _EPISODE_LENGTH, 1),
            "episode_return": value,
            "episode_length": float(_EPISODE_LENGTH),
            "win_rate": _as_rate(value),
        }
        if interval:
            is_due = iteration % interval == 0 or iteration == iterations
            evaluated = curve.at(iteration, noise=0.1) if is_due else math.nan
            row |= {"evaluation_return": evaluated, "evaluation_win_rate": _as_rate(evaluated)}
            if is_due and (best is None or evaluated > best[0]):
                best = evaluated, iteration
        row |= {"time_elapsed": 1e-3 * iteration, "frames_per_second": 1e3 * batch}
        metrics.append(row)
        if on_progress is not None:
            on_progress(iteration * batch, iterations * batch, row)
    report = as_report(
        [
            Episode(value, _EPISODE_LENGTH, int(value > 0))
            for value in (
                curve.at(iterations, noise=1.0) for _ in range(config.evaluation.episodes)
            )
        ],
        config.evaluation,
        config.seed,
    )
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    write_text_atomic(folder / EVALUATION_FILE, text)
    write_text_atomic(folder / CHECKPOINT_FILE, f"{REASON}; it has no policy\n")
    summary = RunSummary(
        final_return=metrics.final_return(),
        evaluation_return=report["return_mean"],
        evaluation_win_rate=report["win_rate"],
        evaluation_episodes=report["episodes"],
        best_evaluation_return=best and best[0],
        best_iteration=best and best[1],
        frames=iterations * batch,
        iterations=iterations,
        frames_per_second=1e3 * batch,
    )
    return Outcome(Status.COMPLETED, REASON, summary, device=STUB)


class _Curve:
    """A learning curve that rises to where the config's hyperparameters send it."""

    def __init__(self, config: RunConfig) -> None:
        # the same for all seeds and lengths
        of_config = random.Random(trajectory_digest(config.model_copy(update={"seed": 0})))
        self._end = of_config.uniform(1.0, 10.0)
        self._random = random.Random(run_digest(config))
        self._iterations = config.num_iterations

    def at(self, iteration: int, noise: float) -> float:
        """Return after an iteration, with Gaussian noise of a standard deviation."""
        risen = 1 - math.exp(-5 * iteration / self._iterations)
        return self._end * risen + self._random.gauss(0.0, noise)


def _as_rate(value: float) -> float:
    """A win rate that rises with the return."""
    return 1 / (1 + math.exp(-value))
