"""One run: collect, update, record; continue where an earlier attempt was stopped."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heteromark.algorithm.base import Diverged
from heteromark.config.schema import RunConfig
from heteromark.runs.files import write_text_atomic
from heteromark.runs.record import EVALUATION_FILE, METRICS_FILE, RunSummary, Status
from heteromark.training.checkpoint import (
    Progress,
    load_checkpoint,
    save_checkpoint,
    save_policy,
)
from heteromark.training.components import ComponentFactory, Components
from heteromark.training.evaluate import as_report, evaluate
from heteromark.training.metrics import MetricsFile, episode_metrics

OnProgress = Callable[[int, int, dict[str, float]], None]
logger = logging.getLogger("heteromark")


@dataclass(frozen=True)
class Outcome:
    """How a run ended: completed, or diverged with the reason."""

    status: Status
    reason: str | None
    summary: RunSummary
    device: str


def train(
    config: RunConfig,
    folder: Path,
    *,
    on_progress: OnProgress | None = None,
) -> Outcome:
    """Train a run to its end, from its last checkpoint if its folder has one.

    On the CPU the result is bit-identical (wall-clock columns aside) however often the run was
    killed and started again: every checkpoint, in an interrupted run or not, is a point where the
    environments start anew from seeds that follow from (seed, iteration).

    Args:
        config: the run.
        folder: receives metrics.csv, checkpoints/, and at the end evaluation.json and
            checkpoint.pt.
        on_progress: called after each iteration with frames so far, frames in all, and the
            iteration's metrics.

    Raises:
        ValueError, ModuleNotFoundError: the config does not fit the environment or the machine, a
            checkpoint does not fit the run, or the environment misbehaves.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    components = ComponentFactory(config).create()
    try:
        return _Training(config, folder, components).run(on_progress)
    finally:
        components.collector.close()
        components.environment.close()


class _Training:
    """One attempt at a run."""

    def __init__(self, config: RunConfig, folder: Path, components: Components) -> None:
        self.config = config
        self.folder = folder
        self.components = components
        self.progress, self.metrics = self._start_or_resume()
        self._started = time.perf_counter() - self.progress.elapsed

    @property
    def frames(self) -> int:
        return self.progress.iteration * self.config.collector.frames_per_batch

    def run(self, on_progress: OnProgress | None) -> Outcome:
        total = self.config.num_iterations * self.config.collector.frames_per_batch
        self._restart_environments()
        try:
            while self.progress.iteration < self.config.num_iterations:
                row = self._iterate()
                if on_progress is not None:
                    on_progress(self.frames, total, row)
                self._checkpoint_if_due()
        except Diverged as diverged:
            logger.warning("the run diverged: %s", diverged.reason)
            return self._finish(Status.DIVERGED, diverged.reason)
        return self._finish(Status.COMPLETED, None)

    def _start_or_resume(self) -> tuple[Progress, MetricsFile]:
        path = self.folder / METRICS_FILE
        progress = load_checkpoint(self.folder, self.components.learner)
        if progress is not None:
            metrics = MetricsFile(path, keep=progress.iteration)
            logger.info(
                "continuing after iteration %d of %d",
                progress.iteration,
                self.config.num_iterations,
            )
            return progress, metrics
        return Progress(), MetricsFile(path)

    def _restart_environments(self) -> None:
        self.components.collector.restart(self.config.seed, "training", self.progress.iteration)

    def _iterate(self) -> dict[str, Any]:
        """Collect and update once, and record it."""
        began = time.perf_counter()
        batch = self.components.collector.collect()
        measured = episode_metrics(batch)
        learnt = self.components.algorithm.update(batch, self.progress.iteration)
        now = time.perf_counter()
        self.progress = Progress(self.progress.iteration + 1, now - self._started)
        row = {
            "iteration": self.progress.iteration,
            "frames": self.frames,
            **measured,
            **learnt,
            "time_elapsed": self.progress.elapsed,
            "frames_per_second": self.config.collector.frames_per_batch / (now - began),
        }
        self.metrics.append(row)
        return row

    def _checkpoint_if_due(self) -> None:
        iteration = self.progress.iteration
        last = iteration == self.config.num_iterations
        if last or iteration % self.config.training.checkpoint_interval:
            return
        self.metrics.sync()
        save_checkpoint(self.folder, self.components.learner, self.progress)
        self._restart_environments()

    def _finish(self, status: Status, reason: str | None) -> Outcome:
        """Evaluate unless diverged, and write the results."""
        config, learner = self.config, self.components.learner
        settings = config.evaluation
        save_policy(self.folder, config, learner)
        if status is Status.COMPLETED:
            actors = learner.policies.actors
            report = evaluate(
                config, actors, settings.episodes, config.seed, settings.deterministic
            )
        else:
            report = as_report([], settings.deterministic, config.seed)
        text = json.dumps(report, indent=2, allow_nan=False) + "\n"
        write_text_atomic(self.folder / EVALUATION_FILE, text)
        summary = RunSummary(
            final_return=self._final_return(),
            evaluation_return=report["return_mean"],
            evaluation_win_rate=report["win_rate"],
            evaluation_episodes=report["episodes"],
            frames=self.frames,
            iterations=self.progress.iteration,
            frames_per_second=(
                self.frames / self.progress.elapsed if self.progress.elapsed else None
            ),
        )
        return Outcome(status, reason, summary, str(self.components.device))

    def _final_return(self) -> float | None:
        """Mean episode return over the last tenth of the iterations."""
        if not self.progress.iteration:
            return None
        returns = self.metrics.column("episode_return")
        last_tenth = returns[-math.ceil(len(returns) / 10) :]
        known = [value for value in last_tenth if math.isfinite(value)]
        return sum(known) / len(known) if known else None
