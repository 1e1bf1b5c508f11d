"""The collectors and their factory."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from tensordict import TensorDict
from torchrl.collectors import Collector as TorchRLCollector
from torchrl.collectors import MultiSyncCollector as TorchRLMultiSyncCollector
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType

from heteromark.config.models.run import RunConfig
from heteromark.environment.errors import (
    WorkerDied,
    WorkerTraceback,
    describe_exit,
    format_copies,
    make_picklable,
)
from heteromark.import_paths import Registry
from heteromark.modules.plain import as_policy
from heteromark.modules.random_state import random_state, restore_random_state, seed_everything
from heteromark.modules.rollout import Actors, Rollout, RolloutPolicy, threads_of
from heteromark.runs.files import atomic_path
from heteromark.runs.seal import note_reads
from heteromark.seeds import stream_seed


class MakeEnvironment(Protocol):
    """Creates an environment of `num_envs` copies, numbered from `first`."""

    def __call__(self, num_envs: int, *, first: int) -> EnvBase: ...


_EXIT_TIMEOUT = 2.0  # seconds to wait for the exit status of a process


class Collector(Protocol):
    """Collects one batch per iteration by running the actors in environments or on tasks."""

    def restart(self, seed: int, *stream: int | str) -> None:
        """Abandon the running episodes and start new ones from seeds of the given stream.

        Everything collected afterwards depends only on the seeds, the actors and the random state,
        not on what was collected before.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to continue exactly, as tensors and containers.

        Reading it changes nothing. Torch's random state in this process is not part of it.
        """

    def load_state_dict(self, state: dict[str, Any]) -> dict[int, str]:
        """Continue from a state, after `restart` with the seed and stream of that time.

        Returns:
            By copy whose episode could not be continued, the reason; a new episode began there.
        """

    def collect(self) -> Any:
        """Collect the next T steps of every copy, or a language-model team's answers to tasks.

        Returns:
            For copies, a TensorDict [N, T] on the device: observations and actions, and under
            "next" the rewards and next observations. The next call reuses the memory.

        Raises:
            RuntimeError: `restart` was not called.
            WorkerDied: a process of the collector ended.
            Exception: any error of an environment, in this or another process.
        """

    def close(self) -> None:
        """End the processes and close the environments that this collector started."""


CollectorMaker = Callable[[RunConfig, EnvBase, MakeEnvironment, Actors, torch.device], Collector]
COLLECTORS: Registry[CollectorMaker] = Registry("collector_type")


class CollectorFactory:
    """Creates the collector of a run."""

    def create(
        self,
        config: RunConfig,
        environment: EnvBase,
        make_environment: MakeEnvironment,
        actors: Actors,
        device: torch.device,
    ) -> Collector:
        """Create a collector. Call `restart` before collecting.

        Args:
            environment: the run's environment of all copies, which resets finished copies.
            make_environment: creates an environment of fewer copies; picklable.
            actors: by group; each writes its group's actions and log-probs.
            device: device of the actors and the batch.
        """
        make_collector = COLLECTORS[config.collector_type]
        return make_collector(config, environment, make_environment, actors, device)


@COLLECTORS.register("sync")
class SyncCollector:
    """Collects in this process; see Collector and CollectorFactory."""

    def __init__(
        self,
        config: RunConfig,
        environment: EnvBase,
        make_environment: MakeEnvironment,
        actors: Actors,
        device: torch.device,
    ) -> None:
        self.environment = environment
        self._policy = RolloutPolicy(actors, config.policy.gru.memory_size)
        steps = config.collector.frames_per_batch // environment.batch_size[0]
        self._rollout = Rollout(environment, [self._policy], steps, device)

    def restart(self, seed: int, *stream: int | str) -> None:
        self.environment.reseed(seed, *stream)
        self._rollout.reset()

    def state_dict(self) -> dict[str, Any]:
        save = getattr(self.environment, "running_episodes", None)
        hidden = {name: state.clone() for name, state in self._policy.hidden.items()}
        return {"environment": None if save is None else save(), "hidden": hidden}

    def load_state_dict(self, state: dict[str, Any]) -> dict[int, str]:
        outputs, lost = continued(self.environment, state["environment"])
        self._rollout.continue_from(outputs)
        for name, hidden in state["hidden"].items():
            before = self._policy.hidden[name]
            self._policy.hidden[name] = hidden.to(before.device)
        return lost

    def collect(self) -> TensorDict:
        if not self._rollout.is_started:
            raise RuntimeError("the collector was not started: call restart() first")
        with threads_of(self.environment):
            [batch] = self._rollout.collect()
        assert isinstance(batch, TensorDict), "a single policy's error is raised"
        return batch

    def close(self) -> None:
        """Do nothing: the creator of the environment closes it."""


def continued(environment: EnvBase, episodes: Any) -> tuple[TensorDict, dict[int, str]]:
    """Continue the running episodes of an environment.

    Args:
        episodes: from its `running_episodes`; None: it has no such method, and all begin anew.

    Returns:
        The environment's current outputs; and see `Collector.load_state_dict`.
    """
    if episodes is not None:
        outputs, lost = environment.continue_episodes(episodes)
        return outputs, lost
    # Not the episodes of the start again: these follow from the random state of the checkpoint.
    environment.reseed(int(torch.randint(2**32, (1,))))
    why = "the environment lacks running_episodes() and continue_episodes()"
    return environment.reset(), dict.fromkeys(range(environment.batch_size[0]), why)


@COLLECTORS.register("multi_sync")
class MultiSyncCollector:
    """Splits the copies over several processes; see Collector.

    Each process creates its environments, and samples actions from its own random state, seeded by
    `restart`. So a run with several collectors is reproducible too, but differs from a run with
    one.
    """

    def __init__(
        self,
        config: RunConfig,
        environment: EnvBase,
        make_environment: MakeEnvironment,
        actors: Actors,
        device: torch.device,
    ) -> None:
        self._batch: Any = None
        self._num_collectors = config.collector.num_collectors
        self._share = config.environment.num_parallel_envs // self._num_collectors
        self._reports = tempfile.TemporaryDirectory(prefix="heteromark-collector-")
        reports = Path(self._reports.name)
        self._collector: Any = None  # None while it is being created
        with self._worker_errors_raised():
            self._collector = TorchRLMultiSyncCollector(
                [
                    functools.partial(
                        _reporting, reports, make_environment, self._share, first=i * self._share
                    )
                    for i in range(self._num_collectors)
                ],
                env_device="cpu",
                cat_results=0,
                collector_class=functools.partial(_ReportingCollector, reports),
                num_sub_threads=1,
                use_buffers=True,
                policy=as_policy(actors),
                frames_per_batch=config.collector.frames_per_batch,
                total_frames=-1,
                exploration_type=ExplorationType.RANDOM,
                policy_device=device,
                storing_device=device,
                auto_register_policy_transforms=False,
            )

    def restart(self, seed: int, *stream: int | str) -> None:
        # The iterator requests a batch only when it is advanced, so no collection is running here.
        streams = [(seed, *stream, "collector", i) for i in range(self._num_collectors)]
        with self._worker_errors_raised():
            self._collector.map_fn("restart", streams)
        if self._batch is None:
            self._batch = iter(self._collector)

    def state_dict(self) -> dict[str, Any]:
        with self._worker_errors_raised():
            calls: list[tuple[()]] = [()] * self._num_collectors
            return {"processes": self._collector.map_fn("running_episodes", calls)}

    def load_state_dict(self, state: dict[str, Any]) -> dict[int, str]:
        with self._worker_errors_raised():
            shares = self._collector.map_fn(
                "continue_episodes", [(each,) for each in state["processes"]]
            )
        return {
            number * self._share + i: why
            for number, lost in enumerate(shares)
            for i, why in lost.items()
        }

    def collect(self) -> TensorDict:
        if self._batch is None:
            raise RuntimeError("the collector was not started: call restart() first")
        with self._worker_errors_raised():
            self._collector.update_policy_weights_()
            return next(self._batch).copy()

    @contextlib.contextmanager
    def _worker_errors_raised(self) -> Iterator[None]:
        """Raise the error of a collector process, or WorkerDied if a process ended without one."""
        try:
            yield
        except Exception as error:
            for report in sorted(Path(self._reports.name).glob("*.pickle")):
                raised, where = pickle.loads(report.read_bytes())
                raise raised from WorkerTraceback(where)
            number, status = self._ended_process()
            if status is None:
                raise
            copies = format_copies(number * self._share, (number + 1) * self._share)
            raise WorkerDied(
                f"the collector's process with {copies} of the environment "
                f"{describe_exit(status)}; set collector_type=sync to see where, or check the "
                "machine's memory if the process was killed"
            ) from error

    def _ended_process(self) -> tuple[int, int | None]:
        """Return the number and exit status of a process that ended; status None: all run."""
        processes = [] if self._collector is None else self._collector.procs
        deadline = time.monotonic() + _EXIT_TIMEOUT
        while processes and time.monotonic() < deadline:
            for number, process in enumerate(processes):
                # A process that TorchRL has ended is closed, and has no exit code.
                with contextlib.suppress(ValueError):
                    if process.exitcode is not None:
                        return number, process.exitcode
            time.sleep(0.05)
        return 0, None

    def close(self) -> None:
        # Shutting down a process that has died raises one of these.
        with contextlib.suppress(RuntimeError, OSError, EOFError, ValueError):
            self._collector.shutdown()
        self._reports.cleanup()


class _ReportingCollector(TorchRLCollector):
    """Runs in a separate process; restarts from seeds, and reports its errors to the parent."""

    def __init__(self, reports: Path, *args: Any, **kwargs: Any) -> None:
        self._reports = reports
        note_reads()
        super().__init__(*args, **kwargs)

    def restart(self, seed: int, *stream: int | str) -> None:
        """Seed the environments and the sampling of actions, and start new episodes."""
        _reporting(self._reports, self._restart, seed, *stream)

    def _restart(self, seed: int, *stream: int | str) -> None:
        # An environment that steps its copies in this process may draw from any generator.
        seed_everything(stream_seed(seed, *stream, "actions"))
        self.env.reseed(seed, *stream)
        self.reset()

    def running_episodes(self) -> dict[str, Any]:
        """Return this process's part of `MultiSyncCollector.state_dict`."""
        return _reporting(self._reports, self._running_episodes)

    def _running_episodes(self) -> dict[str, Any]:
        save = getattr(self.env, "running_episodes", None)
        # TorchRL keeps what the next step starts from in this attribute.
        hidden = {
            name: self._carrier[name, "hidden"].clone()
            for name in self.env.groups
            if (name, "hidden") in self._carrier.keys(True)
        }
        environment = None if save is None else save()
        return {"environment": environment, "hidden": hidden, "random": random_state()}

    def continue_episodes(self, state: Mapping[str, Any]) -> dict[int, str]:
        """Continue from `running_episodes`."""
        return _reporting(self._reports, self._continue, state)

    def _continue(self, state: Mapping[str, Any]) -> dict[int, str]:
        restore_random_state(state["random"])  # new episodes may draw their seed from it
        outputs, lost = continued(self.env, state["environment"])
        # Hidden states of episodes that begin are not read, see `modules.policy`.
        for name, hidden in state["hidden"].items():
            outputs[name, "hidden"] = hidden.to(outputs.device)
        self._carrier.update(outputs)
        restore_random_state(state["random"])
        return lost

    def rollout(self) -> TensorDict:
        return _reporting(self._reports, super().rollout)


def _reporting(reports: Path, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function. If it raises, write the error for the parent and exit silently."""
    try:
        return function(*arguments, **options)
    except Exception as error:
        with atomic_path(reports / f"{os.getpid()}.pickle") as report:
            report.write_bytes(pickle.dumps((make_picklable(error), traceback.format_exc())))
        raise SystemExit(1) from None
