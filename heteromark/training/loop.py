"""The training loop of one run: collect, update, record; resume from the last checkpoint."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from heteromark.algorithm.learner import Diverged
from heteromark.config.models.run import RunConfig
from heteromark.modules.random_state import preserved_random_state
from heteromark.runs.files import write_text_atomic
from heteromark.runs.metrics import MetricsFile, OnProgress
from heteromark.runs.record import (
    BEST_FILE,
    CHECKPOINT_FILE,
    EVALUATION_FILE,
    METRICS_FILE,
    Outcome,
    RunSummary,
    Status,
)
from heteromark.training.checkpoint import (
    BestPolicy,
    Progress,
    load_checkpoint,
    policy_content,
    save_checkpoint,
    write_policy,
)
from heteromark.training.components import ComponentFactory, Components
from heteromark.training.evaluation_report import as_report

if TYPE_CHECKING:
    from heteromark.modules.sharing import Share


class Loggers(Protocol):
    """Destinations of metrics besides metrics.csv, see `commands.loggers`."""

    @property
    def runs(self) -> Mapping[str, str]:
        """ID of this run by back end, for resuming it."""

    def log(self, row: Mapping[str, float]) -> None:
        """Log a row of metrics."""


class NoLoggers:
    """Logs nothing besides metrics.csv."""

    runs: Mapping[str, str] = MappingProxyType({})

    def log(self, row: Mapping[str, float]) -> None:
        """Do nothing."""


# (config, run folder, frames trained by earlier attempts, `runs` of earlier attempts)
OpenLoggers = Callable[[RunConfig, Path, int, Mapping[str, str]], AbstractContextManager[Loggers]]
# A training in steps: each ends before the next collection or evaluation, and yields `borrowed`.
Steps = Generator[float, None, Outcome]
logger = logging.getLogger("heteromark")


def train(
    config: RunConfig,
    folder: Path,
    *,
    on_progress: OnProgress | None = None,
    open_loggers: OpenLoggers | None = None,
) -> Outcome:
    """Train a run to its end; see `training_steps`."""
    steps = training_steps(config, folder, on_progress=on_progress, open_loggers=open_loggers)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome


def training_steps(
    config: RunConfig,
    folder: Path,
    *,
    on_progress: OnProgress | None = None,
    open_loggers: OpenLoggers | None = None,
    share: Share | None = None,
) -> Steps:
    """Train a run to its end, starting from the last checkpoint in its folder if there is one.

    A generator, so that several runs can be trained by turns.

    On the CPU, neither checkpoints nor interruptions change the result: all but the wall-clock
    columns is bit-identical. A checkpoint holds the running episodes, see `Collector.state_dict`.
    If an episode cannot be continued, a new one begins, with a warning and a note in the record.

    Args:
        config: the run.
        folder: for metrics.csv, checkpoints/, best.pt (if the run is evaluated during training),
            and at the end evaluation.json and checkpoint.pt.
        on_progress: called after each iteration with the frames so far, the total frames and the
            iteration's metrics.
        open_loggers: opens additional loggers for the metrics; None: no loggers.
        share: environments that this run shares with others; None: it has its own.

    Returns:
        How the run ended.

    Raises:
        ValueError, ModuleNotFoundError: the config does not fit the environment or the machine, a
            checkpoint does not fit the run, or the environment violates its contract.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    components = ComponentFactory(config).create(share)
    with ExitStack() as resources:
        resources.callback(components.close)
        training = _Training(config, folder, components, resources, open_loggers)
        return (yield from training.run(on_progress))


class _Training:
    """One attempt at a run.

    Args:
        resources: closes the loggers at the end.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        components: Components,
        resources: ExitStack,
        open_loggers: OpenLoggers | None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.components = components
        self.learner = components.learner
        self.progress = self._start_or_resume()
        self.metrics = MetricsFile(folder / METRICS_FILE, self.progress.metrics)
        logged = self.frames if self.progress.is_own else 0
        self.loggers: Loggers = NoLoggers()
        if open_loggers is not None:
            self.loggers = resources.enter_context(
                open_loggers(config, folder, logged, self.progress.logger_runs)
            )
        for row in () if self.progress.is_own else self.metrics.rows():
            self.loggers.log(row)
        self._started = time.perf_counter() - self.progress.elapsed
        self._last_report: dict[str, Any] | None = None
        self._borrowed = 0.0

    @property
    def frames(self) -> int:
        return self.progress.iteration * self.config.collector.frames_per_batch

    def run(self, on_progress: OnProgress | None) -> Steps:
        total = self.config.num_iterations * self.config.collector.frames_per_batch
        self._begin_or_continue_episodes()
        try:
            while self.progress.iteration < self.config.num_iterations:
                waiting_since = time.perf_counter()
                yield self._take_borrowed()
                self._started += time.perf_counter() - waiting_since
                row = yield from self._iterate()
                self.metrics.append(row)
                self.loggers.log(row)
                if on_progress is not None:
                    on_progress(self.frames, total, row)
                self._checkpoint_if_due()
        except Diverged as diverged:
            logger.warning("the run diverged: %s", diverged.reason)
            return (yield from self._finish(Status.DIVERGED, diverged.reason))
        return (yield from self._finish(Status.COMPLETED, None))

    def _start_or_resume(self) -> Progress:
        progress = load_checkpoint(self.folder, self.config, self.learner)
        if progress is None:
            progress = Progress()
        else:
            logger.info(
                "resuming after iteration %d of %d",
                progress.iteration,
                self.config.num_iterations,
            )
        _write_best(self.folder, progress)  # an earlier attempt may have got further
        return progress

    def _begin_or_continue_episodes(self) -> None:
        collector, progress = self.components.collector, self.progress
        with preserved_random_state():  # a checkpoint's is already restored
            collector.restart(self.config.seed, "training")
            if progress.in_flight is None:
                return
            lost = collector.load_state_dict(progress.in_flight["collector"])
        self.components.algorithm.load_state_dict(progress.in_flight["algorithm"])
        self.progress = progress = replace(progress, in_flight=None, metrics="")
        if lost:
            first, why = next(iter(lost.items()))
            note = (
                f"resumed after iteration {progress.iteration} with new episodes in {len(lost)} of "
                f"{self.config.environment.num_parallel_envs} copies; copy {first}: {why}"
            )
            logger.warning(note)
            self.progress = replace(progress, notes=(*progress.notes, note))

    def _iterate(self) -> Generator[float, None, dict[str, Any]]:
        """Collect and update once, and evaluate if due; return the row of metrics."""
        began = time.perf_counter()
        batch = self.components.collector.collect()
        borrowed = self._borrow_from(self.components.collector)
        began, self._started = began - borrowed, self._started - borrowed
        measured = self.components.measure(batch)
        updated = self.components.algorithm.update(batch, self.progress.iteration)
        self._add_to_opponents_if_due(self.progress.iteration + 1)
        now = time.perf_counter()
        self.progress = replace(
            self.progress, iteration=self.progress.iteration + 1, elapsed=now - self._started
        )
        evaluated = yield from self._evaluate_if_due()
        self._started += time.perf_counter() - now  # do not count evaluation as training time
        return {
            "iteration": self.progress.iteration,
            "frames": self.frames,
            **measured,
            **updated,
            **evaluated,
            "time_elapsed": self.progress.elapsed,
            "frames_per_second": self.config.collector.frames_per_batch / (now - began),
        }

    def _borrow_from(self, part: Any) -> float:
        """Return and note the `borrowed` seconds of a shared collector or evaluator."""
        borrowed: float = getattr(part, "borrowed", 0.0)
        self._borrowed += borrowed
        return borrowed

    def _take_borrowed(self) -> float:
        borrowed, self._borrowed = self._borrowed, 0.0
        return borrowed

    def _add_to_opponents_if_due(self, iteration: int) -> None:
        pool, interval = (
            self.learner.opponent_pool,
            self.config.environment.opponent.snapshot_interval,
        )
        if pool is not None and iteration % interval == 0:
            pool.add(self.learner.actors)

    def _evaluate_if_due(self) -> Generator[float, None, dict[str, float]]:
        """Return the evaluation's columns: none if evaluation is off, NaN if it is not due."""
        interval, iteration = self.config.evaluation.interval, self.progress.iteration
        if not interval:
            return {}
        if iteration % interval and iteration != self.config.num_iterations:
            return {"evaluation_return": math.nan, "evaluation_win_rate": math.nan}
        yield self._take_borrowed()
        report = self._last_report = self._evaluate()
        achieved, win_rate = report["return_mean"], report["win_rate"]
        best = self.progress.best
        if achieved is not None and (best is None or achieved > best.evaluation_return):
            best = BestPolicy(iteration, achieved, self._policy_content(achieved))
            self.progress = replace(self.progress, best=best)
        return {
            "evaluation_return": math.nan if achieved is None else achieved,
            "evaluation_win_rate": math.nan if win_rate is None else win_rate,
        }

    def _evaluate(self) -> dict[str, Any]:
        """Evaluate with the run's seed, so that results differ only through the policy."""
        pool = self.learner.opponent_pool
        report = self.components.evaluator.evaluate(
            self.config.seed, None if pool is None else pool.state_dict()
        )
        self._borrow_from(self.components.evaluator)
        return report

    def _policy_content(self, evaluation_return: float | None) -> bytes:
        iteration = self.progress.iteration
        return policy_content(self.config, self.learner, iteration, evaluation_return)

    def _checkpoint_if_due(self) -> None:
        iteration, interval = self.progress.iteration, self.config.training.checkpoint_interval
        # after the last iteration too: a longer run can continue from there
        if iteration % interval and iteration < self.config.num_iterations:
            return
        self.progress = replace(self.progress, logger_runs=self.loggers.runs, is_own=True)
        in_flight = {
            "collector": self.components.collector.state_dict(),
            "algorithm": self.components.algorithm.state_dict(),
        }
        progress = replace(self.progress, in_flight=in_flight, metrics=self.metrics.text)
        save_checkpoint(self.folder, self.config, self.learner, progress)
        _write_best(self.folder, self.progress)

    def _finish(self, status: Status, reason: str | None) -> Steps:
        """Evaluate unless the run diverged, and write the results."""
        self.metrics.finish()
        config = self.config
        if status is Status.DIVERGED:
            report = as_report([], config.evaluation, config.seed)
        else:
            if self._last_report is None:
                yield self._take_borrowed()
            report = self._last_report or self._evaluate()
        text = json.dumps(report, indent=2, allow_nan=False) + "\n"
        write_text_atomic(self.folder / EVALUATION_FILE, text)
        write_policy(self.folder / CHECKPOINT_FILE, self._policy_content(report["return_mean"]))
        _write_best(self.folder, self.progress)
        best = self.progress.best
        summary = RunSummary(
            final_return=self.metrics.final_return(),
            evaluation_return=report["return_mean"],
            evaluation_win_rate=report["win_rate"],
            evaluation_episodes=report["episodes"],
            best_evaluation_return=best and best.evaluation_return,
            best_iteration=best and best.iteration,
            frames=self.frames,
            iterations=self.progress.iteration,
            frames_per_second=(
                self.frames / self.progress.elapsed if self.progress.elapsed else None
            ),
        )
        device = str(self.components.device)
        notes = self.progress.notes
        return Outcome(status, reason, summary, device, notes, self._take_borrowed())


def _write_best(folder: Path, progress: Progress) -> None:
    """Write best.pt, or delete it if nothing was evaluated yet."""
    if progress.best is None:
        (folder / BEST_FILE).unlink(missing_ok=True)
    else:
        write_policy(folder / BEST_FILE, progress.best.content)
