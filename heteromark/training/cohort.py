"""Train several runs in one process, by turns, each with the result of a process of its own."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Sequence
from pathlib import Path

import psutil

from heteromark.config.compose.layers import PARAMS_FILE
from heteromark.config.errors import ConfigError
from heteromark.config.models.run import RunConfig
from heteromark.modules.random_state import OwnRandomState, preserved_random_state
from heteromark.modules.sharing import Share, SharedEnvironment
from heteromark.runs.checkpoints import iteration_to_resume
from heteromark.runs.metrics import OnProgress
from heteromark.training.device import require_device
from heteromark.training.environments import make_environment
from heteromark.training.evaluator import SharedEvaluation
from heteromark.training.loop import OpenLoggers, Steps, training_steps

# Copies of a batch that exist at one time: with the observations after each step, and those that
# the update makes.
_COPIES = 6


class Cohort:
    """Runs that are trained by turns: each advances by one step, then the next.

    On the CPU, every result is bit-identical to that of the run trained alone. Each run has its own
    random state. Runs on Skirmish that are at the same iteration play in one environment, whose
    step costs little more for many battles than for few. Settings of the whole process, such as the
    number of threads and the precision, must be the same for all runs.
    """

    def __init__(self) -> None:
        self._shared: dict[str, tuple[SharedEnvironment, SharedEvaluation]] = {}

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
            share = Share(*self._shared_by(config, folder), randomness)
        return _with_random_state(
            training_steps(
                config, folder, on_progress=on_progress, open_loggers=open_loggers, share=share
            ),
            randomness,
        )

    def _shared_by(
        self, config: RunConfig, folder: Path
    ) -> tuple[SharedEnvironment, SharedEvaluation]:
        """Return what is shared by runs that will always be at the same iteration."""
        key = json.dumps(
            [
                _played_by(config),
                config.num_iterations,
                config.evaluation.model_dump(mode="json"),
                iteration_to_resume(folder, config.num_iterations),
            ],
            sort_keys=True,
        )
        if key not in self._shared:
            environment = SharedEnvironment(functools.partial(make_environment, config))
            self._shared[key] = environment, SharedEvaluation()
        return self._shared[key]


def _can_share(config: RunConfig) -> bool:
    """Return whether battles play the same, bit for bit, whoever plays beside them.

    Not verified for compiled code, nor for GPUs. The actors of an opponent's policy would act on
    more battles at once, which changes the rounding.
    """
    skirmish = config.environment.skirmish
    return (
        config.env_type == "skirmish"
        and config.collector_type == "sync"
        and skirmish.opponent != "policy"
        and not skirmish.compile
        and require_device(config).type == "cpu"
    )


def require_memory(configs: Sequence[RunConfig]) -> None:
    """Check that the batches of all runs fit into the memory of this machine.

    Raises:
        ConfigError: they do not.
    """
    kinds: dict[str, list[RunConfig]] = {}
    for config in configs:
        kinds.setdefault(_played_by(config), []).append(config)
    with preserved_random_state():
        needed = sum(len(alike) * _bytes_of(alike[0]) for alike in kinds.values())
    available = psutil.virtual_memory().available
    if needed > available:
        fitting = max(1, len(configs) * available // needed)
        raise ConfigError.single(
            PARAMS_FILE,
            f"{len(configs)} runs in one process need about {needed / 2**30:,.1f} GiB for their "
            f"batches, and {available / 2**30:,.1f} GiB are free; set it to at most {fitting}",
            len(configs),
            "smoke.cohort",
        )


def _played_by(config: RunConfig) -> str:
    """Return everything in a config that the batches of its environment depend on, as text."""
    played = config.environment.model_dump(mode="json", exclude={"name", "num_workers"})
    own = (
        config.policy.share_policy_params,
        config.may_read_state,
        config.collector.frames_per_batch,
    )
    return json.dumps([played, own], sort_keys=True)


def _bytes_of(config: RunConfig) -> int:
    """Estimate the memory of a run's batches; 0: its environment cannot be created."""
    try:
        with contextlib.closing(make_environment(config, 1)) as environment:
            specs = (environment.full_observation_spec, environment.full_action_spec)
            frame = sum(leaf.zero().nbytes for spec in specs for leaf in spec.values(True, True))
    except Exception:  # the run itself reports the error
        return 0
    return _COPIES * frame * config.collector.frames_per_batch


def _with_random_state(steps: Steps, randomness: OwnRandomState) -> Steps:
    """Advance a training, each step with its own random state."""
    try:
        while True:
            with randomness.active():
                try:
                    borrowed = next(steps)
                except StopIteration as end:
                    return end.value
            yield borrowed
    finally:
        steps.close()
