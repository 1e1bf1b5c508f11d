"""Train several runs in one process, by turns, each with the result of a process of its own."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from heteromark.config.models.run import RunConfig
from heteromark.modules.random_state import OwnRandomState
from heteromark.modules.sharing import Share, SharedEnvironment
from heteromark.runs.checkpoints import iteration_to_resume
from heteromark.runs.metrics import OnProgress
from heteromark.training.device import require_device
from heteromark.training.environments import make_environment
from heteromark.training.loop import OpenLoggers, Steps, training_steps


class Cohort:
    """Runs that are trained by turns: each advances by one step, then the next.

    On the CPU, every result is bit-identical to that of the run trained alone. Each run has its own
    random state. Runs on Skirmish that are at the same iteration play in one environment, whose
    step costs little more for many battles than for few. What a process has only once must be the
    same for all: number of threads, precision, and the project's own modules.
    """

    def __init__(self) -> None:
        self._environments: dict[str, SharedEnvironment] = {}

    def steps(
        self,
        config: RunConfig,
        folder: Path,
        *,
        on_progress: OnProgress | None = None,
        open_loggers: OpenLoggers | None = None,
    ) -> Steps:
        """Train one of the runs; see `training_steps`."""
        randomness = OwnRandomState()
        share = None
        if _can_share(config):
            environment = self._environment_of(config, folder)
            share = Share(environment, randomness)
        return _by_turns(
            training_steps(
                config, folder, on_progress=on_progress, open_loggers=open_loggers, share=share
            ),
            randomness,
        )

    def _environment_of(self, config: RunConfig, folder: Path) -> SharedEnvironment:
        """Return the environment of the runs that will always be at the same iteration."""
        played = config.environment.model_dump(mode="json", exclude={"name", "num_workers"})
        key = json.dumps(
            [
                played,
                config.policy.share_policy_params,
                config.may_read_state,
                config.collector.frames_per_batch,
                config.num_iterations,
                config.evaluation.interval,
                iteration_to_resume(folder, config.num_iterations),
            ],
            sort_keys=True,
        )
        if key not in self._environments:
            self._environments[key] = SharedEnvironment(functools.partial(make_environment, config))
        return self._environments[key]


def _can_share(config: RunConfig) -> bool:
    """Return whether battles play the same, bit for bit, whoever plays beside them.

    Not shown for compiled code, nor for GPUs. The actors of an opponent's policy would act on more
    battles at once, which changes the rounding.
    """
    skirmish = config.environment.skirmish
    return (
        config.env_type == "skirmish"
        and config.collector_type == "sync"
        and skirmish.opponent != "policy"
        and not skirmish.compile
        and require_device(config).type == "cpu"
    )


def _by_turns(steps: Steps, randomness: OwnRandomState) -> Steps:
    """Advance a training, each time with its own random state."""
    try:
        while True:
            with randomness.turn():
                try:
                    next(steps)
                except StopIteration as end:
                    return end.value
            yield
    finally:
        steps.close()
