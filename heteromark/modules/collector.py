"""The collector factory, and the collectors."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import random
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase, TensorDictSequential
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
from heteromark.runs.files import atomic_path
from heteromark.seeds import stream_seed


class MakeEnvironment(Protocol):
    """Makes an environment of that many copies, the first of which has that number."""

    def __call__(self, num_envs: int, *, first: int) -> EnvBase: ...


_PATIENCE = 2.0  # seconds until it is known how a process ended
Actors = Mapping[str, TensorDictModuleBase]


class Collector(Protocol):
    """Plays the environments, or works on tasks, with the actors: a batch per iteration."""

    def restart(self, seed: int, *stream: int | str) -> None:
        """Abandon the running episodes and start new ones from seeds of the given stream.

        This is what makes runs resumable: everything collected afterwards follows from the seeds,
        the actors and the random state, whatever was collected before.
        """

    def collect(self) -> Any:
        """The next T steps of every copy; of a team of language models, the answers to tasks.

        Returns:
            of copies, a TensorDict [N, T] on the device: what the agents saw, did and, under
            "next", got and saw then. The memory is reused by the next call.

        Raises:
            RuntimeError: `restart` was never called.
            WorkerDied: a process of the collector ended.
            Exception: what an environment raised, wherever it is stepped.
        """

    def close(self) -> None:
        """End the processes and environments that this collector started."""


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
        """A collector that has not been started.

        Args:
            environment: the run's, of all copies; finished ones reset by themselves.
            make_environment: makes another one of fewer copies; picklable.
            actors: by group; each writes its group's actions and log-probs.
            device: where the actors are and the batch goes.
        """
        make_collector = COLLECTORS[config.collector_type]
        return make_collector(config, environment, make_environment, actors, device)


@COLLECTORS.register("sync")
class SyncCollector:
    """Collects in this process, on TorchRL's collector; see Collector and CollectorFactory."""

    def __init__(
        self,
        config: RunConfig,
        environment: EnvBase,
        make_environment: MakeEnvironment,
        actors: Actors,
        device: torch.device,
    ) -> None:
        self.environment = environment
        self._started = False
        self._collector = TorchRLCollector(
            environment,
            env_device=environment.device,
            track_traj_ids=False,
            **_common(config, actors, device),
        )

    def restart(self, seed: int, *stream: int | str) -> None:
        self.environment.reseed(seed, *stream)
        self._collector.reset()
        self._started = True

    def collect(self) -> TensorDict:
        if not self._started:
            raise RuntimeError("the collector was not started: call restart() first")
        with _threads_of(self.environment):
            # A new dictionary, so that keys which an algorithm adds are not in the next batch.
            return self._collector.rollout().copy()

    def close(self) -> None:
        """Nothing to end: the environment belongs to whoever made it."""


@contextlib.contextmanager
def _threads_of(environment: EnvBase) -> Iterator[None]:
    """Copies that Python steps get the cores: torch's other threads would wait for work on them.

    With two workers on two cores that made collection slower than without. A choice of actions for
    such copies is too small to gain from several threads. It does not depend on the number of
    workers, because the number of threads can change the last bits of a result.
    """
    if not getattr(environment, "stepped_by_python", False):
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@COLLECTORS.register("multi_sync")
class MultiSyncCollector:
    """Splits the copies over processes that play at the same time; see Collector.

    Every process samples actions from a random state of its own, which `restart` seeds. So a run
    with several collectors is as reproducible as one without, but not the same run. Environments
    are made in the processes.
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
        self._collector = None
        with self._failures_told():
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
                **_common(config, actors, device),
            )

    def restart(self, seed: int, *stream: int | str) -> None:
        # the iterator asks for a batch only when it is advanced: nothing is under way here
        streams = [(seed, *stream, "collector", i) for i in range(self._num_collectors)]
        with self._failures_told():
            self._collector.map_fn("restart", streams)
        if self._batch is None:
            self._batch = iter(self._collector)

    def collect(self) -> TensorDict:
        if self._batch is None:
            raise RuntimeError("the collector was not started: call restart() first")
        with self._failures_told():
            self._collector.update_policy_weights_()
            return next(self._batch).copy()

    @contextlib.contextmanager
    def _failures_told(self) -> Iterator[None]:
        """Raise what a process of the collector raised, or say how it ended, and what to do."""
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
                "machine's memory if it was killed"
            ) from error

    def _ended_process(self) -> tuple[int, int | None]:
        """The number and the exit status of a process that ended by itself; None: there is none."""
        processes = [] if self._collector is None else self._collector.procs
        deadline = time.monotonic() + _PATIENCE
        while processes and time.monotonic() < deadline:
            for number, process in enumerate(processes):
                # TorchRL closes the others, which it ends
                with contextlib.suppress(ValueError):
                    if process.exitcode is not None:
                        return number, process.exitcode
            time.sleep(0.05)
        return 0, None

    def close(self) -> None:
        # a process that died cannot be shut down in an orderly way
        with contextlib.suppress(RuntimeError, OSError, EOFError, ValueError):
            self._collector.shutdown()
        self._reports.cleanup()


class _ReportingCollector(TorchRLCollector):
    """In a process of its own: restarts from seeds, and tells the parent why it failed."""

    def __init__(self, reports: Path, *args: Any, **kwargs: Any) -> None:
        self._reports = reports
        super().__init__(*args, **kwargs)

    def restart(self, seed: int, *stream: int | str) -> None:
        """Seed the environments and the sampling of actions, and start new episodes."""
        _reporting(self._reports, self._restart, seed, *stream)

    def _restart(self, seed: int, *stream: int | str) -> None:
        own = stream_seed(seed, *stream, "actions")
        torch.manual_seed(own)
        # an environment that steps its copies itself may draw from these
        np.random.seed(own)  # noqa: NPY002
        random.seed(own)
        self.env.reseed(seed, *stream)
        self.reset()

    def rollout(self) -> TensorDict:
        return _reporting(self._reports, super().rollout)


def _reporting(reports: Path, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call it; if it raises, leave that to the parent and end without a word on the console."""
    try:
        return function(*arguments, **options)
    except Exception as error:
        with atomic_path(reports / f"{os.getpid()}.pickle") as report:
            report.write_bytes(pickle.dumps((make_picklable(error), traceback.format_exc())))
        raise SystemExit(1) from None


def _common(config: RunConfig, actors: Actors, device: torch.device) -> dict[str, Any]:
    return {
        "policy": TensorDictSequential(*actors.values()),
        "frames_per_batch": config.collector.frames_per_batch,
        "total_frames": -1,
        "exploration_type": ExplorationType.RANDOM,
        "policy_device": device,
        "storing_device": device,
        "auto_register_policy_transforms": False,
    }
