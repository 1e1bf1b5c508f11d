"""Train several runs in one process; each result is that of a process of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from heteromark.commands.launch import attempt, ending_on_signals, interleave
from heteromark.commands.progress import SECONDS_BETWEEN_LINES
from heteromark.config.errors import ConfigError
from heteromark.config.models.algorithms import NETWORKS
from heteromark.config.models.run import RunConfig
from heteromark.config.rules.packages import package_faults
from heteromark.runs.digest import chosen_trainer, covered_files, run_digest
from heteromark.runs.metrics import OnProgress
from heteromark.runs.record import TORCH
from heteromark.runs.seal import Seal
from heteromark.runs.store import RunStore

# Not "heteromark", which also writes to the log of the run whose turn it is.
log = logging.getLogger("heteromark_cohort")


@dataclass(frozen=True)
class CohortMember:
    """A run of a cohort.

    Attributes:
        config: the run.
        config_path: of its agent config, for the record.
        command: trains this run alone, for the record.
    """

    config: RunConfig
    config_path: str
    command: tuple[str, ...]


def reason_for_own_process(config: RunConfig) -> str | None:
    """Return why a run cannot be trained in one process with others; None: it can.

    The project's code is loaded once in a process, and may behave differently in later runs.
    Clients of MLflow and Weights & Biases have one open run in a process.
    """
    if config.kind != NETWORKS:
        return "language models fill the memory"
    if config.collector_type != "sync":
        return f"collector_type is {config.collector_type}"
    if config.environment.num_workers > 0:
        return "environment.num_workers is not 0"
    if set(config.logger.backends) - {"tensorboard"}:
        return f"logger.backends is {', '.join(config.logger.backends)}"
    if own := next(covered_files(config), None):
        return f"they use {own}"
    return None


def cohort_key(config: RunConfig) -> tuple[int, str, str]:
    """Return what runs in one process must have in common."""
    return config.training.num_threads, config.training.matmul_precision, config.device


def train_cohort(members: Sequence[CohortMember], store: RunStore) -> str:
    """Train those runs that the store lacks, by turns; return a line that says what was done.

    A run that fails leaves the others alone, and is only named in the log: whoever asks for it next
    trains it again from its last checkpoint, and reports the failure. Runs that another process is
    training are left to it.

    Args:
        members: runs without a `reason_for_own_process`, of which `cohort_key` is the same.
        store: the run store.

    Raises:
        ConfigError: the machine has not enough memory, or a package is missing.
        Terminated: a signal ended all runs. Each resumes from its last checkpoint.
    """
    digests = {run_digest(member.config): member for member in members}
    due = [member for digest, member in digests.items() if store.lookup(digest) is None]
    if not due:
        return f"nothing to train: {len(digests)} runs are in the run store"
    configs = [member.config for member in due]
    if faults := package_faults(configs[0]):
        raise ConfigError(faults)
    progress, seal = _Progress(configs), Seal(configs[0])
    with seal.noting(), ending_on_signals():
        training_steps = None
        if chosen_trainer() == TORCH:
            from heteromark.training.cohort import Cohort, require_memory

            require_memory(configs)
            training_steps = Cohort().steps
        results = interleave(
            [
                attempt(
                    member.config,
                    seal,
                    store,
                    member.config_path,
                    progress.of(number),
                    wait=False,
                    command=member.command,
                    training_steps=training_steps,
                )
                for number, member in enumerate(due)
            ]
        )
    errors = [result for result in results if isinstance(result, Exception)]
    for error in errors:
        log.warning("%s", error)
    return f"{len(due) - len(errors)} of {len(due)} runs trained in one process"


class _Progress:
    """Logs the progress of a cohort, every few seconds."""

    def __init__(self, configs: Sequence[RunConfig]) -> None:
        self._frames = [0] * len(configs)
        self._total = sum(
            config.num_iterations * config.collector.frames_per_batch for config in configs
        )
        self._began = self._last = time.monotonic()

    def of(self, number: int) -> OnProgress:
        """Return the function that a run calls after each iteration."""

        def show(frames: int, _: int, __: dict[str, float]) -> None:
            self._frames[number] = frames
            now = time.monotonic()
            done = sum(self._frames)
            if now - self._last < SECONDS_BETWEEN_LINES and done < self._total:
                return
            self._last = now
            log.info(
                "%d runs: %d/%d frames (%.0f %%), %.0f frames/s",
                len(self._frames),
                done,
                self._total,
                100 * done / self._total,
                done / (now - self._began),
            )

        return show
